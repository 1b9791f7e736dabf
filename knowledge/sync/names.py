"""What knowledge bases are called in Dify, where a name has 40 characters at most."""

import hashlib
from typing import Final
from uuid import UUID

from knowledge.models import Connection

MOST_CHARS: Final = 40
_MOST_PREFIX_CHARS: Final = 14


def mark_of(local_id: UUID) -> str:
    """The name under which an object is made: nothing else can have it.

    It gets its own name once its id has been written down. So one whose making was not answered
    is found again for certain.
    """
    return f"portal-{local_id.hex}"


def tag_of(slug: str) -> str:
    """The tag that tells people in Dify whose a knowledge base is."""
    return f"portal:{slug}"


def name_in_dify(connection: Connection, slug: str, name: str, local_id: UUID) -> str:
    """A knowledge base's name in its workspace.

    Where several tenants share the workspace it begins with the tenant's short name. What is too
    long is cut, and ends in four characters that keep it apart from others that begin alike.
    """
    if not connection.shared:
        return name
    full = _prefix(slug) + name
    if len(full) <= MOST_CHARS:
        return full
    ending = hashlib.sha256(local_id.bytes).hexdigest()[:4]
    return f"{full[: MOST_CHARS - 5].rstrip()}~{ending}"


def name_in_portal(connection: Connection, slug: str, name: str) -> str:
    """What a name that somebody gave in Dify is in the portal: without the tenant's prefix."""
    return (name.removeprefix(_prefix(slug)) if connection.shared else name) or name


def _prefix(slug: str) -> str:
    if len(slug) > _MOST_PREFIX_CHARS:
        # Tenants whose short names begin alike must not meet.
        ending = hashlib.sha256(slug.encode()).hexdigest()[:4]
        slug = f"{slug[: _MOST_PREFIX_CHARS - 5]}~{ending}"
    return f"{slug}/"
