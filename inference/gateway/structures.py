"""Schemas of requests, checked and compiled before anything is admitted for them."""

import asyncio

from msgspec.structs import replace

from inference.engines.base import Structure
from inference.engines.schemas import checked_schema
from inference.gateway.wire.common import ParsedRequest


def with_checked_schema(request: ParsedRequest) -> ParsedRequest:
    """The request with its schema as engines get it.

    Raises:
        Invalid: the schema is none that answers can be held to.
    """
    extras = request.extras
    if extras is None or extras.structure is None or extras.structure.kind != "json_schema":
        return request
    # Only ``/v1/responses`` has an ``input``.
    param = "text.format.schema" if request.param == "input" else "response_format.json_schema"
    structure = Structure("json_schema", checked_schema(extras.structure.schema, param))
    return replace(request, extras=replace(extras, structure=structure))


async def check_schema(request: ParsedRequest) -> ParsedRequest:
    """As ``with_checked_schema``; compiling it holds up nobody else."""
    if request.extras is None or request.extras.structure is None:
        return request
    return await asyncio.to_thread(with_checked_schema, request)
