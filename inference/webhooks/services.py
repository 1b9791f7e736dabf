"""Verbs of webhooks: signing secrets, callbacks of jobs, deliveries once more, trials."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from uuid import UUID

import httpx
from django.db import connection
from django.utils import timezone

from audit.models import Category, Outcome
from audit.services import Event, intent, record
from inference.models import Job, WebhookDelivery, WebhookSecret, WebhookState
from inference.payloads import Ciphers
from inference.webhooks import sender, signing
from inference.webhooks.events import WebhookEvent
from inference.webhooks.messages import trial_message
from inference.webhooks.targets import clean_url, targets
from portal.core.actors import Context
from portal.core.crypto import Cipher, Keyring
from portal.core.env import env
from portal.core.errors import Conflict, Invalid, NotFound, TooMany
from portal.core.ids import uuid7
from portal.core.outgoing import origin_of
from portal.core.tenancy import tenant_scope
from tenants.models import TenantDataKey
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant

PURPOSE: Final = b"webhook"
DEFAULT_OVERLAP_SECONDS: Final = 24 * 3600
MOST_OVERLAP_SECONDS: Final = 30 * 24 * 3600
_SECRET: Final = "inference.webhooksecret"  # noqa: S105
_DELIVERY: Final = "inference.webhookdelivery"


class NoSigningSecret(Conflict):
    """Nothing can be sent before there is a secret to sign it with."""

    code = "no_webhook_secret"

    def __init__(self) -> None:
        super().__init__("Make the tenant's webhook signing secret first.")


@dataclass(frozen=True, slots=True)
class MadeSecret:
    """A new generation of the signing secret, and its text, which is shown once."""

    row: WebhookSecret
    secret: str = field(repr=False)


@cache
def ciphers() -> Ciphers:
    """This process's ciphers of callback URLs and signing secrets."""
    return Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()), purpose=PURPOSE)


# -- the signing secret ------------------------------------------------------------------------


def make_webhook_secret(
    *, context: Context, overlap_seconds: int = DEFAULT_OVERLAP_SECONDS
) -> MadeSecret:
    """Makes the tenant's first signing secret, or the next, which signs from now on.

    The secret until now signs beside it for the overlap, so that receivers can change over. One
    that was in its own overlap already signs no more.

    Args:
        overlap_seconds: from 0, which ends the former secret at once, to 30 days.

    Raises:
        Forbidden: the caller may not.
        Invalid: naming the field that is wrong.
    """
    require(context, Action.WEBHOOK_SECRET)
    tenant_id = require_tenant(context)
    if not 0 <= overlap_seconds <= MOST_OVERLAP_SECONDS:
        raise Invalid(
            f"'overlap_seconds' must be from 0 to {MOST_OVERLAP_SECONDS}.",
            param="overlap_seconds",
        )
    with tenant_scope(context):
        _one_at_a_time("webhook secret", tenant_id)
        former = WebhookSecret.objects.filter(tenant_id=tenant_id, valid_until=None).first()
        version, cipher = _tenant_cipher(tenant_id)
        secret = signing.new_secret()
        row = WebhookSecret(
            tenant_id=tenant_id,
            generation=1 if former is None else former.generation + 1,
            data_key_version=version,
        )
        row.sealed = cipher.encrypt(secret.encode(), row_id=row.id)
        with _secret_intent(row, former, overlap_seconds):
            if former is not None:
                _succeed(former, overlap_seconds)
            row.save(force_insert=True)
    return MadeSecret(row, secret)


def _secret_intent(
    row: WebhookSecret, former: WebhookSecret | None, overlap_seconds: int
) -> AbstractContextManager[UUID]:
    overlap = {} if former is None else {"overlap_seconds": overlap_seconds}
    return intent(
        WebhookEvent.CREATE_SECRET if former is None else WebhookEvent.ROTATE_SECRET,
        object_type=_SECRET,
        object_id=row.id,
        object_label=str(row.generation),
        detail={"generation": row.generation, **overlap},
    )


def _succeed(former: WebhookSecret, overlap_seconds: int) -> None:
    """Ends the present secret after the overlap, and those before it now."""
    WebhookSecret.objects.filter(tenant_id=former.tenant_id).exclude(pk=former.pk).delete()
    former.valid_until = timezone.now() + timedelta(seconds=overlap_seconds)
    former.save(update_fields=["valid_until"])


def _tenant_cipher(tenant_id: UUID) -> tuple[int, Cipher]:
    """The version of the tenant's newest data key, and the cipher under it."""
    key = TenantDataKey.objects.filter(tenant_id=tenant_id).order_by("-version").first()
    if key is None:
        raise Conflict("The tenant has no data key.", code="no_data_key")
    return key.version, ciphers().of(tenant_id, key.version, bytes(key.wrapped))


def _one_at_a_time(what: str, tenant_id: UUID, *, wait: bool = True) -> None:
    """Holds a lock of the tenant until the scope ends.

    Raises:
        TooMany: it is taken, and is not to be waited for.
    """
    function = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [f"{what} {tenant_id}"])
        taken = cursor.fetchone()[0] is False
    if taken:
        raise TooMany("Another test is under way in this tenant; try again in a moment.")


# -- callbacks ---------------------------------------------------------------------------------


def has_signing_secret(tenant_id: UUID) -> bool:
    """Whether the scope's tenant can sign what it sends; without it no callback is taken."""
    return WebhookSecret.objects.filter(tenant_id=tenant_id, valid_until=None).exists()


def register_callbacks(
    *, tenant_id: UUID, urls: Mapping[UUID, httpx.URL], ended: bool = False
) -> None:
    """Tells each job's URL how it ends; in the transaction that makes the jobs, behind their rows.

    A callback becomes due in the transaction that ends its job, by the trigger ``webhook_due``;
    only a job that no gateway waits for has one.

    Args:
        urls: by job, each from ``clean_url``.
        ended: the jobs have ended already, and it is due now.
    """
    if not urls:
        return
    version, cipher = _tenant_cipher(tenant_id)
    now = timezone.now()
    rows = []
    for job_id, url in urls.items():
        row = WebhookDelivery(
            tenant_id=tenant_id,
            job_id=job_id,
            origin=origin_of(url),
            data_key_version=version,
            created_at=now,
            state=WebhookState.PENDING if ended else WebhookState.WAITING,
            due_at=now if ended else None,
        )
        row.sealed_url = cipher.encrypt(str(url).encode(), row_id=row.id)
        rows.append(row)
    WebhookDelivery.objects.bulk_create(rows)


def tell(*, tenant_id: UUID, url: httpx.URL, event: str, data: Mapping[str, str]) -> None:
    """Tells a URL of something that is no job's end, in the open scope's transaction.

    Args:
        url: from ``clean_url``.
        event: its type, such as ``trigger.alert``.
        data: stands in clear in the database.
    """
    version, cipher = _tenant_cipher(tenant_id)
    now = timezone.now()
    row = WebhookDelivery(
        tenant_id=tenant_id,
        told={"type": event, "at": now.isoformat(), "data": dict(data)},
        origin=origin_of(url),
        data_key_version=version,
        created_at=now,
        state=WebhookState.PENDING,
        due_at=now,
    )
    row.sealed_url = cipher.encrypt(str(url).encode(), row_id=row.id)
    row.save(force_insert=True)


def redeliver_webhook(*, context: Context, delivery_id: UUID) -> WebhookDelivery:
    """Makes a delivery due again, at once and with all its tries; it keeps its ``webhook-id``.

    An API key reaches those of the jobs that it submitted itself.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such delivery that the caller may send.
        Conflict: its job has not ended, or it is being sent right now.
    """
    require(context, Action.WEBHOOK_SEND)
    tenant_id = require_tenant(context)
    with tenant_scope(context):
        found = WebhookDelivery.objects.select_for_update().filter(
            tenant_id=tenant_id, pk=delivery_id
        )
        if context.api_key_id is not None:
            own = Job.objects.filter(tenant_id=tenant_id, api_key_id=context.api_key_id)
            found = found.filter(job_id__in=own.values("id"))
        delivery = found.first()
        if delivery is None:
            raise NotFound("There is no such webhook delivery.")
        if delivery.state == WebhookState.WAITING:
            raise Conflict("The job has not ended yet; its webhook comes then.")
        now = timezone.now()
        if delivery.lease_until is not None and delivery.lease_until > now:
            raise Conflict("The webhook is being sent right now; try again in a minute.")
        with intent(
            WebhookEvent.REDELIVER,
            object_type=_DELIVERY,
            object_id=delivery.id,
            object_label=delivery.origin,
            detail={"job": delivery.job_id, "was": WebhookState(delivery.state).name.lower()},
        ):
            delivery.state, delivery.tries = WebhookState.PENDING, 0
            delivery.due_at, delivery.finished_at = now, None
            delivery.save(update_fields=["state", "tries", "due_at", "finished_at"])
    return delivery


# -- a trial -----------------------------------------------------------------------------------


def send_test_webhook(*, context: Context, url: str) -> sender.Outcome:
    """Sends a signed event of no job, now, and tells what came back; one at a time a tenant.

    Raises:
        Forbidden: the caller may not.
        Invalid, TargetRefused: no webhook may go to this URL.
        NoSigningSecret: there is none yet.
        TooMany: another test of the tenant is under way.
    """
    require(context, Action.WEBHOOK_SEND)
    tenant_id = require_tenant(context)
    target = clean_url(url, targets())
    with tenant_scope(context):
        _one_at_a_time("webhook test", tenant_id, wait=False)
        now = datetime.now(UTC)
        webhook_id = signing.message_id(uuid7())
        body = trial_message(webhook_id, now)
        headers = signing.signed_headers(
            _secrets(tenant_id), webhook_id=webhook_id, timestamp=int(now.timestamp()), body=body
        )
        outcome = asyncio.run(sender.send(target, headers, body, targets()))
        record(
            Event(
                Category.INTENT,
                WebhookEvent.TEST,
                Outcome.SUCCESS if outcome.delivered else Outcome.FAILURE,
                reason=outcome.error,
                object_label=origin_of(target),
                detail={"status": outcome.status, "milliseconds": outcome.milliseconds},
            )
        )
    return outcome


def _secrets(tenant_id: UUID) -> list[str]:
    """The secrets that sign now, the present one first.

    Raises:
        NoSigningSecret: there is none.
    """
    now = timezone.now()
    found = [
        _unsealed(row)
        for row in WebhookSecret.objects.filter(tenant_id=tenant_id).order_by("-generation")
        if row.valid_until is None or row.valid_until > now
    ]
    if not found:
        raise NoSigningSecret
    return found


def _unsealed(row: WebhookSecret) -> str:
    key = TenantDataKey.objects.get(tenant_id=row.tenant_id, version=row.data_key_version)
    cipher = ciphers().of(row.tenant_id, key.version, bytes(key.wrapped))
    return cipher.decrypt(bytes(row.sealed), row_id=row.id).decode()
