"""Routes of the inference app under ``/api/v1/``."""

from django.urls import path

from inference.api import views

urlpatterns = [
    path("jobs", views.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", views.JobView.as_view(), name="job"),
    path("models", views.ModelsView.as_view(), name="models"),
    path("deployments", views.DeploymentsView.as_view(), name="deployments"),
]
