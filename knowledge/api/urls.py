"""Routes of the knowledge app under ``/api/v1/``."""

from django.urls import path

from knowledge.api import connection_views

urlpatterns = [
    path("connections", connection_views.ConnectionsView.as_view(), name="connections"),
    path(
        "connections/<str:connection_id>",
        connection_views.ConnectionView.as_view(),
        name="connection",
    ),
    path(
        "connections/<str:connection_id>/check",
        connection_views.CheckConnectionView.as_view(),
        name="connection-check",
    ),
    path(
        "connections/<str:connection_id>/share",
        connection_views.ShareConnectionView.as_view(),
        name="connection-share",
    ),
    path(
        "connections/<str:connection_id>/licence",
        connection_views.LicenceView.as_view(),
        name="connection-licence",
    ),
    path(
        "connections/<str:connection_id>/workspaces",
        connection_views.WorkspacesView.as_view(),
        name="connection-workspaces",
    ),
]
