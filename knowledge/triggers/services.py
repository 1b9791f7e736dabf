"""Verbs of triggers: made, changed, switched, started by hand, deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import IntegrityError, transaction

from inference.webhooks.services import NoSigningSecret, has_signing_secret
from inference.webhooks.targets import clean_url, targets
from knowledge.accounts import TRIGGERS, own_key
from knowledge.applications.selectors import get_app, get_version, newest_spec
from knowledge.applications.spec import check_inputs, read_spec
from knowledge.models import App, AppMode, Trigger, TriggerKind, TriggerRun
from knowledge.models.triggers import MOST_KEEP_DAYS
from knowledge.schedules import clean_schedule
from knowledge.trail import intent_about
from knowledge.triggers.events import TriggerEvent
from knowledge.triggers.inputs import check_expressions
from knowledge.triggers.intake import clean_stream
from knowledge.triggers.matching import set_next, start_run
from knowledge.triggers.rules import MOST_MINUTES, read_condition, read_rules
from knowledge.triggers.vault import newest_cipher, seal_url
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.outgoing import origin_of
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import clean_text, require_tenant

MOST_TRIGGERS: Final = 200


@dataclass(frozen=True, slots=True)
class _Url:
    """A receiver's address; empty for none."""

    text: str


def create_trigger(
    *, context: Context, app_id: UUID, name: str, kind: str, **settings: Any
) -> Trigger:
    """Makes a trigger of an app, which works at once unless ``enabled`` is False.

    Args:
        kind: ``event`` or ``schedule``.
        settings: of ``edit_trigger``; ``stream`` or ``schedule`` is needed, by the kind.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app here.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken, or there are as many triggers as there may be.
    """
    require(context, Action.APP_EDIT)
    tenant_id = require_tenant(context)
    if kind not in TriggerKind.values:
        raise Invalid(f"'kind' must be one of {', '.join(TriggerKind.values)}.", param="kind")
    with tenant_scope(context):
        app = get_app(app_id)
        if app.mode != AppMode.RUN:
            raise Invalid(
                "Triggers start apps of the mode 'run'; this one holds conversations.",
                param="app_id",
            )
        if Trigger.objects.count() >= MOST_TRIGGERS:
            raise Conflict(f"A tenant may have {MOST_TRIGGERS} triggers.", code="too_many_triggers")
        trigger = Trigger(tenant_id=tenant_id, app=app, kind=kind, created_by_id=context.user_id)
        _apply(trigger, {"name": name, **settings})
        _complete(context, trigger)
        with intent_about(TriggerEvent.CREATE, trigger):
            _write(trigger, force_insert=True)
    return trigger


def edit_trigger(*, context: Context, trigger_id: UUID, **changes: Any) -> Trigger:
    """Changes what is given and leaves the rest; what runs already goes on.

    Args:
        changes: ``name``, ``enabled``, ``stream``, ``rules``, ``threshold``, ``cooldown_minutes``,
            ``schedule``, ``inputs``, ``alert_when``, ``notify_url`` (empty for none), ``keep_days``
            (0 to 365).

    Raises:
        Forbidden: the caller may not.
        NotFound: no such trigger here.
        Invalid, TargetRefused: naming the field that is wrong.
        NoSigningSecret: a webhook could not be signed.
        Conflict: the name is taken.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        trigger = locked_trigger(trigger_id)
        _apply(trigger, changes)
        _complete(context, trigger)
        with intent_about(TriggerEvent.EDIT, trigger):
            _write(trigger)
    return trigger


def delete_trigger(*, context: Context, trigger_id: UUID) -> None:
    """Deletes a trigger with the record of its runs.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such trigger here.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        trigger = locked_trigger(trigger_id)
        with intent_about(TriggerEvent.DELETE, trigger):
            Trigger.objects.filter(pk=trigger.pk).delete()


def start_trigger(
    *, context: Context, trigger_id: UUID, inputs: Mapping[str, Any] | None = None
) -> TriggerRun:
    """Starts the app now, by hand, with these inputs.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such trigger here, or its app is not published.
        Invalid: naming the input that is wrong.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        trigger = locked_trigger(trigger_id)
        app = trigger.app
        if not app.published:
            raise Invalid(f"No version of the app '{app.name}' is published.", param="app")
        given = dict(inputs or {})
        check_inputs(read_spec(get_version(app, app.published).spec), given)
        with intent_about(TriggerEvent.START, trigger):
            return start_run(trigger, cause=uuid7().hex, inputs=given)


def locked_trigger(trigger_id: UUID) -> Trigger:
    """A trigger of the open scope's tenant, locked until the scope ends.

    Raises:
        NotFound: none.
    """
    locked = Trigger.objects.select_for_update(of=("self",)).select_related("app")
    found = locked.filter(pk=trigger_id).first()
    if found is None:
        raise NotFound("There is no such trigger.")
    return found


def _write(trigger: Trigger, *, force_insert: bool = False) -> None:
    try:
        with transaction.atomic():
            trigger.save(force_insert=force_insert)
    except IntegrityError:
        raise Conflict(
            "There is already a trigger of this name.", code="trigger_name_taken", param="name"
        ) from None


# -- what may be set ---------------------------------------------------------------------------


def _apply(trigger: Trigger, changes: Mapping[str, Any]) -> None:
    for field, value in changes.items():
        check = _CHECKS.get(field)
        if check is None:
            raise Invalid(f"'{field}' can't be set.", param=field)
        checked = check(value)
        if isinstance(checked, _Url):
            _receive(trigger, checked.text)
        else:
            setattr(trigger, field, checked)


def _complete(context: Context, trigger: Trigger) -> None:
    """What the fields ask of one another, and what follows from them."""
    if trigger.kind == TriggerKind.EVENT:
        if not trigger.stream:
            raise Invalid("'stream' is needed: the events that start the app.", param="stream")
        trigger.schedule = ""
    else:
        if not trigger.schedule:
            raise Invalid("'schedule' is needed, such as '30 7 * * mon-fri'.", param="schedule")
        if trigger.rules or trigger.stream:
            raise Invalid("A schedule has no events, and so no rules.", param="rules")
    _check_names(trigger.app, trigger.inputs)
    trigger.api_key = own_key(context, _known_key(trigger), TRIGGERS)
    set_next(trigger)


def _known_key(trigger: Trigger) -> UUID | None:
    """One key does for the whole tenant."""
    others = Trigger.objects.order_by("-id").values_list("api_key_id", flat=True)
    return others.filter(pk=trigger.pk).first() or others.first()


def _check_names(app: App, inputs: Mapping[str, str]) -> None:
    known = {one.name for one in newest_spec(app).inputs}
    unknown = sorted(set(inputs) - known)
    if unknown:
        raise Invalid(f"'{unknown[0][:80]}' is no input of this app.", param="inputs")


def _receive(trigger: Trigger, text: str) -> None:
    """Where alerts are told; the address is encrypted."""
    if not text:
        trigger.sealed_url, trigger.receiver = None, ""
        return
    url = clean_url(text, targets(), "notify_url")
    if not has_signing_secret(trigger.tenant_id):
        raise NoSigningSecret
    trigger.data_key_version, cipher = newest_cipher(trigger.tenant_id)
    trigger.sealed_url = seal_url(cipher, trigger.pk, str(url))
    trigger.receiver = origin_of(url)


def _name(value: str) -> str:
    return clean_text(value, "name", most=80, least=1)


def _enabled(value: bool) -> bool:
    return value


def _stream(value: str) -> str:
    return clean_stream(value) if value else ""


def _rules(value: Any) -> Any:
    return msgspec.to_builtins(read_rules(value))


def _threshold(value: float) -> float:
    if not 0 < value <= 1e6:
        raise Invalid("'threshold' must be above 0.", param="threshold")
    return value


def _cooldown(value: int) -> int:
    if not 0 <= value <= MOST_MINUTES:
        raise Invalid(
            f"'cooldown_minutes' must be from 0 to {MOST_MINUTES}.", param="cooldown_minutes"
        )
    return value


def _alert_when(value: Any) -> Any:
    return None if value is None else msgspec.to_builtins(read_condition(value, "alert_when"))


def _keep_days(value: int) -> int:
    if not 0 <= value <= MOST_KEEP_DAYS:
        raise Invalid(f"'keep_days' must be from 0 to {MOST_KEEP_DAYS}.", param="keep_days")
    return value


_CHECKS: Final[Mapping[str, Any]] = {
    "name": _name,
    "enabled": _enabled,
    "stream": _stream,
    "rules": _rules,
    "threshold": _threshold,
    "cooldown_minutes": _cooldown,
    "schedule": clean_schedule,
    "inputs": check_expressions,
    "alert_when": _alert_when,
    "notify_url": _Url,
    "keep_days": _keep_days,
}
