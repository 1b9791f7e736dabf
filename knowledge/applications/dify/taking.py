"""Takes over what somebody changed of an app in Dify, as far as the portal has words for it."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from knowledge.applications.dify import desired
from knowledge.applications.dify.dsl import JOINT, digest_of
from knowledge.applications.selectors import get_app
from knowledge.applications.services import add_version, publish_app
from knowledge.applications.spec import AppSpec, Sampling
from knowledge.applications.template import CONTEXT, places_of
from knowledge.models import RemoteObject
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid
from tenants.models import Tenant

_PLACE: Final = re.compile(r"\{\{#(?:context|sys\.query|start\.(\w+))#\}\}")
_OURS: Final = {"{{#context#}}": "{{context}}", "{{#sys.query#}}": "{{query}}"}


class NotOurs(Conflict):
    """Dify can do more than the portal has words for."""

    code = "app_changed_beyond"

    def __init__(self) -> None:
        super().__init__(
            "In Dify the app was changed in ways that the portal has no words for: keep the "
            "portal's version, or make the change to the app here."
        )


def take_definition(
    context: Context, link: RemoteObject, graph: Mapping[str, Any]
) -> dict[str, Any]:
    """Adds Dify's version of an app as a version of its own and publishes it.

    Prompts and sampling are taken over. Whatever else was changed is refused: the version is
    rendered again, and has to be what stands in Dify.

    Returns:
        The values of the want that the app has by this.

    Raises:
        Conflict: more was changed than the portal has words for.
    """
    assert link.local_id is not None, "apps that are not ours are left alone"
    slug = Tenant.objects.values_list("slug", flat=True).get(pk=link.tenant_id)
    before = desired.one_of(link.connection, slug, link.local_id)
    if before.spec is None:
        raise NotOurs
    try:
        version = add_version(
            context=context,
            app_id=link.local_id,
            spec=_changed(before.spec, graph),
            note="Taken over from Dify",
        )
        publish_app(context=context, app_id=link.local_id, number=version.number)
        rendered = desired.one_of(link.connection, slug, link.local_id).rendered()
    except Invalid:
        raise NotOurs from None
    if rendered is None or rendered.digest != _digest(graph, rendered.document):
        raise NotOurs
    live = get_app(link.local_id).published
    return {"definition": rendered.digest, "live": {"version": live, "digest": rendered.digest}}


def _digest(graph: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    return digest_of(graph, document["workflow"]["features"])


def _changed(spec: AppSpec, graph: Mapping[str, Any]) -> AppSpec:
    """The specification with the prompts and the sampling of a graph.

    Raises:
        NotOurs: there is no such node, or it is of another kind.
    """
    nodes = {node["id"]: node["data"] for node in graph["nodes"]}
    try:
        node = nodes["llm"]
        said = {part["role"]: _template(part["text"]) for part in node["prompt_template"]}
        instructions, prompt = said.get("system", ""), said.get("user", "")
        memory = node.get("memory")
        if memory and CONTEXT in places_of(spec.prompt):
            instructions, prompt = _parted(spec, instructions)
        elif memory:
            prompt = _template(memory["query_prompt_template"])
        return msgspec.structs.replace(
            spec,
            prompt=prompt,
            instructions=instructions,
            sampling=msgspec.convert(node["model"]["completion_params"], Sampling),
        )
    except (KeyError, TypeError, msgspec.ValidationError):
        raise NotOurs from None


def _parted(spec: AppSpec, text: str) -> tuple[str, str]:
    """Instructions and prompt of a message that is both; all of it is prompt if they changed."""
    begin = f"{spec.instructions}{JOINT}"
    if spec.instructions and text.startswith(begin):
        return spec.instructions, text.removeprefix(begin)
    return "", text


def _template(text: str) -> str:
    return _PLACE.sub(lambda m: _OURS.get(m[0]) or "{{" + str(m[1]) + "}}", text)
