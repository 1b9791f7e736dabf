"""A call that has a choice of deployments, prepared for each of them."""

import random
from collections.abc import Awaitable, Callable
from uuid import UUID

from msgspec.structs import replace

from inference.gateway.admission import Ask
from inference.gateway.calls import Generation
from inference.gateway.catalogue import Routed, Served
from inference.gateway.routing import Choice
from portal.core.errors import PortalError

Prepare = Callable[[Served], Awaitable[tuple[Generation, Ask]]]
"""What a call would run on a deployment, and what it needs; raises what is wrong with it there."""


async def prepare_options(
    routed: Routed, prepare: Prepare
) -> tuple[Choice, dict[UUID, Generation]]:
    """The choice for admission, and what the call would run wherever it can be served.

    A prompt is encoded once for each artefact among the targets.
    """
    options: dict[UUID, Generation] = {}
    asks: dict[UUID, Ask | PortalError] = {}
    for deployment_id, served in routed.served.items():
        twin = next((g for g in options.values() if _alike(g.served, served)), None)
        try:
            if twin is None:
                generation, ask = await prepare(served)
            else:
                generation = replace(twin, served=served)
                ask = _ask_of_twin(asks[twin.served.deployment_id], served)
        except PortalError as refusal:
            asks[deployment_id] = refusal
            continue
        options[deployment_id] = generation
        room = served.context_length - ask.prompt_tokens
        asks[deployment_id] = replace(ask, room=room, currency=served.currency)
    # Where nobody has more than one target, nothing is drawn.
    draw = random.random() if routed.meaning.needs_draw else 0.0  # noqa: S311
    return Choice(routed.meaning, draw, asks), options


def _alike(one: Served, other: Served) -> bool:
    """Whether a prompt comes out the same on both."""
    return (
        one.encoder is other.encoder
        and one.context_length == other.context_length
        and one.default_max_tokens == other.default_max_tokens
    )


def _ask_of_twin(twin: Ask | PortalError, served: Served) -> Ask:
    assert isinstance(twin, Ask), "a twin has options"
    return replace(
        twin,
        model_id=served.model_id,
        model_name=served.model_name,
        deployment_id=served.deployment_id,
        prompt_price=served.prompt_price,
        completion_price=served.completion_price,
    )
