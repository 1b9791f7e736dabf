"""Renders a version of an app to Dify's DSL, the YAML in which Dify imports and exports apps.

A conversation becomes a chatflow and a run a workflow: their drafts are overwritten in place and
published, and their prompts are kept word for word, which Dify's simple chat apps do not do.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from knowledge.applications.dify.graph import CHAT_ANSWER, Node, graph_of
from knowledge.applications.spec import AppSpec, Input, answer_form
from knowledge.applications.template import CONTEXT, QUERY, fill, places_of
from knowledge.dify.console_api import GATEWAY_PROVIDER
from knowledge.models import AppMode
from knowledge.retrieval import MOST_QUERY_CHARS
from portal.core.errors import Invalid

DSL_VERSIONS: Final[Mapping[tuple[int, int], str]] = {(1, 16): "0.7.0"}
"""The version of the DSL that each version of Dify writes, as it was seen on a running one."""
JOINT: Final = "\n\n"
"""Between instructions and a prompt where both are one message."""
OUTPUT: Final = "answer"
"""The name of a workflow's output."""
SEARCH: Final = "portal_search"
"""The input of a run in which the portal hands in what its knowledge bases are asked."""
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.\d+")
_DIFYS_OWN: Final = re.compile(r"\{\{\s*#")
_SWITCH: Final = ("true", "false")


class Unrenderable(Invalid):
    """Dify has no words for something that the version asks for."""

    code = "app_not_for_dify"


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What a version's knowledge bases are in a workspace.

    Attributes:
        dataset_ids: in Dify, in the order of the version.
        top_k: passages in all.
        score_threshold: None for none, as where words are searched, whose score is 0 always.
    """

    dataset_ids: Sequence[str]
    top_k: int
    score_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """An app in Dify's words."""

    document: Mapping[str, Any]

    @property
    def yaml(self) -> str:
        return yaml.safe_dump(self.document, allow_unicode=True, sort_keys=False)

    @property
    def digest(self) -> str:
        """Of what it does, without its name; the app's draft in Dify has the same."""
        workflow = self.document["workflow"]
        return digest_of(workflow["graph"], workflow["features"])


def dsl_version(dify_version: str) -> str:
    """The version of the DSL that a version of Dify takes without a question.

    Raises:
        Unrenderable: this version of Dify was never seen.
    """
    match = _VERSION.match(dify_version)
    found = match and DSL_VERSIONS.get((int(match[1]), int(match[2])))
    if not found:
        known = ", ".join(f"{major}.{minor}" for major, minor in DSL_VERSIONS)
        raise Unrenderable(
            f"The portal writes apps for Dify {known}; this one is {dify_version or 'unknown'}: "
            "let the app run in the portal, or use a Dify of such a version."
        )
    return found


def render(
    spec: AppSpec,
    mode: AppMode,
    *,
    name: str,
    description: str,
    model: str,
    dify_version: str,
    retrieval: Retrieval | None,
) -> Rendered:
    """A version of an app as Dify imports it.

    Args:
        name, model: what the app and its model are called in the workspace.
        retrieval: None for a version without knowledge bases.

    Raises:
        Unrenderable: saying what Dify has no words for.
    """
    version = dsl_version(dify_version)
    check_renderable(spec, mode)
    chat = mode == AppMode.CHAT
    nodes = [Node("start", "start", "Start", _start(spec, mode))]
    if retrieval is not None:
        search = _search(_asked_place(spec, mode), retrieval)
        nodes.append(Node("kr", "knowledge-retrieval", "Knowledge", search))
    nodes.append(Node("llm", "llm", "LLM", _llm(spec, model, chat, retrieval is not None)))
    if chat:
        nodes.append(Node("answer", "answer", "Answer", CHAT_ANSWER))
    else:
        nodes.append(Node("end", "end", "End", _end()))
    return Rendered(
        {
            "version": version,
            "kind": "app",
            "app": {
                "name": name,
                "mode": "advanced-chat" if chat else "workflow",
                "icon": "🤖",
                "icon_type": "emoji",
                "icon_background": "#FFEAD5",
                "description": description,
                "use_icon_as_answer_icon": False,
            },
            "dependencies": [],
            "workflow": {
                "conversation_variables": [],
                "environment_variables": [],
                "features": _features(spec.opening if chat else ""),
                "graph": graph_of(nodes),
            },
        }
    )


def check_renderable(spec: AppSpec, mode: AppMode) -> None:
    """Refuses what Dify has no words for, whichever the workspace.

    Raises:
        Unrenderable: saying what, and what to do.
    """
    if mode == AppMode.CHAT and spec.knowledge and _search_place(spec) is None:
        raise Unrenderable(
            "In Dify the knowledge bases of a conversation are asked one value, such as {{query}}: "
            "let 'search' be one place and nothing else.",
            param="search",
        )
    if any(one.name == SEARCH for one in spec.inputs):
        raise Unrenderable(
            f"In Dify '{SEARCH}' is an input of the portal's own: name yours otherwise.",
            param="inputs",
        )
    for field in ("prompt", "instructions", "opening"):
        if _DIFYS_OWN.search(getattr(spec, field)):
            raise Unrenderable(
                f"'{field}' holds '{{{{#', which Dify reads as its own.", param=field
            )
    if any(one.method is not None for one in spec.knowledge):
        raise Unrenderable(
            "In Dify a knowledge base is searched as it is set up there: leave 'method' out, and "
            "set it at the knowledge base.",
            param="knowledge",
        )


def digest_of(graph: Mapping[str, Any], features: Mapping[str, Any]) -> str:
    """Of what a graph does, wherever its nodes are drawn."""
    nodes = {
        node["id"]: {k: v for k, v in node["data"].items() if k not in _DRAWN}
        for node in graph["nodes"]
    }
    edges = sorted([e["source"], str(e.get("sourceHandle")), e["target"]] for e in graph["edges"])
    told = json.dumps([nodes, edges, features], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()


_DRAWN: Final = frozenset({"selected", "desc", "title"})


# -- nodes -------------------------------------------------------------------------------------


def _start(spec: AppSpec, mode: AppMode) -> dict[str, Any]:
    inputs = list(spec.inputs)
    if fills_search(spec, mode):
        inputs.append(Input(SEARCH, label="What knowledge is asked", most_chars=MOST_QUERY_CHARS))
    return {"variables": [_variable(one) for one in inputs]}


def _variable(one: Input) -> dict[str, Any]:
    kinds = {"text": "paragraph", "number": "number", "boolean": "select", "choice": "select"}
    made: dict[str, Any] = {
        "variable": one.name,
        "label": one.label or one.name,
        "type": kinds[one.type],
        "required": one.required,
        "max_length": one.most_chars if one.type == "text" else 48,
        "options": list(_SWITCH if one.type == "boolean" else one.options),
    }
    return made


def _search(place: str, retrieval: Retrieval) -> dict[str, Any]:
    config: dict[str, Any] = {
        "top_k": retrieval.top_k,
        "reranking_enable": False,
        # With 'weighted_score' Dify asks for weights, and fails each run without them.
        "reranking_mode": "reranking_model",
    }
    if retrieval.score_threshold is not None:
        config["score_threshold"] = retrieval.score_threshold
    return {
        "query_variable_selector": _selector(place),
        "dataset_ids": list(retrieval.dataset_ids),
        "retrieval_mode": "multiple",
        "multiple_retrieval_config": config,
    }


def _llm(spec: AppSpec, model: str, chat: bool, knows: bool) -> dict[str, Any]:
    messages, last = prompts_of(spec, chat)
    node: dict[str, Any] = {
        "model": {
            "provider": GATEWAY_PROVIDER,
            "name": model,
            "mode": "chat",
            "completion_params": {**_sampling(spec), **_form(spec)},
        },
        "prompt_template": [{"role": role, "text": _filled(text)} for role, text in messages],
        "context": {
            "enabled": knows,
            "variable_selector": ["kr", "result"] if knows else [],
        },
        "vision": {"enabled": False},
    }
    if last is not None:
        node["memory"] = {
            "query_prompt_template": _filled(last),
            "role_prefix": {"assistant": "", "user": ""},
            "window": {"enabled": True, "size": spec.history},
        }
    return node


def prompts_of(spec: AppSpec, chat: bool) -> tuple[list[tuple[str, str]], str | None]:
    """The templates of what the model is asked: role and text of each message, and the last one.

    With earlier turns Dify puts these between the messages and the last one, None without, and puts
    no passages into the last one. So a prompt with passages goes before the turns, as the end of
    the system message, and the question alone behind them.
    """
    if not (chat and spec.history):
        system = [("system", spec.instructions)] if spec.instructions else []
        return [*system, ("user", spec.prompt)], None
    if CONTEXT in places_of(spec.prompt):
        parts = [part for part in (spec.instructions, spec.prompt) if part]
        return [("system", JOINT.join(parts))], "{{query}}"
    return [("system", spec.instructions)], spec.prompt


def _sampling(spec: AppSpec) -> dict[str, Any]:
    chosen = spec.sampling
    found = {
        "temperature": chosen.temperature,
        "top_p": chosen.top_p,
        "max_tokens": chosen.max_tokens,
        "seed": chosen.seed,
        "stop": list(chosen.stop) or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _form(spec: AppSpec) -> dict[str, str]:
    """How the plugin of OpenAI-compatible models is told of the schema that an answer keeps to."""
    held = answer_form(spec)
    if held is None:
        return {}
    return {
        "response_format": "json_schema",
        "json_schema": json.dumps(held, ensure_ascii=False, separators=(",", ":")),
    }


def _end() -> dict[str, Any]:
    output = {"variable": OUTPUT, "value_selector": ["llm", "text"], "value_type": "string"}
    return {"outputs": [output]}


def _features(opening: str) -> dict[str, Any]:
    return {
        "file_upload": {"enabled": False},
        "opening_statement": opening,
        "retriever_resource": {"enabled": True},
        "sensitive_word_avoidance": {"enabled": False},
        "speech_to_text": {"enabled": False},
        "suggested_questions": [],
        "suggested_questions_after_answer": {"enabled": False},
        # Dify adds the last two by itself.
        "text_to_speech": {"enabled": False, "language": "", "voice": ""},
    }


# -- places ------------------------------------------------------------------------------------


def fills_search(spec: AppSpec, mode: AppMode) -> bool:
    """Whether the portal hands in what a run's knowledge bases are asked, as ``SEARCH``.

    Dify asks them the value of one variable, and fails where it is empty.
    """
    if mode == AppMode.CHAT or not spec.knowledge:
        return False
    place = _search_place(spec)
    return not any(one.name == place and one.required for one in spec.inputs)


def _asked_place(spec: AppSpec, mode: AppMode) -> str:
    """The variable that knowledge bases are asked."""
    return SEARCH if fills_search(spec, mode) else _search_place(spec) or QUERY


def _search_place(spec: AppSpec) -> str | None:
    """The one place that the search is, None if it is more or less than one."""
    places = places_of(spec.search)
    place = next(iter(places), "")
    alone = len(places) == 1 and not fill(spec.search.strip(), {place: ""})
    return place if alone else None


def _selector(place: str) -> list[str]:
    return ["sys", "query"] if place == QUERY else ["start", place]


def _filled(template: str) -> str:
    """A template with its places as Dify writes them."""
    return fill(template, {place: _place(place) for place in places_of(template)})


def _place(place: str) -> str:
    words = [CONTEXT] if place == CONTEXT else _selector(place)
    return "{{#" + ".".join(words) + "#}}"
