"""Keys that live on: rotation, networks, last use."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.core.actors import ANONYMOUS, Context, TenantRole
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants import api_key_format, querysets
from tenants.errors import InvalidApiKey, NetworkNotAllowed
from tenants.identity.keys import authenticate_api_key
from tenants.services import (
    CreatedKey,
    create_api_key,
    create_playground_key,
    edit_api_key,
    revoke_api_key,
    rotate_api_key,
    set_quota,
)
from tests.factories import Organisation, api_key

STRANGER = Context(actor=ANONYMOUS, address="192.0.2.1", request_id="req-1")
MONTH = 30 * 24 * 3600


def opens(token: str, address: str | None = "192.0.2.1") -> bool:
    try:
        authenticate_api_key(token, base=replace(STRANGER, address=address))
    except InvalidApiKey:
        return False
    return True


def rotate(tenant: Organisation, made: CreatedKey, overlap: int = 3600) -> CreatedKey:
    return rotate_api_key(
        context=tenant.context, api_key_id=made.api_key.id, overlap_seconds=overlap
    )


def end_overlap(superuser: psycopg.Connection, made: CreatedKey) -> None:
    superuser.execute(
        "UPDATE tenants_apikey SET former_until = now() WHERE id = %s", [made.api_key.id]
    )


# -- rotation --------------------------------------------------------------------------------


def test_rotate_key_both_secrets_work_within_the_overlap_and_only_the_new_one_after_it(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    old = api_key(tenant_a)
    new = rotate(tenant_a, old)
    assert new.token != old.token
    assert opens(old.token)
    assert opens(new.token)
    end_overlap(owner_sql, old)
    assert not opens(old.token)
    assert opens(new.token)


def test_rotate_key_without_choosing_gives_a_day(tenant_a: Organisation) -> None:
    made = api_key(tenant_a)
    before = datetime.now(UTC)
    rotated = rotate_api_key(context=tenant_a.context, api_key_id=made.api_key.id).api_key
    assert rotated.former_until is not None
    left = rotated.former_until - before
    assert timedelta(hours=24) <= left < timedelta(hours=24, minutes=1)


def test_rotate_key_with_overlap_0_refuses_the_old_secret_at_once(tenant_a: Organisation) -> None:
    old = api_key(tenant_a)
    new = rotate(tenant_a, old, 0)
    assert not opens(old.token)
    assert opens(new.token)
    # Nothing is left to compare with, whatever a clock says.
    assert new.api_key.former_secret_hmac is None
    assert new.api_key.former_until is None


def test_rotate_key_again_within_the_overlap_ends_the_oldest_secret(
    tenant_a: Organisation,
) -> None:
    first = api_key(tenant_a)
    second = rotate(tenant_a, first)
    third = rotate(tenant_a, first)
    assert [opens(made.token) for made in (first, second, third)] == [False, True, True]


def test_rotate_key_with_overlap_0_within_an_overlap_ends_both_older_secrets(
    tenant_a: Organisation,
) -> None:
    first = api_key(tenant_a)
    second = rotate(tenant_a, first)
    third = rotate(tenant_a, first, 0)
    assert [opens(made.token) for made in (first, second, third)] == [False, False, True]


def test_revoke_key_ends_every_generation(tenant_a: Organisation) -> None:
    old = api_key(tenant_a)
    new = rotate(tenant_a, old)
    revoke_api_key(context=tenant_a.context, api_key_id=old.api_key.id, reason="leaked")
    assert not opens(old.token)
    assert not opens(new.token)


def test_rotate_key_keeps_everything_but_the_secret(tenant_a: Organisation) -> None:
    old = create_api_key(
        context=tenant_a.context,
        name="till",
        scopes=["inference", "keys:read"],
        allowed_models=["m"],
        allowed_networks=["192.0.2.0/24"],
    )
    quota = set_quota(context=tenant_a.context, api_key_id=old.api_key.id, tokens_day=7)
    new = rotate(tenant_a, old).api_key
    kept = ("id", "public_id", "user_id", "name", "scopes", "allowed_models", "allowed_networks",
            "expires_at", "created_at")  # fmt: skip
    assert {f: getattr(new, f) for f in kept} == {f: getattr(old.api_key, f) for f in kept}
    assert quota.api_key_id == new.id
    assert (old.api_key.generation, new.generation) == (1, 2)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(overlaps=st.lists(st.sampled_from([0, 60, MONTH]), max_size=4))
def test_rotate_key_any_number_of_times_leaves_the_last_and_maybe_the_one_before(
    tenant_a: Organisation, overlaps: list[int]
) -> None:
    made = [api_key(tenant_a)]
    for overlap in overlaps:
        made.append(rotate(tenant_a, made[0], overlap))
    former = len(made) - 2 if overlaps and overlaps[-1] else None
    valid = [index for index, key in enumerate(made) if opens(key.token)]
    assert valid == [i for i in range(len(made)) if i in (former, len(made) - 1)]
    assert made[-1].api_key.generation == len(made)


@pytest.mark.parametrize("overlap", [-1, MONTH + 1])
def test_rotate_key_with_an_overlap_out_of_bounds_is_refused(
    tenant_a: Organisation, overlap: int
) -> None:
    made = api_key(tenant_a)
    with pytest.raises(Invalid) as refusal:
        rotate(tenant_a, made, overlap)
    assert refusal.value.param == "overlap_seconds"
    assert opens(made.token)


def test_rotate_key_of_the_playground_is_refused(tenant_a: Organisation) -> None:
    made = create_playground_key(context=tenant_a.context, session_key="s" * 32)
    with pytest.raises(Conflict, match="playground"):
        rotate(tenant_a, made)


def test_rotate_key_that_is_revoked_or_expired_is_a_conflict(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    revoked, expired = api_key(tenant_a), api_key(tenant_a)
    revoke_api_key(context=tenant_a.context, api_key_id=revoked.api_key.id, reason="lost")
    owner_sql.execute(
        "UPDATE tenants_apikey SET expires_at = now() WHERE id = %s", [expired.api_key.id]
    )
    for made in (revoked, expired):
        with pytest.raises(Conflict):
            rotate(tenant_a, made)


def test_rotate_key_of_another_tenant_is_not_found(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    theirs = api_key(tenant_b)
    with pytest.raises(NotFound):
        rotate(tenant_a, theirs)
    assert opens(theirs.token)


def test_rotate_key_developer_rotates_only_own(tenant_a: Organisation) -> None:
    developer = tenant_a.developer.context
    theirs = api_key(tenant_a)
    own = create_api_key(context=developer, name="own", scopes=["inference"])
    with pytest.raises(Forbidden):
        rotate_api_key(context=developer, api_key_id=theirs.api_key.id)
    assert opens(rotate_api_key(context=developer, api_key_id=own.api_key.id).token)


@pytest.mark.parametrize("role", [TenantRole.VIEWER, TenantRole.AUDITOR])
def test_rotate_key_by_a_reader_is_forbidden(tenant_a: Organisation, role: TenantRole) -> None:
    with pytest.raises(Forbidden):
        rotate_api_key(
            context=tenant_a.member(role).context, api_key_id=api_key(tenant_a).api_key.id
        )


def test_rotate_key_by_the_security_administrator_is_forbidden(
    tenant_a: Organisation, security_admin: Context
) -> None:
    made = api_key(tenant_a)
    inside = replace(security_admin, tenant_id=tenant_a.id)
    with pytest.raises(Forbidden):
        rotate_api_key(context=inside, api_key_id=made.api_key.id)


def test_rotate_key_by_a_key_that_lacks_its_scopes_is_forbidden(tenant_a: Organisation) -> None:
    maker = authenticate_api_key(api_key(tenant_a, scopes=["keys:write"]).token, base=STRANGER)
    stronger = api_key(tenant_a, scopes=["audit:read", "keys:write"])
    with pytest.raises(Forbidden, match="audit:read"):
        rotate_api_key(context=maker, api_key_id=stronger.api_key.id)
    equal = api_key(tenant_a, scopes=["keys:write"])
    assert opens(rotate_api_key(context=maker, api_key_id=equal.api_key.id).token)


def test_rotate_key_is_recorded_without_any_secret(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    old = api_key(tenant_a)
    new = rotate(tenant_a, old, 60)
    rows = owner_sql.execute(
        "SELECT e.action, b.detail, b.before, b.after FROM audit_event e "
        "JOIN audit_body b ON b.event_id = e.id WHERE e.object_id = %s ORDER BY e.id DESC LIMIT 2",
        [str(old.api_key.id)],
    ).fetchall()
    told = {action: (detail, before, after) for action, detail, before, after in rows}
    assert told["key.rotate"][0] == {"generation": 2, "overlap_seconds": 60}
    _, before, after = told["tenants.apikey.update"]
    assert (before["former_secret_hmac"], after["former_secret_hmac"]) == (
        "[redacted]",
        "[redacted, changed]",
    )
    assert after["secret_hmac"] == "[redacted, changed]"
    hmacs = owner_sql.execute(
        "SELECT encode(secret_hmac, 'hex'), encode(former_secret_hmac, 'hex') "
        "FROM tenants_apikey WHERE id = %s",
        [old.api_key.id],
    ).fetchone()
    assert hmacs is not None
    secrets = [made.token.rsplit("_", 1)[1][:32] for made in (old, new)]
    assert not any(word in str(rows) for word in (*hmacs, *secrets))


def test_refuse_rotation_leaves_no_event(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = api_key(tenant_a)
    with pytest.raises(Forbidden):
        rotate_api_key(context=tenant_a.viewer.context, api_key_id=made.api_key.id)
    found = owner_sql.execute(
        "SELECT 1 FROM audit_event WHERE tenant_id = %s AND action = 'key.rotate'", [tenant_a.id]
    )
    assert found.fetchone() is None


# -- networks --------------------------------------------------------------------------------


def bound(tenant: Organisation, *networks: str) -> CreatedKey:
    return create_api_key(
        context=tenant.context, name="bound", scopes=["inference"], allowed_networks=networks
    )


@pytest.mark.parametrize(
    ("given_networks", "stored"),
    [
        ([" 192.0.2.0/24 "], ["192.0.2.0/24"]),
        (["192.0.2.7"], ["192.0.2.7/32"]),
        (["192.0.2.0/255.255.255.0"], ["192.0.2.0/24"]),
        (["2001:DB8:0::/32"], ["2001:db8::/32"]),
        (["::ffff:192.0.2.0/120"], ["192.0.2.0/24"]),
        (["0.0.0.0/0", "::/0"], ["0.0.0.0/0", "::/0"]),
        (["10.0.0.0/8", "192.0.2.0/24", "10.0.0.0/8"], ["10.0.0.0/8", "192.0.2.0/24"]),
        ([], None),
        (None, None),
    ],
)
def test_create_key_stores_networks_in_their_usual_form(
    tenant_a: Organisation, given_networks: Iterable[str] | None, stored: list[str] | None
) -> None:
    made = create_api_key(
        context=tenant_a.context,
        name="x",
        scopes=["inference"],
        allowed_networks=given_networks,
    )
    with tenant_scope(tenant_a.context):
        assert querysets.keys().get(pk=made.api_key.id).allowed_networks == stored


@pytest.mark.parametrize(
    ("networks", "says"),
    [
        (["10.0.0.1/8"], "write 10.0.0.0/8"),
        (["2001:db8::1/32"], "write 2001:db8::/32"),
        (["10.0.0.0/33"], "is no network"),
        (["10.0.0/8"], "is no network"),
        (["everywhere"], "is no network"),
        ([""], "is no network"),
        (["fe80::%eth0/64"], "is no network"),
        (["10.0.0.0/8\x00"], "is no network"),
        (["1" * 500], "is no network"),
        (["192.0.2.0/24", "0x7f.1"], "'0x7f.1' is no network"),
        ([f"10.0.{i}.0/24" for i in range(51)], "At most 50"),
    ],
)
def test_create_key_with_bad_networks_says_which_and_what_to_write(
    tenant_a: Organisation, networks: list[str], says: str
) -> None:
    with pytest.raises(Invalid, match=says) as refusal:
        bound(tenant_a, *networks)
    assert refusal.value.param == "allowed_networks"
    assert len(refusal.value.message) < 200


def test_create_key_with_50_networks_is_fine(tenant_a: Organisation) -> None:
    assert len(bound(tenant_a, *(f"10.0.{i}.0/24" for i in range(50))).api_key.scopes) == 1


@pytest.mark.parametrize(
    ("address", "welcome"),
    [
        ("192.0.2.9", True),
        ("::ffff:192.0.2.9", True),
        ("2001:db8::9", True),
        ("192.0.3.9", False),
        ("::ffff:192.0.3.9", False),
        ("2001:db9::9", False),
        (None, False),
    ],
)
def test_authenticate_bound_key_only_from_its_networks(
    tenant_a: Organisation, address: str | None, welcome: bool
) -> None:
    made = bound(tenant_a, "192.0.2.0/24", "2001:db8::/32")
    if welcome:
        assert opens(made.token, address)
        return
    with pytest.raises(NetworkNotAllowed) as refusal:
        opens(made.token, address)
    assert refusal.value.error_status == 403
    assert refusal.value.context.tenant_id == tenant_a.id
    assert refusal.value.context.scopes == frozenset()


def test_authenticate_wrong_secret_from_a_wrong_network_learns_nothing_of_it(
    tenant_a: Organisation,
) -> None:
    made = bound(tenant_a, "198.51.100.0/24")
    forged = api_key_format.generate(made.api_key.public_id).token
    with pytest.raises(InvalidApiKey):
        authenticate_api_key(forged, base=STRANGER)


def test_authenticate_revoked_key_from_a_wrong_network_learns_nothing_of_it(
    tenant_a: Organisation,
) -> None:
    made = bound(tenant_a, "198.51.100.0/24")
    revoke_api_key(context=tenant_a.context, api_key_id=made.api_key.id, reason="x")
    with pytest.raises(InvalidApiKey):
        authenticate_api_key(made.token, base=STRANGER)


def test_edit_key_networks_hold_at_the_next_request(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = api_key(tenant_a)
    assert opens(made.token)
    edited = edit_api_key(
        context=tenant_a.context,
        api_key_id=made.api_key.id,
        allowed_networks=["198.51.100.0/24"],
    )
    assert edited.allowed_networks == ["198.51.100.0/24"]
    with pytest.raises(NetworkNotAllowed):
        opens(made.token)
    edit_api_key(context=tenant_a.context, api_key_id=made.api_key.id, allowed_networks=None)
    assert opens(made.token)
    details = owner_sql.execute(
        "SELECT b.detail FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.action = 'key.edit' AND e.object_id = %s ORDER BY e.id",
        [str(made.api_key.id)],
    ).fetchall()
    assert [d["allowed_networks"] for (d,) in details] == [["198.51.100.0/24"], None]


def test_edit_key_developer_edits_only_own(tenant_a: Organisation) -> None:
    developer = tenant_a.developer.context
    theirs = api_key(tenant_a).api_key
    own = create_api_key(context=developer, name="own", scopes=["inference"]).api_key
    with pytest.raises(Forbidden):
        edit_api_key(context=developer, api_key_id=theirs.id, allowed_networks=None)
    edit_api_key(context=developer, api_key_id=own.id, allowed_networks=["::/0"])


def test_edit_key_that_is_missing_revoked_or_a_playgrounds_is_refused(
    tenant_a: Organisation,
) -> None:
    revoked = api_key(tenant_a).api_key
    revoke_api_key(context=tenant_a.context, api_key_id=revoked.id, reason="x")
    bound_to_session = create_playground_key(context=tenant_a.context, session_key="s").api_key
    for key_id, refusal in (
        (revoked.id, Conflict),
        (bound_to_session.id, Conflict),
        (uuid7(), NotFound),
    ):
        with pytest.raises(refusal):
            edit_api_key(context=tenant_a.context, api_key_id=key_id, allowed_networks=None)


# -- last use --------------------------------------------------------------------------------


def uses(superuser: psycopg.Connection, made: CreatedKey) -> dict[int, datetime]:
    rows = superuser.execute(
        "SELECT generation, last_used_at FROM tenants_apikeyuse WHERE api_key_id = %s",
        [made.api_key.id],
    ).fetchall()
    return dict(rows)


def test_authenticate_writes_the_last_use_of_the_right_generation(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    first = api_key(tenant_a)
    rotate(tenant_a, first)
    assert uses(owner_sql, first) == {}
    before = datetime.now(UTC)
    assert opens(first.token)
    assert set(uses(owner_sql, first)) == {1}
    third = rotate(tenant_a, first)
    assert opens(third.token)
    written = uses(owner_sql, first)
    assert set(written) == {1, 3}
    assert before <= written[1] < written[3] <= datetime.now(UTC)
    with tenant_scope(tenant_a.context):
        assert querysets.keys().get(pk=first.api_key.id).last_used_at == written[3]


def test_authenticate_again_within_moments_writes_nothing(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = api_key(tenant_a)
    assert opens(made.token)
    written = uses(owner_sql, made)
    with CaptureQueriesContext(connection) as captured:
        assert opens(made.token)
    assert len(captured) == 1
    assert uses(owner_sql, made) == written


def test_authenticate_refused_secret_is_no_use(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    first = api_key(tenant_a)
    rotate(tenant_a, first, 0)
    assert not opens(first.token)
    assert not opens(api_key_format.generate(first.api_key.public_id).token)
    assert uses(owner_sql, first) == {}


def test_authenticate_succeeds_though_its_use_cannot_be_written(
    tenant_a: Organisation, owner_sql: psycopg.Connection, servers: Any
) -> None:
    made = api_key(tenant_a)
    owner_sql.execute("ALTER TABLE tenants_apikeyuse ADD CONSTRAINT no CHECK (false) NOT VALID")
    try:
        assert opens(made.token)
    finally:
        owner_sql.execute("ALTER TABLE tenants_apikeyuse DROP CONSTRAINT no")
    assert uses(owner_sql, made) == {}
