"""Fixtures of the engines' tests."""

from tests.inference.engines.remote_support import artefact, started, starter

__all__ = ["artefact", "started", "starter"]
