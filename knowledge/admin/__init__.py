"""Admin pages of knowledge."""

from knowledge.admin.connections import ConnectionAdmin

__all__ = ["ConnectionAdmin"]
