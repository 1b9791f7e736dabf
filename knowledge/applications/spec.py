"""What an app is: the document of one version, typed and checked.

It says nothing of where the app runs: the portal's runner and Dify are given the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from inference.gateway.structures import with_checked_schema
from inference.gateway.wire.request import parse_chat_request
from inference.jobs.catalogue import named_models
from knowledge.applications.template import CONTEXT, QUERY, places_of
from knowledge.models import AppMode, KnowledgeBase, Method
from knowledge.models.bases import MOST_TOP_K
from portal.core.errors import Invalid, PortalError

MOST_TEMPLATE_CHARS: Final = 16_000
MOST_INPUTS: Final = 32
MOST_KNOWLEDGE: Final = 10
MOST_INPUT_CHARS: Final = 100_000
_MOST_SCHEMA_CHARS: Final = 16_000
_RESERVED: Final = (CONTEXT, QUERY)

InputType = Literal["text", "number", "boolean", "choice"]
InputValue = str | int | float | bool


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value that callers hand in by name.

    Attributes:
        label: how people read it; the name if it is empty.
        options: what a choice may be.
        most_chars: of a text.
    """

    name: str
    type: InputType = "text"
    label: str = ""
    required: bool = True
    options: tuple[str, ...] = ()
    most_chars: int = 4000


class Knowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A knowledge base that is searched; what is None is as the knowledge base has it."""

    knowledge_base_id: UUID
    method: Method | None = None
    top_k: int | None = None
    score_threshold: float | None = None
    rerank: bool = True


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the model writes; None leaves it to the deployment."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class AppSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version of an app.

    Attributes:
        model: what callers of ``/v1`` put into ``model``.
        prompt: the template of what the model is asked; its places are ``{{context}}``,
            ``{{query}}`` and the names of inputs.
        instructions: the template of the system message; empty for none.
        search: the template of what knowledge bases are asked.
        schema: the JSON Schema that the answer is held to.
        opening: what a conversation begins with.
        disclaimer: what is shown under each answer.
        history: how many earlier questions and answers the model sees.
    """

    model: str
    prompt: str = "{{query}}"
    instructions: str = ""
    search: str = "{{query}}"
    inputs: tuple[Input, ...] = ()
    knowledge: tuple[Knowledge, ...] = ()
    sampling: Sampling = Sampling()
    schema: dict[str, Any] | None = None
    opening: str = ""
    disclaimer: str = ""
    history: int = 6


def read_spec(document: Any) -> AppSpec:
    """The specification in what JSON decodes to.

    Raises:
        Invalid: naming what is wrong, and where.
    """
    try:
        return msgspec.convert(document, AppSpec)
    except msgspec.ValidationError as fault:
        raise Invalid(f"The specification is wrong: {fault}.", param="spec") from None


def document_of(spec: AppSpec) -> dict[str, Any]:
    """The specification as it is stored; what has its default is left out."""
    document: dict[str, Any] = msgspec.to_builtins(spec)
    return document


def check_spec(spec: AppSpec, mode: AppMode) -> None:
    """Checks what one part of a specification asks of another, and that what it names is here.

    Inside the tenant's scope.

    Raises:
        Invalid: naming the field that is wrong.
    """
    _check_inputs(spec)
    _check_templates(spec, mode)
    _check_knowledge(spec)
    if not 0 <= spec.history <= 50:
        raise _wrong("history", "must be from 0 to 50")
    _check_model(spec)


def _check_inputs(spec: AppSpec) -> None:
    names = [one.name for one in spec.inputs]
    if len(names) > MOST_INPUTS:
        raise _wrong("inputs", f"may be {MOST_INPUTS} at most")
    if len(set(names)) < len(names):
        raise _wrong("inputs", "must have different names")
    for one in spec.inputs:
        if not (one.name.isidentifier() and one.name.isascii() and len(one.name) <= 40):
            raise _wrong("inputs", "must be named by letters, digits and '_', such as order_id")
        if one.name in _RESERVED:
            raise _wrong("inputs", f"can't be named '{one.name}'")
        if (one.type == "choice") != bool(one.options) or len(one.options) > 100:
            raise _wrong("inputs", "of the type 'choice', and no others, need 1 to 100 options")
        if not 1 <= one.most_chars <= MOST_INPUT_CHARS:
            raise _wrong("inputs", f"may have 'most_chars' from 1 to {MOST_INPUT_CHARS}")
        if any("\0" in text for text in (one.label, *one.options)):
            raise _wrong("inputs", "hold a NUL character")


def _check_templates(spec: AppSpec, mode: AppMode) -> None:
    given = {one.name for one in spec.inputs}
    asked = given | {QUERY} if mode == AppMode.CHAT else given
    for field, known in (
        ("prompt", asked | {CONTEXT}),
        ("instructions", asked | {CONTEXT}),
        ("search", asked),
    ):
        text: str = getattr(spec, field)
        if field == "search" and not spec.knowledge:
            continue
        _check_text(field, text)
        unknown = sorted(places_of(text) - known)
        if unknown:
            raise _wrong(field, f"has a place that is no input: {{{{{unknown[0]}}}}}")
    for field in ("opening", "disclaimer"):
        _check_text(field, getattr(spec, field))
    if not spec.prompt.strip():
        raise _wrong("prompt", "is empty")
    shown = places_of(spec.prompt) | places_of(spec.instructions)
    if mode == AppMode.CHAT and QUERY not in shown:
        raise _wrong("prompt", "must hold {{query}}")
    if bool(spec.knowledge) != (CONTEXT in shown):
        what = "must hold {{context}}" if spec.knowledge else "has {{context}} without knowledge"
        raise _wrong("prompt", what)


def _check_text(field: str, text: str) -> None:
    if len(text) > MOST_TEMPLATE_CHARS:
        raise _wrong(field, f"may have {MOST_TEMPLATE_CHARS} characters")
    if "\0" in text:
        raise _wrong(field, "holds a NUL character")


def _check_knowledge(spec: AppSpec) -> None:
    if len(spec.knowledge) > MOST_KNOWLEDGE:
        raise _wrong("knowledge", f"may be {MOST_KNOWLEDGE} knowledge bases at most")
    ids = bases_of(spec)
    if len(ids) < len(spec.knowledge):
        raise _wrong("knowledge", "names a knowledge base twice")
    for one in spec.knowledge:
        if one.top_k is not None and not 1 <= one.top_k <= MOST_TOP_K:
            raise _wrong("knowledge", f"may have 'top_k' from 1 to {MOST_TOP_K}")
        if one.score_threshold is not None and not 0 <= one.score_threshold <= 1:
            raise _wrong("knowledge", "may have 'score_threshold' from 0 to 1")
    if KnowledgeBase.objects.filter(pk__in=ids).count() < len(ids):
        raise _wrong("knowledge", "names a knowledge base that is not there")


def bases_of(spec: AppSpec) -> frozenset[UUID]:
    """The knowledge bases that a specification names."""
    return frozenset(one.knowledge_base_id for one in spec.knowledge)


def _check_model(spec: AppSpec) -> None:
    if spec.schema is not None and len(msgspec.json.encode(spec.schema)) > _MOST_SCHEMA_CHARS:
        raise _wrong("schema", f"may have {_MOST_SCHEMA_CHARS} characters")
    try:
        with_checked_schema(parse_chat_request(chat_body(spec, [("user", "x")])))
    except PortalError as refusal:
        raise Invalid(
            f"The specification is wrong: {refusal.message}", param=refusal.param or "spec"
        ) from None
    if spec.model not in named_models([spec.model]):
        raise Invalid("'model' must be a model that is served here.", param="model")


def chat_body(spec: AppSpec, messages: Iterable[tuple[str, str]]) -> bytes:
    """The request to ``/v1/chat/completions`` that a specification makes of messages, as JSON.

    Args:
        messages: role and content of each.
    """
    asked = [{"role": role, "content": content} for role, content in messages]
    body: dict[str, Any] = {"model": spec.model, "messages": asked}
    body |= {k: v for k, v in msgspec.to_builtins(spec.sampling).items() if v is not None}
    held = answer_form(spec)
    if held is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": held}
    return msgspec.json.encode(body)


def answer_form(spec: AppSpec) -> dict[str, Any] | None:
    """The schema that an answer is held to, as ``/v1`` is told of it; None without one."""
    if spec.schema is None:
        return None
    return {"name": "answer", "schema": spec.schema, "strict": True}


def check_inputs(spec: AppSpec, given: Mapping[str, Any]) -> dict[str, InputValue]:
    """A caller's inputs; those that are left out have no value.

    Raises:
        Invalid: naming the input that is missing, unknown or of another type.
    """
    known = {one.name: one for one in spec.inputs}
    for name in given:
        if name not in known:
            raise Invalid(f"'{name[:80]}' is no input of this app.", param="inputs")
    found: dict[str, InputValue] = {}
    for one in spec.inputs:
        value = given.get(one.name)
        if value is None or value == "":
            if one.required:
                raise Invalid(f"The input '{one.name}' is missing.", param="inputs")
        else:
            found[one.name] = _value(one, value)
    return found


def _value(one: Input, value: Any) -> InputValue:
    if one.type == "number":
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
            return value
        raise Invalid(f"The input '{one.name}' must be a number.", param="inputs")
    if one.type == "boolean":
        if isinstance(value, bool):
            return value
        raise Invalid(f"The input '{one.name}' must be true or false.", param="inputs")
    if not isinstance(value, str) or "\0" in value:
        raise Invalid(f"The input '{one.name}' must be a text.", param="inputs")
    if one.type == "choice" and value not in one.options:
        wanted = ", ".join(one.options)[:200]
        raise Invalid(f"The input '{one.name}' must be one of {wanted}.", param="inputs")
    if len(value) > one.most_chars:
        raise Invalid(
            f"The input '{one.name}' may have {one.most_chars} characters.", param="inputs"
        )
    return value


def _wrong(field: str, what: str) -> Invalid:
    return Invalid(f"'{field}' {what}.", param=field)
