"""What a deployment's engine can't do is refused there, and asked of another where there is one."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from inference.engines.abilities import check_abilities
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
        engine=engine,
    )


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_refuse_alternatives_of_an_engine_that_tells_the_chosen_token_alone(engine: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_abilities(engine, Extras(logprobs=1))
    assert caught.value.param == "top_logprobs"
    check_abilities(engine, Extras(logprobs=0))
    check_abilities(engine, None)
    check_abilities("fake", Extras(logprobs=20))


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
