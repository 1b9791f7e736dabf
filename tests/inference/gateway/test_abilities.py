"""What a deployment's engine can't do is refused there, and asked of another where there is one."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from inference.engines.abilities import check_abilities, engines_of
from inference.engines.base import Calls, Structure
from inference.engines.choice import choose_engine
from inference.gateway.admission import Ask
from inference.gateway.calls import Generation
from inference.gateway.catalogue import Routed, Served
from inference.gateway.options import prepare_options
from inference.gateway.routing import Meaning, Target
from inference.payloads import Extras, Prompt
from portal.core.errors import Invalid

ENCODER: Any = object()


def served(engine: str) -> Served:
    return Served(
        model_id=uuid4(),
        model_name="m",
        created=0,
        deployment_id=uuid4(),
        queue="q",
        context_length=100,
        default_max_tokens=10,
        sku="m@1",
        prompt_price=1,
        completion_price=1,
        currency="USD",
        encoder=ENCODER,
        max_chars=1000,
        engines=engines_of(engine, "gguf"),
    )


@pytest.mark.parametrize(
    ("engine", "model_format"),
    [("openvino", "gguf"), ("auto", "gguf"), ("auto", "openvino"), ("auto", "")],
)
def test_refuse_alternatives_of_an_engine_that_tells_the_chosen_token_alone(
    engine: str, model_format: str
) -> None:
    engines = engines_of(engine, model_format)
    with pytest.raises(Invalid) as caught:
        check_abilities(engines, Extras(logprobs=1))
    assert caught.value.param == "top_logprobs"
    check_abilities(engines, Extras(logprobs=0))
    check_abilities(engines, None)


@pytest.mark.parametrize(("engine", "model_format"), [("fake", "gguf"), ("auto", "safetensors")])
def test_allow_alternatives_where_every_engine_that_may_serve_tells_them(
    engine: str, model_format: str
) -> None:
    check_abilities(engines_of(engine, model_format), Extras(logprobs=20))


@pytest.mark.parametrize("machine", ["cpu", "cuda", "rocm"])
@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("model_format", ["gguf", "openvino", "safetensors"])
def test_engines_of_auto_hold_what_any_machine_takes(
    model_format: str, machine: Any, *, installed: bool
) -> None:
    taken = choose_engine(model_format, machine, vllm_installed=installed)
    assert taken in engines_of("auto", model_format)
    assert taken in engines_of("auto", "")


@pytest.mark.parametrize("engine", ["tgi", "triton"])
def test_refuse_calls_that_an_engine_cannot_be_held_to_names_what_asks_for_them(
    engine: str,
) -> None:
    for forced, param in ((True, "tool_choice"), (False, "tools")):
        structure = Structure("calls", calls=Calls((), forced=forced))
        with pytest.raises(Invalid) as caught:
            check_abilities(engines_of(engine, ""), Extras(structure=structure))
        assert (caught.value.error_code, caught.value.param) == ("unsupported_parameter", param)


def test_route_offers_the_targets_whose_engine_is_able_and_room_for_all_choices() -> None:
    able, unable = served("fake"), served("openvino")
    by_id = {unable.deployment_id: unable, able.deployment_id: able}
    meaning = Meaning("m", tuple(Target(d, "m") for d in by_id), {})

    async def prepare(one: Served) -> tuple[Generation, Ask]:
        prompt = Prompt((1, 2), (), extras=Extras(logprobs=3, n=4))
        ask = Ask(one.model_id, "m", one.deployment_id, 20, 4 * 10, 1, 1, choices=4)
        return Generation(one, prompt, 10, False, {}), ask

    choice, options = asyncio.run(prepare_options(Routed(meaning, 0, by_id), prepare))
    assert set(options) == {able.deployment_id}
    assert isinstance(choice.asks[unable.deployment_id], Invalid)
    ask = choice.asks[able.deployment_id]
    assert isinstance(ask, Ask)
    assert (ask.room, ask.tokens) == (4 * 80, 20 + 4 * 10)
