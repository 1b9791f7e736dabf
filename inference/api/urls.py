"""Routes of the inference app under ``/api/v1/``."""

from django.urls import path

from inference.api import batches, deployment_views, jobs, route_views, views, webhook_views

urlpatterns = [
    path("jobs", jobs.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", jobs.JobView.as_view(), name="job"),
    path("jobs/<str:job_id>/cancel", jobs.CancelJobView.as_view(), name="job-cancel"),
    path("jobs/<str:job_id>/events", jobs.JobEventsView.as_view(), name="job-events"),
    path("jobs/<str:job_id>/result", jobs.JobResultView.as_view(), name="job-result"),
    path("webhooks/deliveries", webhook_views.DeliveriesView.as_view(), name="webhook-deliveries"),
    path(
        "webhooks/deliveries/<str:delivery_id>",
        webhook_views.DeliveryView.as_view(),
        name="webhook-delivery",
    ),
    path(
        "webhooks/deliveries/<str:delivery_id>/redeliver",
        webhook_views.RedeliverView.as_view(),
        name="webhook-redeliver",
    ),
    path("webhooks/test", webhook_views.TestView.as_view(), name="webhook-test"),
    path("webhooks/secret", webhook_views.SecretView.as_view(), name="webhook-secret"),
    path("batches", batches.BatchesView.as_view(), name="batches"),
    path("batches/<str:batch_id>", batches.BatchView.as_view(), name="batch"),
    path("models", views.ModelsView.as_view(), name="models"),
    path(
        "models/<str:model_id>/quality-gate",
        views.ModelGateView.as_view(),
        name="model-quality-gate",
    ),
    path("models/<str:model_id>", deployment_views.ModelView.as_view(), name="model"),
    path("model-versions", deployment_views.VersionsView.as_view(), name="model-versions"),
    path(
        "model-versions/<str:version_id>",
        deployment_views.VersionView.as_view(),
        name="model-version",
    ),
    path(
        "model-versions/<str:version_id>/check",
        deployment_views.FileCheckView.as_view(),
        name="model-version-check",
    ),
    path(
        "model-versions/<str:version_id>/prices",
        deployment_views.PricesView.as_view(),
        name="prices",
    ),
    path("deployments", views.DeploymentsView.as_view(), name="deployments"),
    path(
        "deployments/<str:deployment_id>",
        deployment_views.DeploymentView.as_view(),
        name="deployment",
    ),
    path(
        "deployments/<str:deployment_id>/enable",
        deployment_views.EnableDeploymentView.as_view(),
        name="deployment-enable",
    ),
    path(
        "deployments/<str:deployment_id>/disable",
        deployment_views.DisableDeploymentView.as_view(),
        name="deployment-disable",
    ),
    path(
        "deployments/<str:deployment_id>/workers",
        deployment_views.WorkersView.as_view(),
        name="deployment-workers",
    ),
    path(
        "deployments/<str:deployment_id>/orders",
        deployment_views.DeploymentOrdersView.as_view(),
        name="deployment-orders",
    ),
    path("workers/<str:worker_id>", deployment_views.WorkerView.as_view(), name="worker"),
    path(
        "workers/<str:worker_id>/orders",
        deployment_views.WorkerOrdersView.as_view(),
        name="worker-orders",
    ),
    path("routes", route_views.RoutesView.as_view(), name="routes"),
    path("routes/<str:route_id>", route_views.RouteView.as_view(), name="route"),
    path(
        "routes/<str:route_id>/overrides",
        route_views.RouteOverridesView.as_view(),
        name="route-overrides",
    ),
    path(
        "route-overrides/<str:override_id>",
        route_views.RouteOverrideView.as_view(),
        name="route-override",
    ),
]
