"""Submitting jobs on the control plane: admitted by the gateway's own rules, in one transaction.

How a caller uses it::

    context = key_context(tenant_id=..., api_key_id=..., user_id=..., label=..., ...)
    for outcome in submit(context=context, requests=[JobRequest(body=...), ...]):
        outcome.job_id, outcome.error

The API hands in the context of an API key that it has authenticated. Who admits later, on behalf
of a key whose secret is not at hand, makes one with ``key_context``: whether the key may still be
used is decided anew, as for every call.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import httpx
import structlog
from django.db import transaction
from msgspec.structs import replace

from inference import dispatch
from inference.engines.abilities import check_abilities
from inference.gateway.admission import Admitted, Ask, Call, Ledger, Refused, decide
from inference.gateway.calls import JOB, Generation, Origin, Pending
from inference.gateway.catalogue import Named, Routed, Served
from inference.gateway.inputs import prepared_inputs
from inference.gateway.keys import KeyFacts, Vouched
from inference.gateway.options import Prepared, alike, choice_of
from inference.gateway.requests import encoded, prepared
from inference.gateway.routing import Choice
from inference.gateway.rows import Row, admitted_row, refused_row
from inference.gateway.structures import with_checked_schema
from inference.gateway.wire import errors
from inference.gateway.wire.common import ParsedRequest
from inference.gateway.wire.kept import CHAT_ENDPOINT, numbers_of, parse_kept
from inference.jobs import store
from inference.jobs.catalogue import named_models
from inference.jobs.ciphers import payload_cipher
from inference.jobs.repeats import fingerprint_text, other_body
from inference.models import Priority
from inference.webhooks.services import NoSigningSecret, has_signing_secret, register_callbacks
from inference.webhooks.targets import clean_url, targets
from portal.core.actors import Actor, ActorType, Context
from portal.core.broker import Doorbell
from portal.core.crypto import Cipher, InvalidCiphertext
from portal.core.env import env
from portal.core.errors import Forbidden, PortalError
from portal.core.outgoing import origin_of
from portal.core.redaction import mask
from portal.core.resp import RespClient
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey
from tenants.permissions import Action, Scope, require
from tenants.services.keys import peppers

log = structlog.get_logger(__name__)

DAY_SECONDS: Final = 24 * 60 * 60
MOST_SECONDS: Final = 7 * DAY_SECONDS
"""The longest that a job may wait, and that its result may be kept."""

MOST_METADATA: Final = 16
MOST_KEY_CHARS: Final = 255
_KEY_KEPT: Final = timedelta(seconds=DAY_SECONDS)
_BELL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One job as it is asked for.

    Attributes:
        body: a request as JSON, as the endpoint takes it, without streaming.
        wait_seconds: how long it may wait and run.
        result_seconds: how long its answer is kept once it has ended.
        metadata: the caller's own words about it, kept in clear.
        idempotency_key: the caller's name for this submission, unique for its API key.
        callback_url: where a webhook tells how the job ended.
        action: the name of its audit events; what follows "inference." is the job's kind.
        endpoint: of those whose answers can be kept, see ``inference.gateway.wire.kept``.
    """

    body: bytes
    priority: Priority = Priority.NORMAL
    wait_seconds: int = DAY_SECONDS
    result_seconds: int = DAY_SECONDS
    metadata: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    callback_url: str | None = None
    action: str = JOB
    endpoint: str = CHAT_ENDPOINT


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request: a job, or the refusal.

    ``replayed`` tells that the job was made by an earlier request under the same key, ``passes``
    that the caller means to ask again, and so nothing of the refusal was recorded.
    """

    job_id: UUID | None = None
    error: PortalError | None = None
    replayed: bool = False
    passes: bool = False


@dataclass(frozen=True, slots=True)
class Following:
    """Jobs whose text is followed as it comes, rather than kept; see ``inference.jobs.live``.

    Attributes:
        gateway: the process that follows them.
        scope: what the key must have in the place of ``inference``.
        session: the browser session of a playground's key was proved.
    """

    gateway: str
    scope: str = Scope.INFERENCE.value
    session: bool = False


Passes = Callable[[Ask | None, PortalError], bool]


def _none_passes(ask: Ask | None, error: PortalError) -> bool:
    return False


def key_context(
    *,
    tenant_id: UUID,
    api_key_id: UUID,
    user_id: UUID,
    label: str,
    request_id: str,
    address: str | None = None,
) -> Context:
    """The context of work that goes on after the call of the API key that asked for it.

    Args:
        label: the key's name, as the trail shows it.
        address: where that call came from; given, the key's networks are asked again.
    """
    return Context(
        actor=Actor(ActorType.API_KEY, api_key_id, label),
        tenant_id=tenant_id,
        user_id=user_id,
        api_key_id=api_key_id,
        auth_method="api_key",
        address=address,
        request_id=request_id,
        scopes=frozenset({Scope.INFERENCE.value}),
    )


def submit(
    *,
    context: Context,
    requests: Sequence[JobRequest],
    passes: Passes = _none_passes,
    following: Following | None = None,
) -> list[Outcome]:
    """Admits jobs of one API key, in order, in one transaction; rings once it is committed.

    A refused request changes nothing for the others, and is recorded like an admitted one. The
    tenant's quota windows are locked from the decision to the commit: submit a hundred at a time
    rather than thousands.

    Args:
        passes: which refusals the caller waits out, to ask again; they are not recorded.
        following: who follows the jobs as they run.

    Returns:
        an outcome for each request.

    Raises:
        Forbidden: the caller is no API key, or one without the scope ``inference``.
    """
    if context.api_key_id is None or context.tenant_id is None:
        raise needs_api_key()
    require(context, Action.JOB_SUBMIT)
    with tenant_scope(context):
        submission = _Submission(
            context, context.tenant_id, context.api_key_id, requests, passes, following
        )
        outcomes = submission.run()
        if submission.queues:
            queues = frozenset(submission.queues)
            transaction.on_commit(lambda: _ring(queues))
    return outcomes


def needs_api_key() -> Forbidden:
    """403: a person in a browser asked for what a business system does."""
    return Forbidden(
        "Jobs are submitted by business systems: send an API key with the scope 'inference'; "
        "a browser session can't submit.",
        code="api_key_needed",
    )


class _Submission:
    """One call of ``submit``."""

    def __init__(
        self,
        context: Context,
        tenant_id: UUID,
        api_key_id: UUID,
        requests: Sequence[JobRequest],
        passes: Passes,
        following: Following | None,
    ) -> None:
        self._context = context
        self._passes = passes
        self._following = following
        self._tenant_id = tenant_id
        self._api_key_id = api_key_id
        # Of a key that is not this tenant's nothing is found, and it is refused as unknown.
        key = ApiKey.objects.filter(pk=api_key_id).values_list("public_id", flat=True).first()
        self._public_id = key or ""
        self._requests = requests
        self._arrived_at = datetime.now(UTC)
        self._outcomes: dict[int, Outcome] = {}
        self._fingerprints: dict[int, tuple[int, bytes]] = {}
        self.queues: set[str] = set()

    def run(self) -> list[Outcome]:
        self._settle_repeated()
        new = [n for n in range(len(self._requests)) if n not in self._outcomes]
        pendings = dict(zip(new, self._pendings(new), strict=True))
        repeats = self._repeats(new)
        for number in repeats:
            del pendings[number]
        if pendings:
            self._admit(pendings)
        for number, first in repeats.items():
            self._outcomes[number] = self._repeat(number, first)
        return [self._outcomes[n] for n in range(len(self._requests))]

    # -- idempotency -----------------------------------------------------------------------

    def _settle_repeated(self) -> None:
        """Answers those whose key is known already."""
        keys = {r.idempotency_key for r in self._requests if r.idempotency_key is not None}
        if not keys:
            return
        known = store.lock_keys(self._tenant_id, self._api_key_id, sorted(keys))
        for number, request in enumerate(self._requests):
            if request.idempotency_key is None:
                continue
            text = fingerprint_text(request)
            self._fingerprints[number] = peppers().digest(text)
            earlier = known.get(request.idempotency_key)
            if earlier is None:
                continue
            same = peppers().matches(text, earlier.pepper_version, earlier.body_hmac)
            self._outcomes[number] = (
                Outcome(earlier.job_id, replayed=True) if same else Outcome(error=other_body())
            )

    def _repeats(self, numbers: Sequence[int]) -> dict[int, int]:
        """Which of them repeat the key of an earlier one in the same list."""
        first: dict[str, int] = {}
        found: dict[int, int] = {}
        for number in numbers:
            key = self._requests[number].idempotency_key
            if key is not None and first.setdefault(key, number) != number:
                found[number] = first[key]
        return found

    def _repeat(self, number: int, first: int) -> Outcome:
        if self._fingerprints[number] != self._fingerprints[first]:
            return Outcome(error=other_body())
        earlier = self._outcomes[first]
        return Outcome(earlier.job_id, earlier.error, replayed=earlier.job_id is not None)

    # -- admission -------------------------------------------------------------------------

    def _pendings(self, numbers: Sequence[int]) -> list[Pending]:
        """The calls as a gateway would have them; what is wrong with one travels inside."""
        parsed = [_parse(self._requests[n]) for n in numbers]
        models = {p.model for p in parsed if isinstance(p, ParsedRequest)}
        named = named_models(models) if models else {}
        return [
            self._pending(self._requests[n], p, named) for n, p in zip(numbers, parsed, strict=True)
        ]

    def _pending(
        self,
        request: JobRequest,
        parsed: ParsedRequest | PortalError,
        models: Mapping[str, Named],
    ) -> Pending:
        credential = self._credential()
        origin = Origin(
            self._context.request_id, self._context.client_request_id, self._context.address
        )
        try:
            if isinstance(parsed, PortalError):
                raise parsed
            named = models.get(parsed.model)
            if named is None:
                raise errors.model_not_found(parsed.model)
            self._require_receiver(request)
            if isinstance(named, Routed):
                choice, options = _choice(request, parsed, named)
                call = Call(credential, choice=choice)
                return Pending(request.action, origin, call, self._arrived_at, options=options)
            generation, ask = _prepared(request, parsed, named)
            check_abilities(named.engines, generation.prompt.extras)
        except PortalError as refusal:
            refused = Call(credential, refusal=refusal)
            return Pending(request.action, origin, refused, self._arrived_at)
        return Pending(request.action, origin, Call(credential, ask), self._arrived_at, generation)

    def _credential(self) -> Vouched:
        credential = Vouched(self._public_id, self._context.address)
        who = self._following
        return (
            credential if who is None else replace(credential, session=who.session, scope=who.scope)
        )

    def _admit(self, pendings: Mapping[int, Pending]) -> None:
        deployments = {d for p in pendings.values() for d in p.call.deployments()}
        ledger = store.read(self._public_id, deployments, peppers())
        readable = [_readable(p.call, ledger.keys.get(self._public_id)) for p in pendings.values()]
        rows: list[Row] = []
        for (number, pending), verdict in zip(
            pendings.items(), decide(readable, ledger), strict=True
        ):
            if isinstance(verdict, Admitted):
                chosen = pending.served_by(verdict)
                if self._following is not None:
                    chosen = _streamed(chosen)
                rows.append(self._row(number, chosen, verdict, ledger))
                self._outcomes[number] = Outcome(verdict.job_id)
                assert chosen.generation is not None
                self.queues.add(chosen.generation.served.queue)
            else:
                assert isinstance(verdict, Refused), "every job has an ask"
                if self._passes(_an_ask(pending.call), verdict.error):
                    self._outcomes[number] = Outcome(error=verdict.error, passes=True)
                    continue
                rows.append(_without_generation(refused_row(pending, verdict)))
                self._outcomes[number] = Outcome(error=verdict.error)
        gateway = self._following.gateway if self._following is not None else ""
        store.write(ledger, rows, gateway=gateway)
        register_callbacks(tenant_id=self._tenant_id, urls=self._callbacks(pendings))

    # -- callbacks -------------------------------------------------------------------------

    def _require_receiver(self, request: JobRequest) -> None:
        """Refuses a callback that could not be sent, or not signed."""
        if request.callback_url is None:
            return
        clean_url(request.callback_url, targets(), "callback_url")
        if not self._signs:
            raise NoSigningSecret

    @cached_property
    def _signs(self) -> bool:
        return has_signing_secret(self._tenant_id)

    def _callbacks(self, numbers: Iterable[int]) -> dict[UUID, httpx.URL]:
        """The callback URLs of those that were admitted, by job."""
        return {
            job_id: clean_url(url, targets())
            for n in numbers
            if (job_id := self._outcomes[n].job_id) is not None
            and (url := self._requests[n].callback_url) is not None
        }

    # -- rows ------------------------------------------------------------------------------

    def _row(self, number: int, pending: Pending, verdict: Admitted, ledger: Ledger) -> Row:
        request = self._requests[number]
        row = _without_generation(admitted_row(pending, verdict, _cipher(verdict.key)))
        assert row.detail is not None
        row.detail["priority"] = request.priority.name.lower()
        if request.callback_url is not None:
            row.detail["receiver"] = origin_of(clean_url(request.callback_url, targets()))
        more: dict[str, Any] = {
            "deadline": ledger.now + timedelta(seconds=request.wait_seconds),
            "priority": request.priority.value,
            "result_seconds": request.result_seconds,
        }
        if request.idempotency_key is not None:
            version, digest = self._fingerprints[number]
            lives = timedelta(seconds=request.wait_seconds + request.result_seconds)
            more |= {
                "idempotency_key": request.idempotency_key,
                "pepper_version": version,
                "body_hmac": base64.b64encode(digest).decode(),
                "key_expires_at": ledger.now + max(_KEY_KEPT, lives),
            }
        return store.job_row(row, **more)


def _streamed(pending: Pending) -> Pending:
    assert pending.generation is not None, "only generations are admitted"
    return replace(pending, generation=replace(pending.generation, stream=True))


def _parse(request: JobRequest) -> ParsedRequest | PortalError:
    try:
        return with_checked_schema(parse_kept(request.endpoint, request.body))
    except PortalError as refusal:
        return refusal


def _choice(
    request: JobRequest, parsed: ParsedRequest, routed: Routed
) -> tuple[Choice, dict[UUID, Generation]]:
    found: list[Prepared | PortalError] = []
    groups = alike(routed)
    for group in groups:
        try:
            found.append(_prepared(request, parsed, group[0]))
        except PortalError as refusal:
            found.append(refusal)
    return choice_of(routed, zip(groups, found, strict=True))


def _prepared(request: JobRequest, parsed: ParsedRequest, served: Served) -> Prepared:
    generation, ask = _run_of(request, parsed, served)
    more: dict[str, Any] = numbers_of(parsed)
    if request.metadata:
        # The caller's own words, kept in clear.
        metadata = {mask(name): mask(text) for name, text in request.metadata.items()}
        more["metadata"] = metadata
    if more:
        generation = replace(generation, parameters={**generation.parameters, **more})
    return generation, ask


def _run_of(request: JobRequest, parsed: ParsedRequest, served: Served) -> Prepared:
    patience, priority = request.wait_seconds, request.priority.value
    if parsed.inputs is not None:
        return prepared_inputs(parsed, parsed.inputs, served, patience, priority=priority)
    ids = encoded(parsed, served)
    return prepared(parsed, served, ids, patience, priority=priority)


def _an_ask(call: Call) -> Ask | None:
    """What the call needs; of one with a choice, the least that it needs anywhere."""
    if call.choice is None:
        return call.ask
    asks = [ask for ask in call.choice.asks.values() if isinstance(ask, Ask)]
    return min(asks, key=lambda ask: (ask.tokens, ask.cost), default=None)


def _readable(call: Call, key: KeyFacts | None) -> Call:
    """The call, refused if its tenant's data key can't be used."""
    if (call.ask is not None or call.choice is not None) and key is not None:
        try:
            _cipher(key)
        except InvalidCiphertext as fault:
            log.error("data_key.unusable", tenant_id=str(key.tenant_id), error=fault.message)
            return replace(call, refusal=errors.server_error())
    return call


def _without_generation(row: Row) -> Row:
    """Which of a key's secrets was sent is not known here; the call's own event says who called."""
    if row.detail is not None:
        row.detail.pop("key_generation", None)
    return row


def _cipher(key: KeyFacts) -> Cipher:
    return payload_cipher(key.tenant_id, key.data_key_version, key.data_key)


def _ring(queues: frozenset[str]) -> None:
    with RespClient(env().redis_url.get_secret_value(), timeout_s=_BELL_SECONDS) as client:
        bell = Doorbell(client)
        for queue in queues:
            dispatch.ring(bell, queue)
