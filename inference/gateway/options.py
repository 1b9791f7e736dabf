"""A call that has a choice of deployments, prepared for each of them."""

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import UUID

from msgspec.structs import replace

from inference.engines.abilities import refusal_of
from inference.gateway.admission import Ask
from inference.gateway.calls import Generation
from inference.gateway.catalogue import Routed, Served
from inference.gateway.routing import Choice
from portal.core.errors import PortalError

Prepared = tuple[Generation, Ask]
"""What a call would run on a deployment, and what it needs."""


async def prepare_options(
    routed: Routed, prepare: Callable[[Served], Awaitable[Prepared]]
) -> tuple[Choice, dict[UUID, Generation]]:
    """The choice for admission, and what the call would run wherever it can be served.

    Args:
        prepare: raises what is wrong with the call on that deployment.
    """
    found: list[Prepared | PortalError] = []
    groups = alike(routed)
    for group in groups:
        try:
            found.append(await prepare(group[0]))
        except PortalError as refusal:
            found.append(refusal)
    return choice_of(routed, zip(groups, found, strict=True))


def alike(routed: Routed) -> list[list[Served]]:
    """The deployments, together with those on which a prompt comes out the same.

    So a prompt is encoded once for each artefact.
    """
    groups: list[list[Served]] = []
    for served in routed.served.values():
        group = next((g for g in groups if _alike(g[0], served)), None)
        if group is None:
            groups.append([served])
        else:
            group.append(served)
    return groups


def choice_of(
    routed: Routed, prepared: Iterable[tuple[Sequence[Served], Prepared | PortalError]]
) -> tuple[Choice, dict[UUID, Generation]]:
    """The choice, of what was prepared for the first of each group or is wrong with it there."""
    options: dict[UUID, Generation] = {}
    asks: dict[UUID, Ask | PortalError] = {}
    for group, found in prepared:
        for served in group:
            if isinstance(found, PortalError):
                asks[served.deployment_id] = found
                continue
            generation, ask = found
            refusal = _unable(generation, served)
            if refusal is not None:
                asks[served.deployment_id] = refusal
                continue
            options[served.deployment_id] = replace(generation, served=served)
            asks[served.deployment_id] = _ask_of(ask, served)
    # Where nobody has more than one target, nothing is drawn.
    draw = random.random() if routed.meaning.needs_draw else 0.0  # noqa: S311
    return Choice(routed.meaning, draw, asks), options


def _unable(generation: Generation, served: Served) -> PortalError | None:
    """What one of a group can't do, whose engines need not be alike."""
    extras = generation.prompt.extras
    return None if extras is None else refusal_of(served.engines, extras)


def _alike(one: Served, other: Served) -> bool:
    """Whether a prompt comes out the same on both."""
    return (
        one.encoder is other.encoder
        and one.context_length == other.context_length
        and one.default_max_tokens == other.default_max_tokens
    )


def _ask_of(ask: Ask, served: Served) -> Ask:
    return replace(
        ask,
        model_id=served.model_id,
        model_name=served.model_name,
        deployment_id=served.deployment_id,
        prompt_price=served.prompt_price,
        completion_price=served.completion_price,
        # Inputs that are embedded may have more tokens together than the context of each.
        room=max(0, served.context_length - ask.prompt_tokens) * ask.choices,
        currency=served.currency,
    )
