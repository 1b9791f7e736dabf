"""Every change of a governed row is in the trail, however it was made, or it was not made."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pytest
from celery import Celery
from django.db import IntegrityError, connection, transaction
from django.db.utils import ProgrammingError

from audit.services import intent
from portal.core.actors import NIL_TENANT, Context
from portal.core.ids import uuid7
from portal.core.tenancy import platform_scope, tenant_scope
from tenants.models import ApiKey, Membership, Quota, Tenant, User
from tests.audit.trail import changes_of, event, events_of_tenant
from tests.factories import Organisation

# Tables that a role of the product may write and that have no row trigger, and why.
UNGOVERNED = {
    "audit_event": "the trail itself",
    "audit_body": "the trail itself",
    "audit_leaf": "the trail itself",
    "tenants_ledgerentry": "append-only by itself",
    "tenants_quotawarning": "written by the product alone, each with an event of its own",
    "tenants_usagebucket": "sums of the ledger, which a command compares with it",
    "tenants_usagewatermark": "how far the ledger is rolled up",
    "tenants_closurestep": "what a deletion erased; the certificate tells it",
    "tenants_tenantcertificate": "append-only by itself; its issue is an event",
    "tenants_tenantexport": "written by the product alone, each turn with an event of its own",
    "tenants_quotawindow": "counters; ledger and trail tell what moved them",
    "tenants_apikeyuse": "when keys were used; their calls are events of their own",
    "inference_job": "recorded by two job events each",
    "inference_jobpayload": "prompts never enter the trail",
    "inference_webhookdelivery": "what ends it, or begins it anew, is an event of its own",
    "inference_webhookattempt": "append-only by itself",
    "inference_fairshare": "virtual clocks",
    "inference_file": "uploads and deletions are events of their own",
    "inference_filechunk": "contents never enter the trail",
    "inference_batch": "each call, and each of its jobs, is an event of its own",
    "inference_batchline": "what they become is recorded by their jobs' events",
    "inference_idempotencykey": "written with the job, whose admission is audited",
    "inference_deploymentclock": "virtual clocks",
    "inference_queueforecast": "rewritten every second from the queue itself",
    "inference_worker": "heartbeats",
    "inference_modelcheck": "how far a check of files is; that it was asked for is an event",
    "knowledge_chunk": "passages of documents never enter the trail",
    "knowledge_chunkvector": "made of passages, which never enter the trail",
    "knowledge_conversation": "what was said never enters the trail",
    "knowledge_appmessage": "what was said never enters the trail",
    "knowledge_evaluation": "never changed; scenario.evaluate tells of each",
    "knowledge_sync": "whose turn it is; what people ask, and a fault, is an event",
    "knowledge_remoteobject": "what was seen in Dify; decisions and deletions are events",
    "knowledge_deletionreceipt": "never changed; each deletion is an event",
    "knowledge_sourcerun": "how far a run is; who asked for it, and a fault, is an event",
    "knowledge_sourceitem": "what a source gave last; its documents are governed",
    "knowledge_streamevent": "what events say never enters the trail",
    "knowledge_triggerrun": "what was asked and answered never enters the trail",
    "knowledge_appusage": "counters; ledger and trail tell what moved them",
    "knowledge_portalindify": "written by the product alone; its keys are events of their own",
    "knowledge_documentversion": "texts never enter the trail; uploads are events of their own",
    "django_session": "log-ins are events of their own",
}


@pytest.fixture
def key(tenant_a: Organisation) -> ApiKey:
    with tenant_scope(tenant_a.context):
        return _key(tenant_a)


def _new_key(organisation: Organisation) -> ApiKey:
    return ApiKey(
        tenant_id=organisation.id,
        user=organisation.developer.user,
        name="till",
        public_id=uuid7().hex[-16:],
        secret_hmac=b"first secret",
        pepper_version=1,
        scopes=["inference"],
    )


def _key(organisation: Organisation) -> ApiKey:
    key = _new_key(organisation)
    key.save(force_insert=True)
    return key


def test_every_table_that_the_product_writes_is_governed(owner_sql: psycopg.Connection) -> None:
    written = owner_sql.execute(
        "SELECT DISTINCT c.relname, EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid "
        "  AND t.tgname = 'audit_row_change' AND t.tgenabled = 'O') "
        "FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner "
        "AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE') AND NOT c.relispartition "
        "AND c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
    ).fetchall()
    assert {name for name, governed in written if not governed} == set(UNGOVERNED)
    assert {name for name, governed in written if governed} >= {"tenants_apikey", "tenants_user"}


def test_insert_records_the_row_and_who_made_it(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection
) -> None:
    (change,) = changes_of(owner_sql, key.id)
    assert change.action == "tenants.apikey.insert"
    assert change.outcome == "success"
    assert change.tenant_id == tenant_a.id
    assert (change.object_type, change.object_label) == ("tenants.apikey", "till")
    assert change.before is None
    assert change.after is not None
    assert change.after["name"] == "till"
    context = tenant_a.owner.context
    assert change.actor_type == "user"
    assert change.actor_id == tenant_a.owner.user.id
    assert change.actor_label == tenant_a.owner.user.email
    assert change.auth_method == "session"
    assert change.address == context.address
    assert change.request_id == context.request_id


def _raw(statement: str) -> Callable[[ApiKey], None]:
    def run(key: ApiKey) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, ["desk", key.id])

    return run


def _save(key: ApiKey) -> None:
    key.name = "desk"
    key.save(update_fields=["name"])


def _bulk_update(key: ApiKey) -> None:
    key.name = "desk"
    ApiKey.objects.bulk_update([key], ["name"])


def _executemany(key: ApiKey) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE tenants_apikey SET name = %s WHERE id = %s", [["desk", key.id]])


UPDATES: dict[str, Callable[[ApiKey], object]] = {
    "save": _save,
    "update()": lambda key: ApiKey.objects.filter(pk=key.pk).update(name="desk"),
    "bulk_update": _bulk_update,
    "raw SQL": _raw("UPDATE tenants_apikey SET name = %s WHERE id = %s"),
    "executemany": _executemany,
    "update_or_create": lambda key: ApiKey.objects.update_or_create(
        pk=key.pk, defaults={"name": "desk"}
    ),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_update_by_any_way_records_before_and_after(
    tenant_a: Organisation,
    key: ApiKey,
    owner_sql: psycopg.Connection,
    update: Callable[[ApiKey], object],
) -> None:
    with tenant_scope(tenant_a.developer.context):
        update(key)
    _, change = changes_of(owner_sql, key.id)
    assert change.action == "tenants.apikey.update"
    assert change.before is not None
    assert change.after is not None
    assert (change.before["name"], change.after["name"]) == ("till", "desk")
    assert change.actor_id == tenant_a.developer.user.id


def test_bulk_create_records_every_row(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    keys = [_new_key(tenant_a) for _ in range(50)]
    with tenant_scope(tenant_a.context):
        ApiKey.objects.bulk_create(keys)
    for key in keys:
        (change,) = changes_of(owner_sql, key.id)
        assert change.actor_id == tenant_a.owner.user.id


@pytest.mark.parametrize("way", ["delete()", "queryset", "raw SQL"])
def test_delete_by_any_way_records_what_was_there(
    tenant_a: Organisation, owner_sql: psycopg.Connection, way: str
) -> None:
    with tenant_scope(tenant_a.context):
        membership = Membership.objects.get(user=tenant_a.viewer.user)
        member = membership.id
        if way == "delete()":
            membership.delete()
        elif way == "queryset":
            Membership.objects.filter(pk=member).delete()
        else:
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM tenants_membership WHERE id = %s", [member])
    change = changes_of(owner_sql, member)[-1]
    assert change.action == "tenants.membership.delete"
    assert change.after is None
    assert change.before is not None
    assert change.before["role"] == "viewer"
    assert change.actor_id == tenant_a.owner.user.id


def test_update_that_changes_nothing_records_nothing(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection
) -> None:
    with tenant_scope(tenant_a.context):
        ApiKey.objects.filter(pk=key.pk).update(name="till")
    assert len(changes_of(owner_sql, key.id)) == 1


def test_change_of_ignored_column_alone_records_nothing(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    user = tenant_a.owner.user
    before = len(changes_of(owner_sql, user.id))
    with tenant_scope(tenant_a.context):
        User.objects.filter(pk=user.pk).update(last_login=datetime.now(UTC))
    assert len(changes_of(owner_sql, user.id)) == before
    with tenant_scope(tenant_a.context):
        User.objects.filter(pk=user.pk).update(last_login=datetime.now(UTC), full_name="New Name")
    assert len(changes_of(owner_sql, user.id)) == before + 1


def test_secret_of_key_never_enters_the_trail(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection
) -> None:
    with tenant_scope(tenant_a.context):
        ApiKey.objects.filter(pk=key.pk).update(secret_hmac=b"second secret")
    made, changed = changes_of(owner_sql, key.id)
    assert made.after is not None
    assert made.after["secret_hmac"] == "[redacted]"
    assert changed.before is not None
    assert changed.after is not None
    assert changed.before["secret_hmac"] == "[redacted]"
    assert changed.after["secret_hmac"] == "[redacted, changed]"
    bodies = owner_sql.execute(
        "SELECT coalesce(before::text, '') || coalesce(after::text, '') FROM audit_body "
        "WHERE tenant_id = %s",
        [tenant_a.id],
    ).fetchall()
    for secret in (b"first secret", b"second secret"):
        assert not any(secret.hex() in body or secret.decode() in body for (body,) in bodies)


def test_password_hash_never_enters_the_trail(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    user = tenant_a.owner.user
    user.set_password("correct horse battery staple")
    with tenant_scope(tenant_a.context):
        user.save(update_fields=["password"])
    change = changes_of(owner_sql, user.id)[-1]
    assert change.after is not None
    assert change.after["password"] == "[redacted, changed]"
    assert user.password not in str(change)


def test_change_of_a_person_belongs_to_the_platform(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    assert {c.tenant_id for c in changes_of(owner_sql, tenant_a.owner.user.id)} == {NIL_TENANT}


def test_change_of_a_tenant_belongs_to_that_tenant(
    tenant_a: Organisation, owner_sql: psycopg.Connection, system_admin: Context
) -> None:
    with platform_scope(system_admin, reason="test"):
        Tenant.objects.filter(pk=tenant_a.id).update(weight=7)
    change = changes_of(owner_sql, tenant_a.id)[-1]
    assert change.tenant_id == tenant_a.id
    assert change.actor_id == system_admin.user_id


def test_change_without_context_names_the_database_login(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection
) -> None:
    owner_sql.execute("UPDATE tenants_apikey SET name = 'by hand' WHERE id = %s", [key.id])
    change = changes_of(owner_sql, key.id)[-1]
    assert (change.actor_type, change.actor_label) == ("database", "db:postgres")
    assert change.actor_id is None
    assert change.tenant_id == tenant_a.id


def test_change_of_a_person_outside_a_scope_names_the_database_login(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    user = tenant_a.owner.user
    User.objects.filter(pk=user.pk).update(full_name="Nobody Said")
    change = changes_of(owner_sql, user.id)[-1]
    assert (change.actor_type, change.actor_label) == ("database", "db:portal_app")


def test_change_points_to_the_intent_it_was_made_under(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    with tenant_scope(tenant_a.context):
        with intent("key.create", object_type="tenants.apikey", reason="new till") as outer:
            first = _key(tenant_a)
            with intent("key.create", object_type="tenants.apikey") as inner:
                second = _key(tenant_a)
            third = _key(tenant_a)
        loose = _key(tenant_a)
    links = [changes_of(owner_sql, key.id)[0].intent_id for key in (first, second, third, loose)]
    assert links == [outer, inner, outer, None]
    told = event(owner_sql, outer)
    assert (told.category, told.action, told.reason) == ("intent", "key.create", "new till")
    assert told.actor_id == tenant_a.owner.user.id


def test_intent_and_its_changes_carry_one_transaction_id(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    with tenant_scope(tenant_a.context), intent("key.create") as made:
        key = _key(tenant_a)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()::text::bigint")
            (xid,) = cursor.fetchone()
    assert {event(owner_sql, made).xid, changes_of(owner_sql, key.id)[0].xid} == {xid}


def test_failed_save_leaves_no_trace(tenant_a: Organisation, owner_sql: psycopg.Connection) -> None:
    before = events_of_tenant(owner_sql, tenant_a.id)
    with pytest.raises(IntegrityError), tenant_scope(tenant_a.context), intent("quota.create"):
        Quota.objects.create(tenant=tenant_a.tenant)
    assert events_of_tenant(owner_sql, tenant_a.id) == before


def test_rolled_back_savepoint_leaves_only_what_was_kept(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    with tenant_scope(tenant_a.context):
        kept = _key(tenant_a)
        with transaction.atomic():
            lost = _key(tenant_a)
            transaction.set_rollback(True)
    assert len(changes_of(owner_sql, kept.id)) == 1
    assert changes_of(owner_sql, lost.id) == []


@contextmanager
def _refusing_sink(superuser: psycopg.Connection, table: str, role: str) -> Iterator[None]:
    """Takes a role's right to write the trail, as a broken installation would."""
    superuser.execute(f"REVOKE INSERT ON {table} FROM {role}".encode())
    try:
        yield
    finally:
        superuser.execute(f"GRANT INSERT ON {table} TO {role}".encode())


@pytest.mark.parametrize("table", ["audit_event", "audit_body"])
def test_change_that_cannot_be_recorded_is_not_made(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection, table: str
) -> None:
    with _refusing_sink(owner_sql, table, "audit_writer"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            with tenant_scope(tenant_a.context):
                ApiKey.objects.filter(pk=key.pk).update(name="unseen")
    with tenant_scope(tenant_a.context):
        assert ApiKey.objects.get(pk=key.pk).name == "till"


def test_service_whose_intent_cannot_be_recorded_does_not_run(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    ran = False
    with _refusing_sink(owner_sql, "audit_event", "portal_app"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            with tenant_scope(tenant_a.context), intent("key.create"):
                ran = True
    assert not ran


def test_change_that_fits_no_partition_lands_in_the_default_one(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    stray = uuid7()
    owner_sql.execute(
        "INSERT INTO audit_event (id, recorded_at, tenant_id, category, action, outcome, "
        "actor_type) VALUES (%s, '2001-01-01', %s, 'call', 'x', 'success', 'user')",
        [stray, tenant_a.id],
    )
    found = owner_sql.execute("SELECT 1 FROM audit_event_default WHERE id = %s", [stray])
    assert found.fetchone() is not None


@pytest.mark.parametrize(
    "statement",
    [
        "SET session_replication_role = replica",
        "ALTER TABLE tenants_apikey DISABLE TRIGGER audit_row_change",
        "DROP TRIGGER audit_row_change ON tenants_apikey",
        "ALTER FUNCTION audit_row_change() RENAME TO gone",
        (
            "CREATE OR REPLACE FUNCTION audit_row_change() RETURNS trigger LANGUAGE plpgsql "
            "AS 'BEGIN RETURN NULL; END'"
        ),
        "CREATE TEMP TABLE audit_event (id uuid)",
        "CREATE TABLE audit_shadow (id uuid)",
    ],
)
@pytest.mark.usefixtures("database")
def test_switch_recording_off_as_the_app_is_refused(
    app_sql: psycopg.Connection, statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app_sql.execute(statement.encode())


def _in_thread(work: Callable[[], None]) -> None:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


def test_thread_in_a_scope_of_its_own_keeps_the_actor(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection
) -> None:
    def rename() -> None:
        with tenant_scope(tenant_a.developer.context):
            ApiKey.objects.filter(pk=key.pk).update(name="from a thread")

    _in_thread(rename)
    assert changes_of(owner_sql, key.id)[-1].actor_id == tenant_a.developer.user.id


def test_celery_task_in_a_scope_keeps_the_actor(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection
) -> None:
    app = Celery("tests", broker="memory://")

    @app.task(name="tests.rename")
    def rename() -> None:
        with tenant_scope(Context.system("sweeper", tenant_id=tenant_a.id)):
            ApiKey.objects.filter(pk=key.pk).update(name="from a task")

    _in_thread(lambda: rename.apply().get())
    change = changes_of(owner_sql, key.id)[-1]
    assert (change.actor_type, change.actor_label) == ("system", "sweeper")


def test_actor_of_one_scope_does_not_reach_the_next(
    tenant_a: Organisation, key: ApiKey, owner_sql: psycopg.Connection
) -> None:
    with tenant_scope(tenant_a.developer.context), intent("key.rename"):
        ApiKey.objects.filter(pk=key.pk).update(name="one")
    with tenant_scope(tenant_a.owner.context):
        ApiKey.objects.filter(pk=key.pk).update(name="two")
    change = changes_of(owner_sql, key.id)[-1]
    assert change.actor_id == tenant_a.owner.user.id
    assert change.intent_id is None
