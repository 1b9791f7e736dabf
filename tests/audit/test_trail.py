"""Events as they are written and read: fields, readers, partitions, the readable diff."""

from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
from django.db.utils import ProgrammingError

from audit.models import AuditBody, AuditEvent, Category, LogEntry, Outcome
from audit.services import Event, ensure_partitions, record
from portal.core.actors import ANONYMOUS, NIL_TENANT, Actor, ActorType, Context
from portal.core.database_roles import database_roles
from portal.core.tenancy import bare_scope, platform_scope, role_scope, tenant_scope
from tenants.models import Quota
from tests.audit.trail import event
from tests.factories import Organisation

CALL = Category.CALL


def _record(context: Context, what: Event) -> UUID:
    with tenant_scope(context):
        return record(what)


def test_record_event_writes_every_field(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context = replace(
        tenant_a.context,
        on_behalf_of=tenant_a.viewer.user.id,
        api_key_id=tenant_a.id,
        client_request_id="theirs",
    )
    made = _record(
        context,
        Event(
            CALL,
            "GET /v1/models",
            Outcome.DENIED,
            reason="no scope",
            object_type="thing",
            object_id="7",
            object_label="a thing",
            detail={"status": 403},
        ),
    )
    told = event(owner_sql, made)
    assert (told.category, told.action, told.outcome) == ("call", "GET /v1/models", "denied")
    assert (told.reason, told.detail) == ("no scope", {"status": 403})
    assert (told.object_type, told.object_id, told.object_label) == ("thing", "7", "a thing")
    assert (told.on_behalf_of, told.api_key_id) == (context.on_behalf_of, context.api_key_id)
    assert (told.request_id, told.client_request_id) == (context.request_id, "theirs")
    assert told.tenant_id == tenant_a.id


def test_record_event_with_overlong_fields_cuts_them(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context = replace(
        tenant_a.context,
        actor=Actor(ActorType.USER, tenant_a.owner.user.id, "l" * 500),
        request_id="r" * 300,
        client_request_id="c" * 300,
    )
    made = _record(
        context,
        Event(CALL, "a" * 300, Outcome.SUCCESS, "w" * 900, "thing", "i" * 300, "o" * 900),
    )
    told = event(owner_sql, made)
    assert told.client_request_id == "c" * 128
    assert (len(told.request_id), len(told.actor_label), len(told.action)) == (64, 254, 80)


def test_change_row_with_overlong_context_is_recorded_and_cut(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context = replace(
        tenant_a.context,
        actor=Actor(ActorType.USER, tenant_a.owner.user.id, "l" * 500),
        request_id="r" * 300,
        client_request_id="c" * 300,
    )
    with tenant_scope(context):
        Quota.objects.update(tokens_day=5)
    (label,) = owner_sql.execute(
        "SELECT actor_label FROM audit_event WHERE tenant_id = %s AND request_id = %s",
        [tenant_a.id, "r" * 64],
    ).fetchone() or ("",)
    assert label == "l" * 254


def test_record_event_of_a_stranger_belongs_to_the_platform(
    database: None, owner_sql: psycopg.Connection
) -> None:
    with bare_scope(Context(actor=ANONYMOUS, address="198.51.100.1")):
        made = record(Event(Category.AUTH, "log-in", Outcome.DENIED))
    told = event(owner_sql, made)
    assert (told.tenant_id, told.actor_type) == (NIL_TENANT, "anonymous")


def test_record_event_outside_a_scope_is_refused(tenant_a: Organisation) -> None:
    with pytest.raises(RuntimeError):
        record(Event(CALL, "x", Outcome.SUCCESS), context=tenant_a.context)


def test_record_event_for_another_tenant_is_refused(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"):
        with tenant_scope(tenant_a.context):
            record(Event(CALL, "x", Outcome.SUCCESS), context=tenant_b.context)


def test_read_trail_in_a_tenants_scope_is_refused(tenant_a: Organisation) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), tenant_scope(tenant_a.context):
        AuditEvent.objects.count()


def test_read_trail_in_the_platforms_scope_is_refused(system_admin: Context) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        with platform_scope(system_admin, reason="test"):
            AuditEvent.objects.count()


def test_reader_of_one_tenant_sees_that_tenants_events_alone(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    for organisation in (tenant_a, tenant_b):
        _record(organisation.context, Event(CALL, "x", Outcome.SUCCESS, detail={"a": 1}))
    with role_scope(tenant_a.auditor.context, database_roles().audit_reader):
        for model in (AuditEvent, AuditBody, LogEntry):
            rows = model._default_manager
            seen = (
                {row["tenant_id"] for row in rows.values("tenant_id")}
                if (model is not LogEntry)
                else {tenant_a.id for _ in rows.all()}
            )
            assert seen == {tenant_a.id}
        assert not AuditEvent.objects.filter(tenant_id=tenant_b.id).exists()


def test_reader_of_all_sees_every_tenants_events(
    tenant_a: Organisation, tenant_b: Organisation, audit_admin: Context
) -> None:
    with role_scope(audit_admin, database_roles().audit_reader_all):
        for organisation in (tenant_a, tenant_b):
            assert AuditEvent.objects.filter(tenant_id=organisation.id).exists()


def test_readable_diff_shows_the_columns_that_changed(tenant_a: Organisation) -> None:
    with tenant_scope(tenant_a.context):
        quota = Quota.objects.get()
        Quota.objects.filter(pk=quota.pk).update(tokens_day=1000)
    with role_scope(tenant_a.auditor.context, database_roles().audit_reader):
        entry = LogEntry.objects.get(object_pk=str(quota.pk), action=LogEntry.Action.UPDATE)
        assert entry.changes_dict == {"tokens_day": ["None", "1000"]}
        assert entry.changes_str == "tokens_day: None \N{RIGHTWARDS ARROW} 1000"
        assert entry.changes_display_dict == {"tokens a day": ["None", "1000"]}
        assert entry.actor_email == tenant_a.owner.user.email


def test_readable_diff_hides_other_tenants_entries(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    with tenant_scope(tenant_b.context):
        theirs = Quota.objects.get()
    with role_scope(tenant_a.auditor.context, database_roles().audit_reader):
        assert LogEntry.objects.exists()
        assert not LogEntry.objects.filter(object_pk=str(theirs.pk)).exists()


def test_library_writes_no_log_entry_of_its_own(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    with tenant_scope(tenant_a.context):
        Quota.objects.update(tokens_day=3)
    assert owner_sql.execute("SELECT count(*) FROM auditlog_logentry").fetchone() == (0,)


def test_event_ids_are_version_7_and_sort_by_time(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    rows = owner_sql.execute(
        "SELECT id, recorded_at FROM audit_event WHERE tenant_id = %s AND category = 'change'",
        [tenant_a.id],
    ).fetchall()
    assert len(rows) >= 5
    for made, recorded_at in rows:
        assert made.version == 7
        assert abs((made.int >> 80) - recorded_at.timestamp() * 1000) <= 1


def test_nothing_cascades_into_the_trail(database: None, owner_sql: psycopg.Connection) -> None:
    keys = owner_sql.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text "
        "LIKE 'audit%' AND conrelid::regclass::text NOT LIKE 'auditlog%'"
    ).fetchall()
    assert keys == []


def test_ensure_partitions_again_makes_none(database: None) -> None:
    ensure_partitions(months=3)
    assert ensure_partitions(months=3) == 0


def test_ensure_partitions_further_ahead_makes_closed_ones(
    database: None, owner_sql: psycopg.Connection
) -> None:
    ensure_partitions(months=3)
    made = ensure_partitions(months=5)
    assert made == 6
    opened = owner_sql.execute(
        "SELECT relname FROM pg_class c WHERE relispartition AND relkind = 'r' "
        "AND relname LIKE 'audit%%' AND (NOT relrowsecurity OR NOT relforcerowsecurity OR EXISTS "
        "(SELECT 1 FROM aclexplode(relacl) WHERE grantee <> relowner))"
    ).fetchall()
    assert opened == []


@pytest.mark.parametrize("role", ["gateway", "sealer"])
def test_ensure_partitions_as_another_role_is_refused(
    database: None, request: pytest.FixtureRequest, role: str
) -> None:
    other: psycopg.Connection = request.getfixturevalue(f"{role}_sql")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.execute("SELECT audit_ensure_partitions(1)")


def test_reader_names_a_partition_directly_is_refused(
    tenant_a: Organisation, app_sql: psycopg.Connection
) -> None:
    with app_sql.transaction(), pytest.raises(psycopg.errors.InsufficientPrivilege):
        app_sql.execute("SET LOCAL ROLE audit_reader_all")
        app_sql.execute("SELECT * FROM audit_event_default")
