"""Fixtures of the engines' tests."""

from tests.inference.engines.remote_support import artefact, serve_openai, started, starter

__all__ = ["artefact", "serve_openai", "started", "starter"]
