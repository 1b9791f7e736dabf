from knowledge.models.connections import Connection, DriftPolicy, Health

__all__ = ["Connection", "DriftPolicy", "Health"]
