"""Routes of the knowledge app under ``/api/v1/``."""

from django.urls import path

from knowledge.api import connection_views, dify, views

urlpatterns = [
    path("knowledge-bases", views.KnowledgeBasesView.as_view(), name="knowledge-bases"),
    path("knowledge-bases/<str:base_id>", views.KnowledgeBaseView.as_view(), name="knowledge-base"),
    path(
        "knowledge-bases/<str:base_id>/retrieve",
        views.RetrieveView.as_view(),
        name="knowledge-base-retrieve",
    ),
    path(
        "knowledge-bases/<str:base_id>/documents",
        views.DocumentsView.as_view(),
        name="knowledge-documents",
    ),
    path("knowledge-bases/<str:base_id>/files", views.FilesView.as_view(), name="knowledge-files"),
    path("documents/<str:document_id>", views.DocumentView.as_view(), name="knowledge-document"),
    path(
        "documents/<str:document_id>/index",
        views.IndexView.as_view(),
        name="knowledge-document-index",
    ),
    path(
        "documents/<str:document_id>/versions",
        views.VersionsView.as_view(),
        name="knowledge-versions",
    ),
    path(
        "documents/<str:document_id>/text",
        views.TextView.as_view(),
        name="knowledge-document-text",
    ),
    path("documents/<str:document_id>/diff", views.DiffView.as_view(), name="knowledge-diff"),
    path(
        "external-knowledge/retrieval",
        dify.DifyRetrievalView.as_view(),
        name="external-knowledge-retrieval",
    ),
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
