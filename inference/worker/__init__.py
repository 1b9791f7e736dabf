"""The inference worker: a Celery worker that holds one model and serves one deployment."""
