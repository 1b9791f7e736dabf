"""Routes of the inference app under ``/api/v1/``."""

from django.urls import path

from inference.api import batches, jobs, views

urlpatterns = [
    path("jobs", jobs.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", jobs.JobView.as_view(), name="job"),
    path("jobs/<str:job_id>/cancel", jobs.CancelJobView.as_view(), name="job-cancel"),
    path("jobs/<str:job_id>/events", jobs.JobEventsView.as_view(), name="job-events"),
    path("jobs/<str:job_id>/result", jobs.JobResultView.as_view(), name="job-result"),
    path("batches", batches.BatchesView.as_view(), name="batches"),
    path("batches/<str:batch_id>", batches.BatchView.as_view(), name="batch"),
    path("models", views.ModelsView.as_view(), name="models"),
    path("deployments", views.DeploymentsView.as_view(), name="deployments"),
]
