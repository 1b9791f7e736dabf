"""Closing a tenant: what apps register, the worker's steps, the export and the certificate."""
