"""Verbs of connections. One that can't be worked with is never saved."""

import re
from dataclasses import replace
from typing import Final
from uuid import UUID

import httpx
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from knowledge.connections.events import ConnectionEvent
from knowledge.connections.health import (
    CALL_SECONDS,
    OUTCOME_FIELDS,
    apply_outcome,
    look,
    write_outcome,
)
from knowledge.connections.vault import endpoint_of, seal
from knowledge.dify.channel import Endpoint, dify_targets, open_channel
from knowledge.dify.console_api import InnerApi
from knowledge.dify.errors import AddressNotAllowed, DifyFault
from knowledge.dify.probe import Report
from knowledge.dify.shapes import Workspace
from knowledge.models import App, Connection, DriftPolicy, KnowledgeBase, RemoteObject
from knowledge.sync.wakes import bring_forward
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound, TooMany
from portal.core.outgoing import literal_address, url_fault
from portal.core.tenancy import platform_scope, tenant_scope
from tenants.models import Tenant
from tenants.models.tenant import TenantState
from tenants.permissions import Action, require
from tenants.services.checks import clean_email, clean_text, require_tenant

MOST_NAME_CHARS: Final = 80
MOST_URL_CHARS: Final = 300
MOST_KEY_CHARS: Final = 500
MOST_ORGANISATION_CHARS: Final = 120
MOST_REFERENCE_CHARS: Final = 200
_KEY: Final = re.compile(r"[\x21-\x7e]{8,500}")


class LicenceUnconfirmed(Conflict):
    """Dify's licence allows several tenants in one instance only with written authorisation."""

    code = "dify_licence_unconfirmed"

    def __init__(self) -> None:
        super().__init__(
            "Confirm first that you hold a licence: Dify's own allows further workspaces only with "
            "written authorisation."
        )


# -- making and changing -----------------------------------------------------------------------


def create_connection(
    *,
    context: Context,
    name: str,
    base_url: str,
    workspace_id: UUID,
    console_key: str,
    dataset_key: str,
    drift_policy: str = DriftPolicy.ASK,
) -> Connection:
    """Connects the context's tenant to a workspace of a Dify, once both keys are tried.

    Args:
        base_url: where Dify's console opens, without ``/console`` or ``/v1``.
        console_key: Dify's ``ADMIN_API_KEY``.
        dataset_key: of the workspace's service API for knowledge.

    Raises:
        Forbidden: the caller may not.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken.
        DifyFault: the workspace can't be worked with; nothing is saved.
        TooMany: another connection of the tenant is being tried.
    """
    require(context, Action.CONNECTION_EDIT)
    tenant_id = require_tenant(context)
    row = Connection(tenant_id=tenant_id, name=_name(name), drift_policy=_policy(drift_policy))
    endpoint = Endpoint(
        _base_url(base_url),
        str(workspace_id),
        _key(console_key, "console_key"),
        _key(dataset_key, "dataset_key"),
    )
    with tenant_scope(context):
        report = _tried(tenant_id, endpoint)
        seal(row, endpoint)
        apply_outcome(row, report, timezone.now())
        with intent_about(ConnectionEvent.CREATE, row, address=row.base_url):
            _save(row, force_insert=True)
    return row


def edit_connection(
    *,
    context: Context,
    connection_id: UUID,
    name: str | None = None,
    base_url: str | None = None,
    workspace_id: UUID | None = None,
    console_key: str | None = None,
    dataset_key: str | None = None,
    drift_policy: str | None = None,
) -> Connection:
    """Changes what is given and leaves the rest; where it leads is tried before it is saved.

    Where a shared connection leads is the platform's to change: the other tenants' follow.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken, or it is shared and the caller is of the tenant.
        DifyFault: the workspace can't be worked with; nothing is changed.
        TooMany: another connection of the tenant is being tried.
    """
    require(context, Action.CONNECTION_EDIT)
    tenant_id = require_tenant(context)
    with tenant_scope(context):
        row = _locked(connection_id)
        if name is not None:
            row.name = _name(name)
        if drift_policy is not None:
            row.drift_policy = _policy(drift_policy)
        present = endpoint_of(row)
        endpoint = Endpoint(
            present.base_url if base_url is None else _base_url(base_url),
            present.workspace_id if workspace_id is None else str(workspace_id),
            _key(console_key, "console_key") if console_key else present.console_key,
            _key(dataset_key, "dataset_key") if dataset_key else present.dataset_key,
        )
        moved = endpoint != present
        if endpoint.workspace_id != present.workspace_id and stands_there(row):
            raise Conflict(
                "Knowledge bases stand in this workspace: take the connection out of their "
                "settings first, and make another one.",
                code="connection_in_use",
                param="workspace_id",
            )
        if moved:
            _require_unshared(row, context)
            report = _tried(tenant_id, endpoint)
            seal(row, endpoint)
            apply_outcome(row, report, timezone.now())
        with intent_about(ConnectionEvent.EDIT, row, address=row.base_url):
            _save(row)
            bring_forward(tenant_id, row.pk, timezone.now())
            if moved and row.shared:
                _move_copies(context, row, endpoint, report)
    return row


def _require_unshared(row: Connection, context: Context) -> None:
    if row.shared_from is not None:
        raise Conflict("The connection is a shared one: change it where it was made.")
    if row.shared:
        require(context, Action.CONNECTION_SHARE)


def _move_copies(context: Context, row: Connection, endpoint: Endpoint, report: Report) -> None:
    """The other tenants' rows follow the one that they were made of."""
    reason = "a shared connection leads elsewhere"
    with platform_scope(context, reason=reason):
        for copy in Connection.objects.select_for_update().filter(shared_from=row.id):
            seal(copy, endpoint)
            apply_outcome(copy, report, timezone.now())
            copy.save()


def delete_connection(*, context: Context, connection_id: UUID, forget: bool = False) -> None:
    """Forgets a connection and its keys; in Dify nothing is changed.

    Args:
        forget: what stood there and is still to be deleted there, too.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here.
        Conflict: other tenants have copies of it, knowledge bases stand or apps run there, or what
            stood there has not been deleted yet.
    """
    require(context, Action.CONNECTION_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        row = _locked(connection_id)
        if row.shared and row.shared_from is None and _copies(context, row):
            raise Conflict("Other tenants share the connection: delete theirs first.")
        _refuse_used(row, forget=forget)
        with intent_about(ConnectionEvent.DELETE, row, address=row.base_url):
            row.delete()


def _refuse_used(row: Connection, *, forget: bool) -> None:
    bases = KnowledgeBase.objects.filter(connection_id=row.pk).order_by("name")
    named = list(bases.values_list("name", flat=True)[:10])
    if named:
        raise Conflict(
            f"Knowledge bases stand there: {', '.join(named)}. Take the connection out of their "
            "settings first.",
            code="connection_in_use",
        )
    apps = App.objects.filter(deployments__connection_id=row.pk).order_by("name")
    running = list(apps.values_list("name", flat=True)[:10])
    if running:
        raise Conflict(
            f"Apps run there: {', '.join(running)}. Let them run in the portal first.",
            code="connection_in_use",
        )
    if not forget and stands_there(row):
        raise Conflict(
            "What stood there is still being deleted in Dify: wait for it, or have it forgotten, "
            "so that it stays there.",
            code="connection_in_use",
        )


def stands_there(row: Connection) -> bool:
    """Whether something of ours stands in the workspace, or may."""
    return RemoteObject.objects.filter(connection_id=row.pk, gone=False).exists()


def _copies(context: Context, row: Connection) -> bool:
    with platform_scope(context, reason="whether a connection is shared still"):
        return Connection.objects.filter(shared_from=row.id).exists()


# -- checking ----------------------------------------------------------------------------------


def check_connection(*, context: Context, connection_id: UUID) -> Connection:
    """Tries a connection now; what is found stands in the connection that comes back.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here.
        TooMany: another connection of the tenant is being tried.
    """
    require(context, Action.CONNECTION_EDIT)
    tenant_id = require_tenant(context)
    with tenant_scope(context):
        row = _locked(connection_id)
        _one_at_a_time(tenant_id)
        endpoint = endpoint_of(row)
        with intent_about(ConnectionEvent.CHECK, row, address=row.base_url):
            return write_outcome(row, look(endpoint))


def _tried(tenant_id: UUID, endpoint: Endpoint) -> Report:
    """What an endpoint is found to be.

    Raises:
        DifyFault: it can't be worked with.
    """
    _one_at_a_time(tenant_id)
    outcome = look(endpoint)
    if isinstance(outcome, DifyFault):
        raise outcome
    return outcome


def _one_at_a_time(tenant_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"dify connection {tenant_id}"],
        )
        if not cursor.fetchone()[0]:
            raise TooMany("Another connection is being tried; try again in a moment.")


# -- sharing and the licence -------------------------------------------------------------------


def share_connection(
    *, context: Context, connection_id: UUID, tenant_id: UUID, organisation: str
) -> Connection:
    """Gives another tenant of the same organisation a connection to the same workspace.

    Dify's licence allows one workspace to be used by one organisation; which one is written down,
    and every further tenant must be of it. The other tenant sees no key, and not this tenant.

    Returns:
        The other tenant's connection.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here, or no such tenant.
        Invalid: no organisation, or one that is too long.
        Conflict: it is shared among another organisation, or with this tenant already.
    """
    require(context, Action.CONNECTION_SHARE)
    own_tenant = require_tenant(context)
    named = clean_text(organisation, "organisation", most=MOST_ORGANISATION_CHARS, least=1)
    with tenant_scope(context):
        row = _locked(connection_id)
        if row.shared_from is not None:
            raise Conflict("The connection is a shared one: share it where it was made.")
        if row.shared and row.organisation != named:
            raise Conflict(
                f"The connection is shared within {row.organisation}; tenants of another "
                "organisation need an instance of their own.",
                param="organisation",
            )
        if tenant_id == own_tenant:
            raise Conflict("The connection is this tenant's own.", param="tenant_id")
        endpoint = endpoint_of(row)
        row.organisation = named
        with intent_about(ConnectionEvent.SHARE, row, tenant=str(tenant_id), organisation=named):
            row.save(update_fields=["organisation"])
            return _copy(context, tenant_id, row, endpoint)


def _copy(context: Context, tenant_id: UUID, row: Connection, endpoint: Endpoint) -> Connection:
    """Another tenant's connection to where a row leads, written across tenants."""
    inside = replace(context, tenant_id=tenant_id)
    with platform_scope(inside, reason="a connection is shared within an organisation"):
        tenant = Tenant.objects.filter(id=tenant_id, state=TenantState.ACTIVE).first()
        if tenant is None:
            raise NotFound("There is no such tenant, or it is not active.")
        if Connection.objects.filter(tenant_id=tenant.id, shared_from=row.id).exists():
            raise Conflict("The tenant shares the connection already.", param="tenant_id")
        copy = Connection(
            tenant_id=tenant.id,
            name=row.name,
            drift_policy=row.drift_policy,
            shared_from=row.id,
            organisation=row.organisation,
            licence_reference=row.licence_reference,
            licence_confirmed_by=row.licence_confirmed_by,
            licence_confirmed_at=row.licence_confirmed_at,
            **{field: getattr(row, field) for field in OUTCOME_FIELDS},
        )
        seal(copy, endpoint)
        with intent_about(ConnectionEvent.CREATE, copy, organisation=row.organisation):
            _save(copy, force_insert=True)
    return copy


def confirm_licence(*, context: Context, connection_id: UUID, reference: str) -> Connection:
    """Writes down that a licence for several workspaces is held, by whose word and when.

    Args:
        reference: where it stands, such as the number of the agreement.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here.
        Invalid: no reference, or one that is too long.
    """
    require(context, Action.CONNECTION_SHARE)
    require_tenant(context)
    where = clean_text(reference, "reference", most=MOST_REFERENCE_CHARS, least=3)
    with tenant_scope(context):
        row = _locked(connection_id)
        row.licence_reference = where
        row.licence_confirmed_by = context.actor.label
        row.licence_confirmed_at = timezone.now()
        with intent_about(ConnectionEvent.CONFIRM_LICENCE, row, reference=where):
            row.save(
                update_fields=[
                    "licence_reference", "licence_confirmed_by", "licence_confirmed_at",
                ]
            )  # fmt: skip
    return row


def create_workspace(
    *, context: Context, connection_id: UUID, name: str, owner_email: str, inner_key: str
) -> Workspace:
    """Makes a workspace in the connection's Dify, for a connection of its own.

    Args:
        owner_email: of an account of that Dify.
        inner_key: Dify's ``INNER_API_KEY``; it is used this once and kept nowhere.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here.
        Invalid: naming the field that is wrong.
        LicenceUnconfirmed: nobody has confirmed that a licence is held.
        DifyFault: Dify did not make it.
    """
    require(context, Action.CONNECTION_SHARE)
    require_tenant(context)
    called = clean_text(name, "name", most=MOST_NAME_CHARS, least=1)
    owner = clean_email(owner_email, "owner_email")
    key = _key(inner_key, "inner_key")
    with tenant_scope(context):
        row = _locked(connection_id)
        if row.licence_confirmed_at is None:
            raise LicenceUnconfirmed
        with (
            intent_about(ConnectionEvent.CREATE_WORKSPACE, row, workspace=called, owner=owner),
            open_channel(row.base_url, call_seconds=CALL_SECONDS) as channel,
        ):
            return InnerApi(channel, key).create_workspace(name=called, owner_email=owner)


# -- what is given -----------------------------------------------------------------------------


def _name(text: str) -> str:
    return clean_text(text, "name", most=MOST_NAME_CHARS, least=1)


def _policy(text: str) -> str:
    if text not in DriftPolicy.values:
        raise Invalid("'drift_policy' must be ours, theirs or ask.", param="drift_policy")
    return text


def _key(text: str, param: str) -> str:
    key = text.strip()
    if not _KEY.fullmatch(key):
        raise Invalid(
            f"'{param}' must be 8 to {MOST_KEY_CHARS} printable characters without blanks.",
            param=param,
        )
    return key


def _base_url(text: str) -> str:
    """The address without a trailing slash; one that is written as a number is checked here.

    Raises:
        Invalid: it is no address of a Dify.
        AddressNotAllowed: the operator allows no calls there.
    """
    trimmed = text.strip().rstrip("/")
    wrong = url_fault(trimmed)
    if not wrong and len(trimmed) > MOST_URL_CHARS:
        wrong = f"must have at most {MOST_URL_CHARS} characters"
    if not wrong and httpx.URL(trimmed).query:
        wrong = "must have no query (?)"
    if wrong:
        raise Invalid(f"The address {wrong}.", param="base_url")
    url = httpx.URL(trimmed)
    literal = literal_address(url)
    if literal is not None and not dify_targets().allowed([literal], url.scheme):
        raise AddressNotAllowed
    return trimmed


# -- rows --------------------------------------------------------------------------------------


def _locked(connection_id: UUID) -> Connection:
    """The connection, locked until the scope ends.

    Raises:
        NotFound: none of this tenant.
    """
    row = Connection.objects.select_for_update().filter(pk=connection_id).first()
    if row is None:
        raise NotFound("There is no such connection.")
    return row


def _save(row: Connection, *, force_insert: bool = False) -> None:
    try:
        with transaction.atomic():
            row.save(force_insert=force_insert)
    except IntegrityError:
        raise Conflict(f"There is already a connection '{row.name}'.", param="name") from None
