"""Routes of the inference app under ``/api/v1/``."""

from django.urls import path

from inference.api import route_views, views

urlpatterns = [
    path("jobs", views.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", views.JobView.as_view(), name="job"),
    path("models", views.ModelsView.as_view(), name="models"),
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
