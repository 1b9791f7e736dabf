"""Routes of the knowledge app under ``/api/v1/``."""

from django.urls import path

from knowledge.api import (
    app_views,
    connection_views,
    dify,
    scenario_views,
    source_views,
    sync_views,
    trigger_views,
    views,
)

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
    path("apps", app_views.AppsView.as_view(), name="apps"),
    path("apps/<str:app>", app_views.AppView.as_view(), name="app"),
    path("apps/<str:app>/versions", app_views.AppVersionsView.as_view(), name="app-versions"),
    path("apps/<str:app>/diff", app_views.AppDiffView.as_view(), name="app-diff"),
    path("apps/<str:app>/publish", app_views.PublishAppView.as_view(), name="app-publish"),
    path("apps/<str:app>/withdraw", app_views.WithdrawAppView.as_view(), name="app-withdraw"),
    path("apps/<str:app>/deployment", app_views.DeploymentView.as_view(), name="app-deployment"),
    path("apps/<str:app>/usage", app_views.AppUsageView.as_view(), name="app-usage"),
    path("apps/<str:app>/parameters", app_views.AppParametersView.as_view(), name="app-parameters"),
    path(
        "apps/<str:app>/conversations",
        app_views.ConversationsView.as_view(),
        name="app-conversations",
    ),
    path(
        "apps/<str:app>/conversations/<str:conversation_id>",
        app_views.ConversationView.as_view(),
        name="app-conversation",
    ),
    path(
        "apps/<str:app>/conversations/<str:conversation_id>/messages",
        app_views.MessagesView.as_view(),
        name="app-messages",
    ),
    path(
        "apps/<str:app>/messages/<str:message_id>/feedback",
        app_views.FeedbackView.as_view(),
        name="app-feedback",
    ),
    path(
        "knowledge-bases/<str:base_id>/sources",
        source_views.SourcesView.as_view(),
        name="knowledge-sources",
    ),
    path(
        "sources/<str:source_id>",
        source_views.SourceView.as_view(),
        name="knowledge-source",
    ),
    path(
        "sources/<str:source_id>/test",
        source_views.TestSourceView.as_view(),
        name="knowledge-source-test",
    ),
    path(
        "sources/<str:source_id>/run",
        source_views.RunSourceView.as_view(),
        name="knowledge-source-run",
    ),
    path(
        "sources/<str:source_id>/runs",
        source_views.SourceRunsView.as_view(),
        name="knowledge-source-runs",
    ),
    path(
        "sources/<str:source_id>/refusals",
        source_views.SourceRefusalsView.as_view(),
        name="knowledge-source-refusals",
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
    path("events", trigger_views.EventsView.as_view(), name="events"),
    path("triggers", trigger_views.TriggersView.as_view(), name="triggers"),
    path("triggers/<str:trigger_id>", trigger_views.TriggerView.as_view(), name="trigger"),
    path(
        "triggers/<str:trigger_id>/start",
        trigger_views.StartTriggerView.as_view(),
        name="trigger-start",
    ),
    path(
        "triggers/<str:trigger_id>/runs",
        trigger_views.TriggerRunsView.as_view(),
        name="trigger-runs",
    ),
    path("trigger-runs/<str:run_id>", trigger_views.TriggerRunView.as_view(), name="trigger-run"),
    path("scenarios", scenario_views.ScenariosView.as_view(), name="scenarios"),
    path("evaluations", scenario_views.EvaluationsView.as_view(), name="evaluations"),
    path(
        "evaluations/<str:evaluation_id>",
        scenario_views.EvaluationView.as_view(),
        name="evaluation",
    ),
    path(
        "connections/<str:connection_id>/sync",
        sync_views.SyncView.as_view(),
        name="connection-sync",
    ),
    path(
        "connections/<str:connection_id>/plan",
        sync_views.PlanView.as_view(),
        name="connection-plan",
    ),
    path(
        "connections/<str:connection_id>/objects",
        sync_views.RemoteObjectsView.as_view(),
        name="connection-objects",
    ),
    path(
        "remote-objects/<str:object_id>/decide",
        sync_views.DecideView.as_view(),
        name="remote-object-decide",
    ),
    path("deletion-receipts", sync_views.DeletionReceiptsView.as_view(), name="deletion-receipts"),
]
