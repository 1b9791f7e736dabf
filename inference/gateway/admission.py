"""Who is let in: the pure decision behind admission.

``decide`` takes calls, the keys they came with and the quota windows as they stand, and answers
each call. It reads no clock and no database, so that it can be tested for what must hold: what
is used and held never passes a limit, and nothing changes for a call that is refused.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from inference.backlog import Backlog
from inference.fair_order import flow_weight, start_tag, virtual_cost
from inference.gateway.keys import Credential, KeyFacts, Vouched, authenticate, entitlement_refusal
from inference.gateway.parsing.reading import Reading
from inference.gateway.routing import Choice, choose, cover, fallbacks_of
from inference.gateway.wire import errors
from inference.gateway.wire.headers import Allowance
from portal.core.crypto import Peppers
from portal.core.errors import PortalError
from portal.core.ids import uuid7
from tenants.models.quotas import METRICS
from tenants.windows import window_end, window_starts


class Ask(msgspec.Struct, frozen=True):
    """What a generation needs, counted before it is admitted.

    ``patience`` is how many seconds its caller waits for it to begin, ``priority`` the class of
    ``inference.models.jobs.Priority``. Of a call that has a choice of deployments ``room`` is the
    longest answer that fits behind the prompt, and what is reserved is at least ``least_tokens``
    and ``least_cost``. ``reading`` is how the answer is read. ``max_tokens`` and ``room`` are of
    all its ``choices`` together.
    """

    model_id: UUID
    model_name: str
    deployment_id: UUID
    prompt_tokens: int
    max_tokens: int
    prompt_price: int
    completion_price: int
    patience: float = math.inf
    priority: int = 0
    room: int = 0
    currency: str = ""
    least_tokens: int = 0
    least_cost: int = 0
    reading: Reading | None = None
    choices: int = 1

    @property
    def tokens(self) -> int:
        """Tokens to reserve: the prompt and the longest possible answer."""
        return max(self.least_tokens, self.prompt_tokens + self.max_tokens)

    @property
    def cost(self) -> int:
        """Nano-units of currency to reserve, rounded up; prices are micro-units a million."""
        cost = cost_of(
            self.prompt_tokens, self.max_tokens, self.prompt_price, self.completion_price
        )
        return max(self.least_cost, cost)


def cost_of(
    prompt_tokens: int, completion_tokens: int, prompt_price: int, completion_price: int
) -> int:
    """Cost in nano-units of currency, rounded up, of tokens at micro-units a million tokens."""
    return -(-(prompt_tokens * prompt_price + completion_tokens * completion_price) // 1000)


class Call(msgspec.Struct, frozen=True):
    """One call as it reaches admission.

    A call without an ``ask`` only needs a valid key (listing the models, or looking up the one
    of ``model_name``). ``refusal`` is what its parsing found wrong: a caller with a bad key
    learns of the key first. A call with a ``choice`` gets its ask from there.
    """

    credential: Credential | Vouched | None
    ask: Ask | None = None
    refusal: PortalError | None = None
    model_name: str | None = None
    choice: Choice | None = None

    def deployments(self) -> Iterable[UUID]:
        """Every deployment that it may be given."""
        if self.choice is not None:
            return self.choice.asks
        return () if self.ask is None else (self.ask.deployment_id,)


@dataclass(slots=True)
class Window:
    """One quota's limits and counters; admitted calls of the batch are added as they pass."""

    quota_id: UUID
    tenant_id: UUID
    user_id: UUID | None
    api_key_id: UUID | None
    model_id: UUID | None
    limits: Mapping[str, int]
    starts: dict[str, datetime]
    taken: dict[str, int]
    active: int
    time_zone: str
    added_tokens: int = 0
    added_requests: int = 0
    added_cost: int = 0
    bounds: tuple[tuple[str, str, str], ...] = field(init=False)
    _ends: dict[str, datetime] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Notes the limits that are set: name, metric and span of each."""
        names = [name for name in self.limits if name != "concurrency"]
        self.bounds = tuple((name, *name.split("_")) for name in names)  # type: ignore[misc]

    @property
    def scope(self) -> str:
        """Whose quota it is, in the words of a refusal: every dimension that it has."""
        words = [
            word
            for word, dimension in (("API key", self.api_key_id), ("user", self.user_id))
            if dimension is not None
        ] or ["tenant"]
        if self.model_id is not None:
            words.append("model")
        return " and ".join(words)

    def applies(self, key: KeyFacts, model_id: UUID | None) -> bool:
        """Whether each dimension that is set equals the call's."""
        return (
            self.tenant_id == key.tenant_id
            and (self.api_key_id is None or self.api_key_id == key.id)
            and (self.user_id is None or self.user_id == key.user_id)
            and (self.model_id is None or self.model_id == model_id)
        )

    def roll(self, now: datetime) -> None:
        """Empties each window that has ended by ``now``."""
        starts = window_starts(now, self.time_zone)
        for name, start in starts.items():
            if start > self.starts[name]:
                self.starts[name] = start
                self._ends.pop(name, None)
                for metric in METRICS:
                    self.taken[f"{metric}_{name}"] = 0

    def left(self, name: str, metric: str) -> int:
        """What is left under the limit of that name, which must be one of ``bounds``."""
        return self.limits[name] - self.taken[name] - self._added(metric)

    def end(self, span: str) -> datetime:
        """When the window under way ends, in UTC."""
        end = self._ends.get(span)
        if end is None:
            end = self._ends[span] = window_end(self.starts[span], span, self.time_zone)
        return end

    def _added(self, metric: str) -> int:
        if metric == "tokens":
            return self.added_tokens
        return self.added_requests if metric == "requests" else self.added_cost

    def add(self, ask: Ask) -> None:
        self.added_tokens += ask.tokens
        self.added_requests += 1
        self.added_cost += ask.cost


Flow = tuple[UUID, UUID, int]
"""Tenant, deployment and class of priority."""


@dataclass(slots=True)
class Share:
    """A flow's virtual time: a tenant's on a deployment in one class of priority."""

    virtual_time: int
    moved: bool = False


@dataclass(slots=True)
class Ledger:
    """What a batch decides over; windows and shares carry what the admitted add to them.

    ``live`` are the deployments that have a ready worker; None while that is not known.
    """

    keys: Mapping[str, KeyFacts]
    windows: Sequence[Window]
    clocks: Mapping[UUID, int]
    shares: dict["Flow", Share]
    now: datetime
    peppers: Peppers
    backlogs: Mapping[UUID, Backlog] = field(default_factory=dict)
    live: frozenset[UUID] | None = None
    _by_tenant: dict[UUID, list[Window]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for window in self.windows:
            window.roll(self.now)
            self._by_tenant.setdefault(window.tenant_id, []).append(window)

    def windows_of(self, key: KeyFacts, model_id: UUID | None) -> list[Window]:
        return [w for w in self._by_tenant.get(key.tenant_id, ()) if w.applies(key, model_id)]


class Admitted(msgspec.Struct, frozen=True):
    """The call goes on as a job.

    Of a call that had a choice, ``ask`` is what was chosen, and ``fallbacks`` are where the job
    may go on if that fails, in order.
    """

    key: KeyFacts
    job_id: UUID
    start_tag: int
    quota_ids: tuple[UUID, ...]
    requests: Allowance | None
    tokens: Allowance | None
    ask: Ask | None = None
    fallbacks: tuple[Ask, ...] = ()


class Allowed(msgspec.Struct, frozen=True):
    """The key is good; nothing was reserved."""

    key: KeyFacts


class Refused(msgspec.Struct, frozen=True):
    """The call ends here; ``key`` is known unless the caller is a stranger."""

    error: PortalError
    key: KeyFacts | None
    requests: Allowance | None = None
    tokens: Allowance | None = None


Verdict = Admitted | Allowed | Refused


def decide(calls: Sequence[Call], ledger: Ledger) -> list[Verdict]:
    """A verdict for each call, in order; earlier calls of the batch count for later ones."""
    return [_decide_one(call, ledger) for call in calls]


def _decide_one(call: Call, ledger: Ledger) -> Verdict:
    key = authenticate(call.credential, ledger.keys, peppers=ledger.peppers, now=ledger.now)
    if key is None:
        return Refused(errors.invalid_api_key(), None)
    refusal = entitlement_refusal(key, call.credential) or call.refusal
    if refusal is not None:
        return Refused(refusal, key)
    if call.choice is not None:
        return _decide_choice(call.choice, key, ledger)
    ask = call.ask
    name = call.model_name if ask is None else ask.model_name
    if name is not None and key.allowed_models is not None and name not in key.allowed_models:
        return Refused(errors.model_not_found(name), key)
    if ask is None:
        return Allowed(key)
    if ask.deployment_id not in ledger.clocks:
        return Refused(errors.not_served(ask.model_name), key)
    return _decide_ask(ask, key, ledger.windows_of(key, ask.model_id), ask.model_name, ledger)


def _decide_ask(
    ask: Ask, key: KeyFacts, windows: Sequence[Window], name: str, ledger: Ledger
) -> Admitted | Refused:
    """The verdict on a call whose deployment is known; ``name`` is what its caller asked for."""
    full = _first_full(windows, ask, ledger.now)
    if full is not None:
        return Refused(full, key, *_allowances(windows, ledger.now))
    late = _too_late(key, ask, name, ledger)
    if late is not None:
        return Refused(late, key, *_allowances(windows, ledger.now))
    return _admit(key, ask, windows, ledger)


def _decide_choice(choice: Choice, key: KeyFacts, ledger: Ledger) -> Verdict:
    """The verdict on a call that has a choice of deployments."""
    chosen = choose(choice, key, ledger)
    if chosen is None:
        return Allowed(key)
    if isinstance(chosen, PortalError):
        return Refused(chosen, key)
    ask, others = chosen
    windows = ledger.windows_of(key, ask.model_id)
    fallbacks = fallbacks_of(ask, others, key, windows, ledger)
    covering = cover(ask, fallbacks)
    if fallbacks and _first_full(windows, covering, ledger.now) is not None:
        # What fits under the limits by itself is not refused for what it could fall back on.
        covering, fallbacks = ask, ()
    verdict = _decide_ask(covering, key, windows, choice.meaning.name, ledger)
    if isinstance(verdict, Admitted):
        return replace(verdict, ask=covering, fallbacks=fallbacks)
    return verdict


def _first_full(windows: Sequence[Window], ask: Ask, now: datetime) -> PortalError | None:
    """The refusal of the first limit that the call does not fit under."""
    needs = {"tokens": ask.tokens, "requests": 1, "cost": ask.cost}
    for window in windows:
        concurrency = window.limits.get("concurrency")
        if concurrency is not None and window.active + window.added_requests >= concurrency:
            return errors.too_many_at_once(scope=window.scope, maximum=concurrency)
        for name, metric, span in window.bounds:
            if needs[metric] > window.left(name, metric):
                return _over(window, metric, span, now)
    return None


def _over(window: Window, metric: str, span: str, now: datetime) -> PortalError:
    limit = window.limits[f"{metric}_{span}"]
    if span == "total":
        return errors.insufficient_quota(
            unit=metric, scope=window.scope, maximum=limit, window=span
        )
    end = window.end(span)
    refusal = errors.rate_limited if span == "minute" else errors.insufficient_quota
    return refusal(
        unit=metric,
        scope=window.scope,
        maximum=limit,
        window=span,
        # The tenant's own time: days and months are counted by it.
        resets_at=end.astimezone(ZoneInfo(window.time_zone)),
        retry_after=(end - now).total_seconds(),
    )


def _too_late(key: KeyFacts, ask: Ask, name: str, ledger: Ledger) -> PortalError | None:
    """The refusal of a call that would not begin within its caller's patience."""
    backlog = ledger.backlogs.get(ask.deployment_id)
    if backlog is None:
        return None
    start, clock = _stands_at(key, ask, ledger), ledger.clocks[ask.deployment_id]
    weight = flow_weight(key.weight, ask.priority)
    own = None if backlog.anonymous else (key.tenant_id, ask.priority, weight)
    wait = backlog.wait_seconds(start, clock=clock, own=own)
    if wait is None or wait <= ask.patience:
        return None
    return errors.queue_too_long(name, wait=wait, patience=ask.patience)


def _stands_at(key: KeyFacts, ask: Ask, ledger: Ledger) -> int:
    # Start-time fair queueing: a flow that was idle starts at the clock, not in the past.
    share = ledger.shares.get((key.tenant_id, ask.deployment_id, ask.priority))
    clock = ledger.clocks[ask.deployment_id]
    return clock if share is None else max(clock, share.virtual_time)


def _admit(key: KeyFacts, ask: Ask, windows: Sequence[Window], ledger: Ledger) -> Admitted:
    for window in windows:
        window.add(ask)
    at = _stands_at(key, ask, ledger)
    share = ledger.shares.setdefault((key.tenant_id, ask.deployment_id, ask.priority), Share(0))
    share.virtual_time = at + virtual_cost(ask.tokens, key.weight, ask.priority)
    share.moved = True
    return Admitted(
        key,
        uuid7(),
        start_tag(at, ask.priority),
        tuple(w.quota_id for w in windows),
        *_allowances(windows, ledger.now),
    )


def _allowances(
    windows: Sequence[Window], now: datetime
) -> tuple[Allowance | None, Allowance | None]:
    """What is left of requests and of tokens under whichever limit is nearest."""
    return _nearest(windows, "requests", now), _nearest(windows, "tokens", now)


def _nearest(windows: Sequence[Window], metric: str, now: datetime) -> Allowance | None:
    nearest: tuple[int, int, Window, str] | None = None
    for window in windows:
        for name, of, span in window.bounds:
            if of == metric:
                left = window.left(name, of)
                if nearest is None or left < nearest[0]:
                    nearest = left, window.limits[name], window, span
    if nearest is None:
        return None
    left, limit, window, span = nearest
    reset = (window.end(span) - now).total_seconds() if span in _SPANS else 0.0
    return Allowance(limit, max(0, left), reset)


_SPANS: Final = ("minute", "day", "month")
