"""What a name leads to: the pure part of routes.

The catalogue makes a ``Meaning`` of each name that leads to more than one deployment, or to
different ones for different tenants. Admission, which alone knows the tenant, picks from it. The
random number comes in with the call, so that the same draw picks the same target.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from inference.gateway.wire import errors
from portal.core.errors import PortalError

if TYPE_CHECKING:
    from inference.gateway.admission import Ask, Ledger, Window
    from inference.gateway.keys import KeyFacts

MOST_FALLBACKS: Final = 3
"""Targets that a job may still move to: each may keep the prompt once more, in its own tokens."""


class Target(msgspec.Struct, frozen=True):
    """An enabled deployment that a name leads to.

    Attributes:
        model_name: the model that it serves, by which allow-lists name it.
        weight: its share of the calls of its tier, relative to the others there.
        tier: 0 is tried first.
    """

    deployment_id: UUID
    model_name: str
    weight: int = 1
    tier: int = 0


class Meaning(msgspec.Struct, frozen=True):
    """What a name leads to: for everyone, and for the tenants that have it otherwise.

    ``default`` is empty where the name exists for those tenants alone.
    """

    name: str
    default: tuple[Target, ...]
    overrides: Mapping[UUID, tuple[Target, ...]]

    def of(self, tenant_id: UUID) -> tuple[Target, ...]:
        """The targets of a tenant; none if the name means nothing there."""
        return self.overrides.get(tenant_id, self.default)

    @property
    def needs_draw(self) -> bool:
        """Whether anybody's call of it has more than one target."""
        return len(self.default) > 1 or any(len(t) > 1 for t in self.overrides.values())

    def deployments(self) -> set[UUID]:
        """Every deployment that it leads anybody to."""
        lists = (self.default, *self.overrides.values())
        return {target.deployment_id for targets in lists for target in targets}


@dataclass(frozen=True, slots=True)
class Choice:
    """A call that is still to be given a target.

    Attributes:
        draw: uniform in [0, 1).
        asks: what the call needs on each deployment, or why it can't be served there; empty for
            a call that only looks the name up.
    """

    meaning: Meaning
    draw: float
    asks: "Mapping[UUID, Ask | PortalError]"


def choose(
    choice: Choice, key: "KeyFacts", ledger: "Ledger"
) -> "tuple[Ask, list[Ask]] | PortalError | None":
    """What a call needs where it is served, and where else it could be, in order.

    Allow-lists name the models that serve, so a name is no way round them. Targets that are
    disabled, or whose context is too short, are passed over; those without a live worker are
    while another has one.

    Returns:
        A refusal where there is nothing to choose; None for a call that only looks the name up.
    """
    name = choice.meaning.name
    targets = reach(choice.meaning, key.tenant_id, key.allowed_models)
    if not targets:
        return errors.model_not_found(name)
    if not choice.asks:
        return None
    fits: dict[UUID, Ask] = {}
    refusal: PortalError | None = None
    for target in targets:
        ask = choice.asks[target.deployment_id]
        if isinstance(ask, PortalError):
            refusal = refusal or ask
        elif target.deployment_id in ledger.clocks:
            fits[target.deployment_id] = ask
    usable = [t for t in targets if t.deployment_id in fits]
    if not usable:
        return refusal or errors.not_served(name)
    order = in_order(usable, choice.draw)
    live = (t for t in order if ledger.live is None or t.deployment_id in ledger.live)
    first = next(live, order[0])
    # One that is not live now stays a fallback: it is looked at again when one is needed.
    return fits[first.deployment_id], [fits[t.deployment_id] for t in order if t is not first]


def reach(meaning: Meaning, tenant_id: UUID, allowed_models: frozenset[str] | None) -> list[Target]:
    """The targets of a tenant whose models a key may use; it may use all if that is None."""
    targets = meaning.of(tenant_id)
    if allowed_models is None:
        return list(targets)
    return [target for target in targets if target.model_name in allowed_models]


def fallbacks_of(
    ask: "Ask",
    others: "Sequence[Ask]",
    key: "KeyFacts",
    windows: "Sequence[Window]",
    ledger: "Ledger",
) -> "tuple[Ask, ...]":
    """Where a job that is admitted for ``ask`` may go on, in order.

    Its reservation goes with it: so only to where the answer fits, costs the same currency, is
    counted by the same quotas and read in the same way. Thus the quota of another model is never
    passed by.
    """
    counted = [w.quota_id for w in windows]
    found = [
        replace(other, max_tokens=ask.max_tokens)
        for other in others
        if other.room >= ask.max_tokens
        and other.currency == ask.currency
        and other.reading == ask.reading
        and counted == [w.quota_id for w in ledger.windows_of(key, other.model_id)]
    ]
    return tuple(found[:MOST_FALLBACKS])


def cover(ask: "Ask", fallbacks: "Sequence[Ask]") -> "Ask":
    """The ask with a reservation that is enough wherever the job ends up."""
    tokens = max((f.tokens for f in fallbacks), default=0)
    cost = max((f.cost for f in fallbacks), default=0)
    return replace(ask, least_tokens=tokens, least_cost=cost)


def in_order(targets: Iterable[Target], draw: float) -> list[Target]:
    """The targets in the order in which they are tried.

    Tier by tier, and within a tier drawn by weight without putting back: the first of a tier is
    each target with the probability of its weight over the sum.

    Args:
        draw: uniform in [0, 1). Where in the drawn target's stretch it fell is itself uniform and
            independent of which one that was, so it serves as the next draw.
    """
    tiers: dict[int, list[Target]] = {}
    for target in targets:
        tiers.setdefault(target.tier, []).append(target)
    found: list[Target] = []
    for tier in sorted(tiers):
        left = tiers[tier]
        while len(left) > 1:
            index, draw = _drawn([t.weight for t in left], draw)
            found.append(left.pop(index))
        found += left
    return found


def _drawn(weights: Sequence[int], draw: float) -> tuple[int, float]:
    """Which of the weights the draw falls on, and how far into it, in [0, 1)."""
    point = draw * sum(weights)
    for index, weight in enumerate(weights):
        if point < weight:
            return index, point / weight
        point -= weight
    # Rounding alone comes here.
    return len(weights) - 1, 0.0
