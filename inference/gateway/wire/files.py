"""Files on the wire: OpenAI's file object, and the fields of an upload."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec

from inference.gateway.wire.diagnose import shown
from inference.gateway.wire.objects import expiry_seconds, file_name
from inference.models.batches import FilePurpose
from portal.core.errors import Conflict, Invalid

# What a caller may upload; results of batches are made here.
UPLOADED: Final = (FilePurpose.BATCH.value,)
_EXPIRY: Final = ("expires_after[anchor]", "expires_after[seconds]")


class FileFacts(msgspec.Struct, frozen=True):
    """A file as its endpoints show it; ``size`` in bytes."""

    id: UUID
    filename: str
    purpose: str
    size: int
    chunks: int
    created_at: datetime
    expires_at: datetime | None
    data_key_version: int
    data_key: bytes


def file_object(facts: FileFacts) -> dict[str, Any]:
    """OpenAI's file object."""
    expires = facts.expires_at
    return {
        "id": file_name(facts.id),
        "object": "file",
        "bytes": facts.size,
        "created_at": int(facts.created_at.timestamp()),
        "expires_at": int(expires.timestamp()) if expires else None,
        "filename": facts.filename,
        "purpose": facts.purpose,
        "status": "processed",
        "status_details": None,
    }


def deleted_object(file_id: UUID) -> dict[str, Any]:
    """What the deletion of a file is answered with."""
    return {"id": file_name(file_id), "object": "file", "deleted": True}


def check_purpose(fields: Mapping[str, str]) -> None:
    """Goes on if the purpose that was sent is one that files can be uploaded for.

    Raises:
        Invalid: naming the purpose.
    """
    purpose = fields.get("purpose")
    if purpose is not None and purpose not in UPLOADED:
        raise Invalid(
            f"Files of the purpose '{shown(purpose)}' are not supported: use 'batch'.",
            code="unsupported_purpose",
            param="purpose",
        )


def upload_seconds(fields: Mapping[str, str]) -> int | None:
    """How long the caller wants the file kept, in seconds; None if nothing is said.

    Raises:
        Invalid: the purpose is missing, or the expiry is not within its bounds.
    """
    if "purpose" not in fields:
        raise missing("purpose")
    check_purpose(fields)
    if not any(name in fields for name in _EXPIRY):
        return None
    anchor, seconds = (fields.get(name) for name in _EXPIRY)
    return expiry_seconds(anchor, seconds, "expires_after")


def missing(param: str) -> Invalid:
    """400: the form lacks a field."""
    return Invalid(
        f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param
    )


def empty_file() -> Invalid:
    """400: there is nothing in the file."""
    return Invalid("The file is empty: send at least one line.", code="empty_file", param="file")


def file_too_large(limit: int) -> Invalid:
    """413: a file may have at most ``limit`` bytes."""
    return Invalid(
        f"The file is too large: at most {limit} bytes are allowed. Split it.",
        code="file_too_large",
        status=413,
        param="file",
    )


def no_room(limit: int) -> Invalid:
    """413: the tenant's files may have ``limit`` bytes together."""
    return Invalid(
        f"Your tenant's files may take {limit} bytes together, and this one doesn't fit: "
        "delete some that are no longer needed.",
        code="file_storage_full",
        status=413,
        param="file",
    )


def in_use(name: str) -> Conflict:
    """409: a batch that has not ended reads the file."""
    return Conflict(
        f"The file '{shown(name)}' is being worked on: cancel its batch, or wait for its end.",
        code="file_in_use",
    )


def content_headers(facts: FileFacts) -> list[tuple[bytes, bytes]]:
    """The headers of a file's content; its name is the caller's, so it is quoted."""
    name = quote(facts.filename, safe="")
    return [
        (b"content-length", b"%d" % facts.size),
        (b"content-disposition", b"attachment; filename*=UTF-8''" + name.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
