"""Routes of the audit trail under ``/api/v1/``."""

from django.urls import path

from audit.api import views

urlpatterns = [
    path("audit/events", views.EventsView.as_view(), name="audit-events"),
    path("audit/events/<str:event_id>", views.EventView.as_view(), name="audit-event"),
]
