"""What moves a batch on: lines handed to admission, results written down, an end.

Each function is one bounded step inside the tenant's scope, with the batch's row locked: what it
did stands or falls with what it noted, so a process that dies in it leaves nothing half done.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from django.db import DataError, transaction
from django.db.models import F
from django.utils import timezone

from inference.batches import store
from inference.batches.files import InputFile, append, line_cipher
from inference.batches.lines import LineFault, parse_request
from inference.batches.refusals import ends_the_batch, passes
from inference.batches.results import (
    answered_line,
    fault_object,
    line_name,
    refused_line,
    unsent_line,
)
from inference.batches.store import EndedLine, WaitingLine
from inference.batches.validation import opened_id
from inference.gateway.answers import error_of
from inference.gateway.wire import errors
from inference.gateway.wire.common import Usage
from inference.gateway.wire.kept import ENDPOINTS
from inference.jobs.answers import kept_answer
from inference.jobs.ciphers import payload_cipher
from inference.jobs.submission import JobRequest, Outcome, key_context, submit
from inference.models import Batch, BatchLine, BatchState, File, FileState, JobState, Priority
from inference.returns import End
from portal.core.actors import Context
from portal.core.crypto import Cipher, InvalidCiphertext
from portal.core.env import env
from portal.core.errors import PortalError
from tenants.models import ApiKey, TenantDataKey

log = structlog.get_logger(__name__)

ACTION: Final = "inference.batch"
_RESULTS_A_STEP: Final = 200
_UNSENT_A_STEP: Final = 1000
_BYTES_A_STEP: Final = 8_000_000
_MOST_REST: Final = 15.0
JOBS_REST: Final = 0.25
"""How long a batch rests that waits for its jobs, in seconds."""

# An answer waits in its job for a step that writes it down; a day outlasts any outage of those.
_ANSWER_SECONDS: Final = 24 * 3600

_UNSENT: Final = {
    BatchState.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    BatchState.CANCELLED: ("batch_cancelled", "This request was cancelled before it was run."),
    BatchState.FAILED: ("batch_failed", "The batch was ended before this request was run."),
}


def key_of(batch: Batch, label: str) -> Context:
    """The context in which a batch's lines are admitted: its key, whose call made it."""
    return key_context(
        tenant_id=batch.tenant_id,
        api_key_id=batch.api_key_id,
        user_id=batch.user_id,
        label=label,
        request_id=f"batch_{batch.id.hex}",
    )


@dataclass(slots=True)
class Progress:
    """When the next step is due: at once, unless all there is to do is to wait."""

    wake_at: datetime | None = None

    def rest(self, seconds: float) -> None:
        """There may be something to do after that many seconds; the soonest counts."""
        at = timezone.now() + timedelta(seconds=seconds)
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def due(self) -> datetime:
        return self.wake_at or timezone.now()


# -- handing on --------------------------------------------------------------------------------


def feed(batch: Batch, under_way: int, progress: Progress) -> int:
    """Hands the next lines to admission, up to what a batch may have under way.

    Returns:
        how many of them became jobs.
    """
    now = timezone.now()
    if batch.feed_at is not None and batch.feed_at > now:
        progress.rest((batch.feed_at - now).total_seconds())
        return 0
    lines = store.waiting_lines(batch, env().batch_in_flight - under_way)
    if not lines:
        return 0
    source = InputFile(batch.input_file)
    bodies: list[bytes] = []
    size = 0
    for line in lines:
        size += line.length
        if bodies and size > _BYTES_A_STEP:
            break
        bodies.append(bytes(parse_request(source.read(line.start, line.length)).body))
    lines = lines[: len(bodies)]
    return _note(batch, lines, _submit(batch, bodies), progress)


def _submit(batch: Batch, bodies: list[bytes]) -> list[Outcome]:
    label = ApiKey.objects.filter(pk=batch.api_key_id).values_list("name", flat=True).get()
    context = key_of(batch, label)
    left = (batch.expires_at - timezone.now()).total_seconds()
    requests = [
        JobRequest(
            body=body,
            priority=Priority.BATCH,
            wait_seconds=max(1, int(left)),
            result_seconds=_ANSWER_SECONDS,
            metadata={"batch": f"batch_{batch.id.hex}"},
            action=ACTION,
            endpoint=batch.endpoint,
        )
        for body in bodies
    ]
    return _admit(context, requests)


def _admit(context: Context, requests: list[JobRequest]) -> list[Outcome]:
    """The outcomes; a line that the database itself refuses fails alone."""
    try:
        with transaction.atomic():
            return submit(context=context, requests=requests, passes=passes)
    except DataError as fault:
        if len(requests) == 1:
            log.error("batch.line_refused", error=type(fault).__name__)
            return [Outcome(error=errors.server_error())]
    return [outcome for request in requests for outcome in _admit(context, [request])]


def _note(
    batch: Batch, lines: list[WaitingLine], outcomes: list[Outcome], progress: Progress
) -> int:
    """Writes down which lines became jobs, which failed, and whether the rest has to wait."""
    jobs: dict[int, UUID] = {}
    failed: list[tuple[WaitingLine, PortalError]] = []
    held: list[tuple[WaitingLine, PortalError]] = []
    for line, outcome in zip(lines, outcomes, strict=True):
        if outcome.error is not None:
            (held if outcome.passes else failed).append((line, outcome.error))
        elif outcome.job_id is not None:
            jobs[line.number] = outcome.job_id
    store.set_running(batch, jobs)
    ending = next((error for _, error in failed if ends_the_batch(error)), None)
    if ending is not None:
        _end_early(batch, ending)
        return len(jobs)
    _write_refused(batch, failed)
    batch.fed_through = held[0][0].number - 1 if held else lines[-1].number
    _hold(batch, held[0][1] if held else None, progress)
    return len(jobs)


def _hold(batch: Batch, error: PortalError | None, progress: Progress) -> None:
    if error is None:
        batch.waiting_for, batch.feed_at = "", None
        return
    rest = min(max(1.0, error.retry_after or 1.0), _MOST_REST)
    batch.waiting_for = error.message[:500]
    batch.feed_at = timezone.now() + timedelta(seconds=rest)
    progress.rest(rest)


def _end_early(batch: Batch, error: PortalError) -> None:
    """Its key may not be used any more: nothing further is run for it."""
    batch.errors.append(fault_object(LineFault(error.error_code, error.message)))
    start_ending(batch, BatchState.FAILED)


def _write_refused(batch: Batch, refused: list[tuple[WaitingLine, PortalError]]) -> None:
    if not refused:
        return
    cipher = _line_cipher(batch)
    results = [
        refused_line(
            line_name(batch.id, line.number),
            opened_id(cipher, batch, line.number, line.custom_id),
            f"batch_{batch.id.hex}",
            error,
        )
        for line, error in refused
    ]
    append(batch, "error_file", results)
    store.set_done(batch, [line.number for line, _ in refused])
    batch.failed += len(refused)


# -- writing down ------------------------------------------------------------------------------


def collect(batch: Batch) -> None:
    """Writes down the results of lines whose jobs have ended."""
    ended = store.ended_lines(batch, _RESULTS_A_STEP, most_bytes=_BYTES_A_STEP)
    if not ended:
        return
    cipher, payloads = _line_cipher(batch), _payload_ciphers(batch, ended)
    answered: list[bytes] = []
    failed: list[bytes] = []
    for line in ended:
        custom_id = opened_id(cipher, batch, line.number, line.custom_id)
        answer = _answer(batch, line, payloads)
        name, request_id = line_name(batch.id, line.number), str(line.job_id)
        if line.state == JobState.SUCCEEDED or line.completion_tokens:
            # As it was charged.
            batch.prompt_tokens += line.prompt_tokens
            batch.completion_tokens += line.completion_tokens
        if answer is not None:
            answered.append(answered_line(name, custom_id, request_id, answer))
        elif line.state == JobState.CANCELLED and batch.outcome in _UNSENT:
            failed.append(unsent_line(name, custom_id, *_UNSENT[BatchState(batch.outcome)]))
        else:
            failed.append(refused_line(name, custom_id, request_id, _failure(batch, line)))
    append(batch, "output_file", answered)
    append(batch, "error_file", failed)
    store.set_done(batch, [line.number for line in ended])
    batch.completed += len(answered)
    batch.failed += len(failed)


def _payload_ciphers(batch: Batch, ended: list[EndedLine]) -> dict[int, Cipher]:
    """The ciphers of the lines' answers, by the version of their data key."""
    versions = {line.data_key_version for line in ended if line.data_key_version is not None}
    keys = TenantDataKey.objects.filter(tenant_id=batch.tenant_id, version__in=versions)
    return {
        key.version: payload_cipher(batch.tenant_id, key.version, bytes(key.wrapped))
        for key in keys
    }


def _answer(batch: Batch, line: EndedLine, ciphers: dict[int, Cipher]) -> bytes | None:
    """The answer to a line that succeeded; None if it did not, or its answer is gone."""
    if line.state != JobState.SUCCEEDED or line.answer is None or line.data_key_version is None:
        return None
    try:
        cipher = ciphers[line.data_key_version]
        text = cipher.decrypt(bytes(line.answer), row_id=line.job_id).decode()
    except InvalidCiphertext as fault:
        log.error("answer.unreadable", job_id=str(line.job_id), error=str(fault))
        return None
    return kept_answer(
        job_id=line.job_id,
        admitted_at=line.admitted_at,
        model=batch.model,
        text=text,
        finish_reason=line.finish_reason,
        usage=Usage(line.prompt_tokens, line.completion_tokens),
        parameters=msgspec.json.decode(line.parameters, type=dict[str, Any]),
        artefact=line.artefact,
    )


def _failure(batch: Batch, line: EndedLine) -> PortalError:
    if line.state == JobState.SUCCEEDED:
        return PortalError("The answer could not be kept.", code="answer_lost")
    return error_of(
        End(
            line.job_id.bytes,
            0,
            line.state,
            error_code=line.error_code,
            error_message=line.error_message,
        ),
        ENDPOINTS[batch.endpoint].param,
    )


def _line_cipher(batch: Batch) -> Cipher:
    return line_cipher(batch.tenant_id, batch.input_file.data_key_version)


# -- ending ------------------------------------------------------------------------------------


def start_ending(batch: Batch, outcome: BatchState) -> None:
    """Nothing more is handed on; what runs is cancelled unless all of it has ended."""
    batch.outcome = outcome
    batch.waiting_for, batch.feed_at = "", None
    if batch.state != BatchState.CANCELLING:
        batch.state, batch.finalizing_at = BatchState.FINALIZING, timezone.now()


def drop_waiting(batch: Batch) -> bool:
    """Writes down, for lines that were never handed on, that they are not going to be.

    Returns:
        whether there were any; there may be more.
    """
    lines = store.waiting_lines(batch, _UNSENT_A_STEP)
    if not lines:
        return False
    assert batch.outcome is not None
    cipher = _line_cipher(batch)
    code, message = _UNSENT[BatchState(batch.outcome)]
    results = [
        unsent_line(
            line_name(batch.id, line.number),
            opened_id(cipher, batch, line.number, line.custom_id),
            code,
            message,
        )
        for line in lines
    ]
    append(batch, "error_file", results)
    store.set_done(batch, [line.number for line in lines])
    batch.failed += len(lines)
    batch.fed_through = lines[-1].number
    return True


def end(batch: Batch) -> None:
    """Gives the result files to the tenant, and ends the batch."""
    assert batch.outcome is not None
    now = timezone.now()
    seconds = batch.output_seconds or env().file_days * 24 * 3600
    files = [f for f in (batch.output_file_id, batch.error_file_id) if f is not None]
    File.objects.filter(pk__in=files).update(
        state=FileState.READY, expires_at=F("created_at") + timedelta(seconds=seconds)
    )
    BatchLine.objects.filter(tenant_id=batch.tenant_id, batch_id=batch.id).delete()
    batch.state, batch.ended_at = batch.outcome, now
