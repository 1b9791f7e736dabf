"""The portal's own runner of apps: it retrieves, fills the template, generates, cites."""

from knowledge.runner.runner import Runner

__all__ = ["Runner"]
