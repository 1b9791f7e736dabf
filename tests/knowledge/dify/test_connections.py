"""Connections: made of what works, their keys shut away, one tenant's apart from another's."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest

from knowledge.connections import services
from knowledge.connections.selectors import connections, licence_needed
from knowledge.connections.vault import endpoint_of, open_dify
from knowledge.dify import errors
from knowledge.dify.channel import Endpoint
from knowledge.models import Connection, Health
from portal.core.actors import Context
from portal.core.crypto import InvalidCiphertext
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound, PortalError
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, unique
from tests.knowledge.dify.double import DifyDouble


def connect(context: Context, endpoint: Endpoint, **changed: Any) -> Connection:
    given = {
        "name": unique("dify"),
        "base_url": endpoint.base_url,
        "workspace_id": UUID(endpoint.workspace_id),
        "console_key": endpoint.console_key,
        "dataset_key": endpoint.dataset_key,
    }
    return services.create_connection(context=context, **{**given, **changed})


def rows(context: Context) -> list[Connection]:
    with tenant_scope(context):
        return list(connections())


def inside(administrator: Context, organisation: Organisation) -> Context:
    """An administrator of the platform who has entered a tenant."""
    return replace(administrator, tenant_id=organisation.id)


def actions(owner_sql: psycopg.Connection, tenant: UUID) -> list[str]:
    found = owner_sql.execute(
        "SELECT action FROM audit_event WHERE tenant_id = %s AND action LIKE 'connection.%%' "
        "ORDER BY id",
        [tenant],
    )
    return [row[0] for row in found.fetchall()]


def test_create_connection_keeps_what_was_found(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation
) -> None:
    dify.own.embedding = True
    made = connect(tenant_a.owner.context, endpoint)
    assert (made.version, made.health) == ("1.16.0", Health.HEALTHY)
    assert made.workspace_name == "admin's Workspace"
    assert made.capabilities == {
        "high_quality": True,
        "gateway_provider": True,
        "workspaces": 2,
        "licensed": False,
    }
    assert [row.pk for row in rows(tenant_a.owner.context)] == [made.pk]


def test_create_connection_changes_nothing_in_dify(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation
) -> None:
    connect(tenant_a.owner.context, endpoint)
    assert {seen.request.method for seen in dify.seen} == {"GET"}


def test_keys_are_encrypted_and_in_no_event(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    row = owner_sql.execute(
        "SELECT c::text FROM knowledge_connection c WHERE id = %s", [made.id]
    ).fetchone()
    trail = owner_sql.execute(
        "SELECT coalesce(string_agg(b::text, ' '), '') FROM audit_body b WHERE tenant_id = %s",
        [tenant_a.id],
    ).fetchone()
    assert row is not None
    assert trail is not None
    assert "dify" in row[0]
    assert str(made.workspace_id) in trail[0]
    for secret in (endpoint.console_key, endpoint.dataset_key):
        for told in (row[0], trail[0], repr(made), str(vars(made))):
            assert secret not in told
            assert secret.encode().hex() not in told


def test_keys_of_one_row_do_not_open_in_another(endpoint: Endpoint, tenant_a: Organisation) -> None:
    context = tenant_a.owner.context
    first, second = connect(context, endpoint), connect(context, endpoint)
    with tenant_scope(context):
        assert endpoint_of(first) == endpoint
        second.sealed = first.sealed
        with pytest.raises(InvalidCiphertext):
            endpoint_of(second)


def test_open_dify_calls_with_the_connections_keys(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    with tenant_scope(tenant_a.owner.context):
        client = open_dify(made)
    with client:
        client.knowledge.create_dataset("HR")
    assert dify.dataset("HR").permission == "all_team_members"


def _wrong_console_key(dify: DifyDouble) -> None:
    dify.console_key = "another-key-than-given"


def _wrong_dataset_key(dify: DifyDouble) -> None:
    dify.own.keys.clear()


def _key_of_the_other_workspace(dify: DifyDouble) -> None:
    dify.other.keys.append(dify.own.keys.pop())


def _too_old(dify: DifyDouble) -> None:
    dify.version = "1.4.0"


def _too_new(dify: DifyDouble) -> None:
    dify.version = "2.0.0"


def _no_version(dify: DifyDouble) -> None:
    dify.version = ""


def _broken(dify: DifyDouble) -> None:
    dify.fail("failed", times=-1)


def _other_software(dify: DifyDouble) -> None:
    dify.fail("nonsense", times=-1)


def _redirecting(dify: DifyDouble) -> None:
    dify.fail("redirect", times=-1)


@pytest.mark.parametrize(
    ("trouble", "code", "blames", "says"),
    [
        (_wrong_console_key, "dify_console_key_refused", "console_key", "ADMIN_API_KEY_ENABLE"),
        (_wrong_dataset_key, "dify_dataset_key_refused", "dataset_key", "make one in Dify"),
        (_key_of_the_other_workspace, "dify_dataset_key_elsewhere", "dataset_key", "another"),
        (_too_old, "dify_version_unsupported", "base_url", "1.4.0: upgrade it"),
        (_too_new, "dify_version_unsupported", "base_url", "2.0.0"),
        (_no_version, "not_dify", "base_url", "is not Dify"),
        (_other_software, "not_dify", "base_url", "is not Dify"),
        (_redirecting, "dify_redirects", "base_url", "final address"),
        (_broken, "dify_failed", None, "failed"),
    ],
)
def test_create_connection_that_does_not_work_is_refused_and_not_saved(
    dify: DifyDouble,
    endpoint: Endpoint,
    tenant_a: Organisation,
    trouble: Callable[[DifyDouble], None],
    code: str,
    blames: str | None,
    says: str,
) -> None:
    trouble(dify)
    with pytest.raises(errors.DifyFault) as refused:
        connect(tenant_a.owner.context, endpoint)
    assert (refused.value.error_code, refused.value.param) == (code, blames)
    assert says in refused.value.message
    assert rows(tenant_a.owner.context) == []


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"base_url": "ftp://dify.test"}, "base_url"),
        ({"base_url": "http://u:p@dify.test"}, "base_url"),
        ({"base_url": "http://dify.test/?x=1"}, "base_url"),
        ({"base_url": "http://10.0.0.1"}, "base_url"),
        ({"base_url": "http://169.254.169.254"}, "base_url"),
        ({"base_url": "http://nowhere.invalid"}, "base_url"),
        ({"console_key": "short"}, "console_key"),
        ({"console_key": "with a blank in it"}, "console_key"),
        ({"dataset_key": "umläute-im-schlüssel"}, "dataset_key"),
        ({"drift_policy": "mine"}, "drift_policy"),
    ],
)
def test_create_connection_of_bad_input_names_the_field(
    endpoint: Endpoint, tenant_a: Organisation, changed: dict[str, Any], param: str
) -> None:
    with pytest.raises(PortalError) as refused:
        connect(tenant_a.owner.context, endpoint, **changed)
    assert refused.value.param == param
    assert refused.value.error_status in (400, 502)


def test_create_connection_of_a_taken_name_is_refused(
    endpoint: Endpoint, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    connect(tenant_a.owner.context, endpoint, name="Ours")
    with pytest.raises(Conflict):
        connect(tenant_a.owner.context, endpoint, name="Ours")
    connect(tenant_b.owner.context, endpoint, name="Ours")


@pytest.mark.parametrize("role", ["developer", "viewer", "auditor"])
def test_create_connection_by_a_member_who_may_not_is_refused(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation, role: str
) -> None:
    with pytest.raises(Forbidden):
        connect(getattr(tenant_a, role).context, endpoint)
    assert dify.seen == []


def test_edit_connection_changes_what_is_given_and_asks_dify_only_where_it_leads_elsewhere(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation
) -> None:
    context = tenant_a.owner.context
    made = connect(context, endpoint)
    dify.seen.clear()
    services.edit_connection(
        context=context, connection_id=made.id, name="Other", drift_policy="ours"
    )
    assert dify.seen == []
    key = dify.own.keys[0]["token"] = "dataset-another-key"
    with pytest.raises(errors.DifyFault):
        services.edit_connection(
            context=context, connection_id=made.id, dataset_key="dataset-a-wrong-key"
        )
    services.edit_connection(context=context, connection_id=made.id, dataset_key=key)
    [row] = rows(context)
    with tenant_scope(context):
        assert endpoint_of(row) == replace(endpoint, dataset_key=key)
    assert (row.name, row.drift_policy) == ("Other", "ours")


def test_check_connection_says_what_is_wrong_and_when_it_works_again(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context = tenant_a.owner.context
    made = connect(context, endpoint)
    dify.fail("bad_gateway", times=-1)
    for _ in range(2):
        checked = services.check_connection(context=context, connection_id=made.id)
    assert (checked.health, checked.problem_code) == (Health.FAILING, "dify_down")
    assert checked.since > made.since
    # What was known of it stays known.
    assert checked.version == "1.16.0"
    dify.heal()
    dify.version = "1.17.0"
    checked = services.check_connection(context=context, connection_id=made.id)
    assert (checked.health, checked.problem, checked.version) == (Health.HEALTHY, "", "1.17.0")
    told = [a for a in actions(owner_sql, tenant_a.id) if a != "connection.check"]
    assert told == [
        "connection.create",
        "connection.fail",
        "connection.recover",
        "connection.upgrade",
    ]


def test_delete_connection_forgets_it_and_leaves_dify_alone(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context = tenant_a.owner.context
    made = connect(context, endpoint)
    dify.seen.clear()
    services.delete_connection(context=context, connection_id=made.id)
    assert rows(context) == []
    assert dify.seen == []
    assert actions(owner_sql, tenant_a.id)[-1] == "connection.delete"


def test_connection_of_another_tenant_is_not_there(
    endpoint: Endpoint, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    theirs = connect(tenant_b.owner.context, endpoint).id
    context = tenant_a.owner.context
    for call in (
        lambda: services.edit_connection(context=context, connection_id=theirs, name="x"),
        lambda: services.check_connection(context=context, connection_id=theirs),
        lambda: services.delete_connection(context=context, connection_id=theirs),
    ):
        with pytest.raises(NotFound):
            call()
    assert rows(context) == []


# -- sharing and the licence -------------------------------------------------------------------


def test_share_connection_gives_the_other_tenant_a_row_and_keys_of_its_own(
    endpoint: Endpoint, tenant_a: Organisation, tenant_b: Organisation, system_admin: Context
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    copy = services.share_connection(
        context=inside(system_admin, tenant_a),
        connection_id=made.id,
        tenant_id=tenant_b.id,
        organisation="Works Ltd",
    )
    [theirs] = rows(tenant_b.owner.context)
    assert (theirs.pk, theirs.pk == made.pk, theirs.shared) == (copy.pk, False, True)
    with tenant_scope(tenant_b.owner.context):
        assert endpoint_of(theirs) == endpoint
        # What one tenant's data key sealed is no use under the other's.
        theirs.sealed = made.sealed
        with pytest.raises(InvalidCiphertext):
            endpoint_of(theirs)
    assert [row.shared for row in rows(tenant_a.owner.context)] == [True]


def test_share_connection_stays_within_one_organisation(
    endpoint: Endpoint, tenant_a: Organisation, tenant_b: Organisation, system_admin: Context
) -> None:
    made = connect(tenant_a.owner.context, endpoint)

    def share(organisation: str, tenant: UUID = tenant_b.id) -> None:
        services.share_connection(
            context=inside(system_admin, tenant_a),
            connection_id=made.id,
            tenant_id=tenant,
            organisation=organisation,
        )

    with pytest.raises(Invalid):
        share("")
    with pytest.raises(Conflict):
        share("Works Ltd", tenant_a.id)
    share("Works Ltd")
    with pytest.raises(Conflict, match="another organisation"):
        share("Others Ltd")
    with pytest.raises(Conflict, match="already"):
        share("Works Ltd")
    with pytest.raises(Forbidden):
        services.share_connection(
            context=tenant_a.owner.context,
            connection_id=made.id,
            tenant_id=tenant_b.id,
            organisation="Works Ltd",
        )


def test_shared_connection_leads_where_the_platform_says(
    dify: DifyDouble,
    endpoint: Endpoint,
    tenant_a: Organisation,
    tenant_b: Organisation,
    system_admin: Context,
) -> None:
    """No tenant can lead another one's knowledge to a Dify of its own."""
    made = connect(tenant_a.owner.context, endpoint)
    administrator = inside(system_admin, tenant_a)
    copy = services.share_connection(
        context=administrator,
        connection_id=made.id,
        tenant_id=tenant_b.id,
        organisation="Works Ltd",
    )
    with DifyDouble() as elsewhere:
        moved: dict[str, Any] = {
            "base_url": elsewhere.url,
            "workspace_id": UUID(elsewhere.own.id),
            "console_key": elsewhere.console_key,
            "dataset_key": elsewhere.dataset_key,
        }
        for context, row in (
            (tenant_a.owner.context, made),
            (tenant_b.owner.context, copy),
            (inside(system_admin, tenant_b), copy),
        ):
            with pytest.raises((Forbidden, Conflict)):
                services.edit_connection(context=context, connection_id=row.id, **moved)
        services.edit_connection(context=administrator, connection_id=made.id, **moved)
        [theirs] = rows(tenant_b.owner.context)
        with tenant_scope(tenant_b.owner.context):
            assert endpoint_of(theirs).base_url == elsewhere.url
    with pytest.raises(Conflict, match="delete theirs first"):
        services.delete_connection(context=tenant_a.owner.context, connection_id=made.id)
    services.delete_connection(context=tenant_b.owner.context, connection_id=copy.id)
    services.delete_connection(context=tenant_a.owner.context, connection_id=made.id)


def test_workspace_is_made_only_after_a_licence_is_confirmed(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation, system_admin: Context
) -> None:
    made = connect(tenant_a.owner.context, endpoint)
    administrator = inside(system_admin, tenant_a)

    def make() -> Any:
        return services.create_workspace(
            context=administrator,
            connection_id=made.id,
            name="Tenant C",
            owner_email="admin@example.com",
            inner_key=dify.inner_key,
        )

    assert licence_needed(made)
    with pytest.raises(services.LicenceUnconfirmed):
        make()
    with pytest.raises(Forbidden):
        services.confirm_licence(
            context=tenant_a.owner.context, connection_id=made.id, reference="AG-1"
        )
    confirmed = services.confirm_licence(
        context=administrator, connection_id=made.id, reference="AG-1"
    )
    assert confirmed.licence_confirmed_by == administrator.actor.label
    assert confirmed.licence_confirmed_at is not None
    assert not licence_needed(confirmed)
    assert dify.workspaces[make().id].name == "Tenant C"


def test_connection_to_a_licensed_or_a_single_workspace_needs_no_confirmation(
    dify: DifyDouble, endpoint: Endpoint, tenant_a: Organisation
) -> None:
    dify.licence = "active"
    assert not licence_needed(connect(tenant_a.owner.context, endpoint))
    dify.licence = "none"
    del dify.workspaces[dify.other.id]
    assert not licence_needed(connect(tenant_a.owner.context, endpoint))
