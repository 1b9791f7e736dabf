"""The app gateway in the management API's description: its endpoints are no views of Django's."""

from typing import Any, Final

_TEXT: Final = {"type": "string"}
_ID: Final = {"type": "string", "format": "uuid"}
_COMMON: Final[dict[str, Any]] = {
    "inputs": {"type": "object", "additionalProperties": {}, "description": "By name."},
    "user": {"type": "string", "maxLength": 120, "description": "The caller's own user."},
    "stream": {"type": "boolean", "default": False, "description": "As server-sent events."},
    "version": {"type": "integer", "description": "Takes the scope `apps:write`."},
}
_ASKED: Final[dict[str, Any]] = {"query": _TEXT, "conversation_id": _ID}
_ANSWER: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "app": _TEXT,
        "version": {"type": "integer"},
        "conversation_id": _ID,
        "message_id": _ID,
        "answer": _TEXT,
        "output": {"description": "The answer decoded, where the app has a schema."},
        "sources": {"type": "array", "items": {"$ref": "#/components/schemas/Source"}},
        "left_out": {"type": "integer"},
        "degraded": _TEXT,
        "finish_reason": {"type": "string", "enum": ["stop", "length", "stopped"]},
        "usage": {"type": "object", "additionalProperties": {"type": "integer"}},
        "disclaimer": _TEXT,
    },
}


def _operation(
    name: str, text: str, places: list[str], body: dict[str, Any], answers: dict[str, Any]
) -> dict[str, Any]:
    return {
        "post": {
            "operationId": name,
            "description": text,
            "parameters": [
                {"in": "path", "name": place, "schema": _TEXT, "required": True} for place in places
            ],
            "tags": ["apps"],
            "requestBody": {"content": {"application/json": {"schema": body}}},
            "security": [{"apiKey": []}],
            "responses": answers,
        }
    }


def _answered(name: str, text: str, asked: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "object", "properties": {**asked, **_COMMON}}
    if "query" in asked:
        body["required"] = ["query"]
    content = {
        "application/json": {"schema": _ANSWER},
        "text/event-stream": {"schema": _TEXT},
    }
    answers = {"200": {"content": content, "description": "The answer, whole or as events."}}
    return _operation(name, text, ["app"], body, answers)


def describe_app_gateway(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Adds the app gateway's endpoints; a hook of the description's generator."""
    result["paths"] |= {
        "/api/v1/apps/{app}/chat": _answered(
            "apps_chat", "Asks a published app a question, in a conversation.", _ASKED
        ),
        "/api/v1/apps/{app}/run": _answered("apps_run", "Runs a published app once.", {}),
        "/api/v1/apps/{app}/messages/{message}/stop": _operation(
            "app_messages_stop",
            "Ends an answer that is under way.",
            ["app", "message"],
            {"type": "object", "properties": {"user": _COMMON["user"]}},
            {"202": {"description": "It ends."}},
        ),
    }
    result["paths"] = dict(sorted(result["paths"].items()))
    return result
