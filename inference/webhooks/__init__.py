"""Webhooks: signed HTTP calls that tell a receiver how its job ended."""
