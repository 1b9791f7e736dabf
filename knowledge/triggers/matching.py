"""Whether an event starts an app: each event is looked at once, by every trigger of its stream."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from knowledge.models import StreamEvent, Trigger, TriggerKind, TriggerRun
from knowledge.schedules import next_time
from knowledge.triggers.inputs import Inputs, inputs_of_event, inputs_of_time
from knowledge.triggers.rules import (
    Finding,
    Happening,
    Rule,
    findings,
    minutes_of,
    read_rules,
)
from knowledge.triggers.vault import Contents, cipher_at, happening, seal_contents, told_by
from portal.core.actors import Context
from portal.core.crypto import Cipher
from portal.core.tenancy import tenant_scope
from tenants.models import Tenant

MOST_SEEN: Final = 1000
"""A window sees the newest so many events."""


# -- events ------------------------------------------------------------------------------------


def event_step(tenant_id: UUID, event_id: UUID) -> bool:
    """Has the triggers of its stream look at an event that is due; whether it was.

    What they start is written down in the transaction that puts the event aside, so that a crash
    neither loses a start nor makes two.
    """
    with tenant_scope(Context.system("triggers", tenant_id=tenant_id)):
        due = StreamEvent.objects.filter(pk=event_id, wake_at__lte=timezone.now())
        event = due.select_for_update(skip_locked=True, no_key=True).first()
        if event is None:
            return False
        # Held, so that of two events of one subject the second sees what the first has started.
        listening = Trigger.objects.filter(stream=event.stream, kind=TriggerKind.EVENT)
        triggers = listening.filter(enabled=True).select_for_update(no_key=True).order_by("pk")
        _Look(event).by(list(triggers))
        event.wake_at = None
        event.save(update_fields=["wake_at"])
    return True


class _Look:
    """A look at one event."""

    def __init__(self, event: StreamEvent) -> None:
        self._event = event
        self._ciphers: dict[int, Cipher] = {
            event.data_key_version: cipher_at(event.tenant_id, event.data_key_version)
        }
        self._told = told_by(event, self._ciphers)
        self._happening = Happening(self._told.subject, event.at, self._told.data)

    def by(self, triggers: Sequence[Trigger]) -> None:
        """Starts the app of each trigger whose rules find enough."""
        for trigger in triggers:
            rules = read_rules(trigger.rules)
            before = self._before(trigger, rules)
            found = findings(rules, self._happening, before)
            score = sum(one.weight for one in found)
            if (rules and score < trigger.threshold) or self._pauses(trigger):
                continue
            inputs = inputs_of_event(
                trigger.inputs, self._happening, self._told.type, found, before
            )
            start_run(
                trigger,
                cause=self._event.pk.hex,
                subject=bytes(self._event.subject),
                inputs=inputs,
                found=found,
            )

    def _before(self, trigger: Trigger, rules: Sequence[Rule]) -> list[Happening]:
        """The other events at which the trigger's windows, or its inputs, look."""
        of_subject, of_stream = minutes_of(rules, "subject"), minutes_of(rules, "stream")
        if "$recent" in trigger.inputs.values():
            of_subject = max(of_subject, _RECENT_MINUTES)
        seen: dict[UUID, StreamEvent] = {}
        for minutes, own in ((of_subject, True), (of_stream, False)):
            if minutes:
                seen |= {one.pk: one for one in self._window(minutes, own=own)}
        seen.pop(self._event.pk, None)
        return [happening(one, self._ciphers) for one in seen.values()]

    def _window(self, minutes: int, *, own: bool) -> QuerySet[StreamEvent]:
        event = self._event
        found = StreamEvent.objects.filter(
            tenant_id=event.tenant_id,
            stream=event.stream,
            at__gt=event.at - timedelta(minutes=minutes),
            at__lte=event.at,
        )
        if own:
            found = found.filter(subject=event.subject)
        return found.order_by("-at", "-id")[:MOST_SEEN]

    def _pauses(self, trigger: Trigger) -> bool:
        """Whether the subject has started it a short while ago."""
        if not trigger.cooldown_minutes:
            return False
        since = timezone.now() - timedelta(minutes=trigger.cooldown_minutes)
        return TriggerRun.objects.filter(
            trigger_id=trigger.pk, subject=self._event.subject, created_at__gt=since
        ).exists()


_RECENT_MINUTES: Final = 24 * 60


# -- schedules ---------------------------------------------------------------------------------


def schedule_step(tenant_id: UUID, trigger_id: UUID) -> bool:
    """Starts the app of a trigger whose time has come; whether it had.

    What was missed while nothing ran is made up for once, and not once for each time.
    """
    with tenant_scope(Context.system("triggers", tenant_id=tenant_id)):
        due = Trigger.objects.filter(pk=trigger_id, next_at__lte=timezone.now())
        trigger = due.select_for_update(skip_locked=True, no_key=True).first()
        if trigger is None:
            return False
        at = trigger.next_at
        assert at is not None, "it is due"
        start_run(trigger, cause=at.isoformat(), inputs=inputs_of_time(trigger.inputs, at))
        set_next(trigger)
        trigger.save(update_fields=["next_at"])
    return True


def set_next(trigger: Trigger) -> None:
    """Says when the schedule comes next, without saving it; inside the tenant's scope."""
    trigger.next_at = None
    if trigger.kind == TriggerKind.SCHEDULE and trigger.enabled:
        zone = Tenant.objects.values_list("time_zone", flat=True).get(pk=trigger.tenant_id)
        trigger.next_at = next_time(trigger.schedule, after=timezone.now(), zone=zone)


# -- both --------------------------------------------------------------------------------------


def start_run(
    trigger: Trigger,
    *,
    cause: str,
    inputs: Inputs,
    subject: bytes = b"",
    found: Sequence[Finding] = (),
) -> TriggerRun:
    """Writes down that the app is to be started, for whoever takes the next step of it."""
    now = timezone.now()
    run = TriggerRun(
        tenant_id=trigger.tenant_id,
        trigger=trigger,
        cause=cause,
        subject=subject,
        score=sum(one.weight for one in found),
        wake_at=now,
        created_at=now,
        expires_at=now + timedelta(days=max(1, trigger.keep_days)),
    )
    seal_contents(run, Contents(inputs, {one.rule: one.why for one in found}))
    run.save(force_insert=True)
    return run
