"""Schemas of requests, checked and compiled before anything is admitted for them."""

import asyncio

import msgspec
from msgspec.structs import replace

from inference.engines.base import Structure
from inference.engines.schemas import ANY_OBJECT, MAX_SCHEMA_BYTES, checked_schema
from inference.gateway.wire.common import CallRule, HeldTool, ParsedRequest
from portal.core.errors import Invalid


def with_checked_schema(request: ParsedRequest) -> ParsedRequest:
    """The request with its schemas as engines get them.

    Raises:
        Invalid: a schema is none that answers can be held to.
    """
    if request.calls is not None:
        request = replace(request, calls=_checked_rule(request.calls))
    extras = request.extras
    if extras is None or extras.structure is None or extras.structure.kind != "json_schema":
        return request
    # Only ``/v1/responses`` has an ``input``.
    param = "text.format.schema" if request.param == "input" else "response_format.json_schema"
    structure = Structure("json_schema", checked_schema(extras.structure.schema, param))
    return replace(request, extras=replace(extras, structure=structure))


async def check_schema(request: ParsedRequest) -> ParsedRequest:
    """As ``with_checked_schema``; compiling it holds up nobody else."""
    if request.calls is None and (request.extras is None or request.extras.structure is None):
        return request
    return await asyncio.to_thread(with_checked_schema, request)


def _checked_rule(rule: CallRule) -> CallRule:
    tools = tuple(replace(tool, schema=_arguments(tool)) for tool in rule.tools)
    if sum(len(tool.schema.encode()) for tool in tools) > MAX_SCHEMA_BYTES:
        raise Invalid(
            f"Invalid 'tools': the parameters to which calls are held have more than "
            f"{MAX_SCHEMA_BYTES} bytes of JSON in all.",
            code="invalid_json_schema",
            param="tools",
        )
    return replace(rule, tools=tools)


def _arguments(tool: HeldTool) -> str:
    """The schema to which a call's arguments are held.

    Where the caller does not insist, what can't be held is any object.
    """
    try:
        schema = checked_schema(tool.schema, tool.param)
        if msgspec.json.decode(schema).get("type") != "object":
            raise Invalid(
                f"Invalid '{tool.param}': the type 'object' is needed, for arguments are one.",
                code="invalid_json_schema",
                param=tool.param,
            )
    except Invalid:
        if tool.strict:
            raise
        return ANY_OBJECT
    return schema
