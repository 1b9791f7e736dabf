"""Routes of the inference app under ``/api/v1/``."""

from django.urls import path

from inference.api import batches, jobs, route_views, views, webhook_views

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
    path("model-versions", views.ModelVersionsView.as_view(), name="model-versions"),
    path(
        "models/<str:model_id>/quality-gate",
        views.ModelGateView.as_view(),
        name="model-quality-gate",
    ),
    path("deployments", views.DeploymentsView.as_view(), name="deployments"),
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
