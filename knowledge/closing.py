"""What becomes of a tenant's knowledge when the tenant is closed."""

from tenants.closing.registry import erase_rows


def register() -> None:
    """Says it, once, when the app starts."""
    erase_rows("knowledge_connection")
