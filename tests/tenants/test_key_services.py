"""API keys: what they may carry, who may make and end them, and that only the token opens."""

from datetime import timedelta

import psycopg
import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from portal.core.actors import ANONYMOUS, ActorType, Context, TenantRole
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from tenants import api_key_format
from tenants.api_key_format import generate
from tenants.errors import InvalidApiKey
from tenants.identity.keys import authenticate_api_key
from tenants.models.keys import ApiKeyKind
from tenants.services import (
    create_api_key,
    create_playground_key,
    revoke_api_key,
    revoke_session_keys,
)
from tenants.services.keys import peppers
from tests.factories import Organisation, api_key

STRANGER = Context(actor=ANONYMOUS, address="192.0.2.1", request_id="req-1")


def test_authenticate_key_gives_its_tenant_scopes_and_origin(tenant_a: Organisation) -> None:
    made = api_key(tenant_a, scopes=["inference", "keys:read"])
    context = authenticate_api_key(made.token, base=STRANGER)
    assert context.tenant_id == tenant_a.id
    assert context.api_key_id == context.actor.id == made.api_key.id
    assert context.actor.type == ActorType.API_KEY
    assert context.scopes == {"inference", "keys:read"}
    assert (context.address, context.request_id) == ("192.0.2.1", "req-1")
    assert context.tenant_role is None
    assert context.platform_role is None


def test_store_key_keeps_no_secret(tenant_a: Organisation, owner_sql: psycopg.Connection) -> None:
    made = api_key(tenant_a)
    secret = made.token.rsplit("_", 1)[1][:32]
    row = owner_sql.execute(
        "SELECT k::text FROM tenants_apikey k WHERE id = %s", [made.api_key.id]
    ).fetchone()
    told = owner_sql.execute(
        "SELECT b::text FROM audit_body b WHERE tenant_id = %s", [tenant_a.id]
    ).fetchall()
    assert row is not None
    assert secret not in row[0]
    assert told
    assert not any(secret in text or secret.encode().hex() in text for (text,) in told)


@given(token=st.text(max_size=80))
def test_authenticate_garbage_is_refused_without_a_query(token: str) -> None:
    with pytest.raises(InvalidApiKey):
        authenticate_api_key(token, base=STRANGER)


def test_authenticate_wrong_secret_and_unknown_key_read_the_same(tenant_a: Organisation) -> None:
    known, other = api_key(tenant_a), generate()
    forged = _with_public_id(known.api_key.public_id)
    refusals = []
    for token in (forged, other.token):
        with pytest.raises(InvalidApiKey) as refusal:
            authenticate_api_key(token, base=STRANGER)
        refusals.append((refusal.value.message, refusal.value.error_code))
    assert refusals[0] == refusals[1]


def _with_public_id(public_id: str) -> str:
    body = f"fh_{public_id}_{generate().secret}"
    token = body + api_key_format._checksum(body)
    assert api_key_format.parse(token) is not None
    return token


def test_authenticate_revoked_or_expired_key_is_refused(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    revoked = api_key(tenant_a)
    revoke_api_key(context=tenant_a.context, api_key_id=revoked.api_key.id, reason="lost")
    expired = create_api_key(
        context=tenant_a.context,
        name="old",
        scopes=["inference"],
        expires_at=timezone.now() + timedelta(days=1),
    )
    assert authenticate_api_key(expired.token, base=STRANGER).api_key_id == expired.api_key.id
    owner_sql.execute(
        "UPDATE tenants_apikey SET expires_at = now() WHERE id = %s", [expired.api_key.id]
    )
    for made in (revoked, expired):
        with pytest.raises(InvalidApiKey):
            authenticate_api_key(made.token, base=STRANGER)


def test_create_key_developer_cannot_hand_on_management(tenant_a: Organisation) -> None:
    for scope in ("keys:write", "audit:read"):
        with pytest.raises(Forbidden) as refusal:
            create_api_key(context=tenant_a.developer.context, name="x", scopes=[scope])
        assert refusal.value.param == "scopes"


def test_create_key_by_a_key_cannot_widen_its_scopes(tenant_a: Organisation) -> None:
    maker = authenticate_api_key(api_key(tenant_a, scopes=["keys:write"]).token, base=STRANGER)
    with pytest.raises(Forbidden):
        create_api_key(context=maker, name="x", scopes=["audit:read"])
    child = create_api_key(context=maker, name="child", scopes=["keys:write"])
    assert child.api_key.user_id == tenant_a.owner.user.id


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("name", ""),
        ("name", "x" * 81),
        ("name", "a\x00"),
        ("scopes", []),
        ("scopes", ["everything"]),
        ("allowed_models", ["no such name!"]),
        ("allowed_models", ["m"] + [f"m{i}" for i in range(100)]),
        ("expires_at", timezone.now() - timedelta(seconds=1)),
    ],
)
def test_create_key_bad_input_names_the_field(
    tenant_a: Organisation, param: str, value: object
) -> None:
    fields: dict[str, object] = {"name": "till", "scopes": ["inference"], param: value}
    with pytest.raises(Invalid) as refusal:
        create_api_key(context=tenant_a.context, **fields)  # type: ignore[arg-type]
    assert refusal.value.param == param


def test_create_key_with_empty_models_allows_every_model(tenant_a: Organisation) -> None:
    made = create_api_key(
        context=tenant_a.context, name="all", scopes=["inference"], allowed_models=[]
    )
    assert made.api_key.allowed_models is None


@pytest.mark.parametrize("role", [TenantRole.VIEWER, TenantRole.AUDITOR])
def test_create_key_by_a_reader_is_forbidden(tenant_a: Organisation, role: TenantRole) -> None:
    with pytest.raises(Forbidden):
        create_api_key(context=tenant_a.member(role).context, name="x", scopes=["inference"])


def test_revoke_key_developer_ends_only_own(tenant_a: Organisation) -> None:
    theirs = api_key(tenant_a)
    own = create_api_key(context=tenant_a.developer.context, name="own", scopes=["inference"])
    with pytest.raises(Forbidden):
        revoke_api_key(context=tenant_a.developer.context, api_key_id=theirs.api_key.id, reason="x")
    revoked = revoke_api_key(
        context=tenant_a.developer.context, api_key_id=own.api_key.id, reason="done"
    )
    assert revoked.revoked_reason == "done"
    with pytest.raises(Conflict):
        revoke_api_key(
            context=tenant_a.developer.context, api_key_id=own.api_key.id, reason="again"
        )


def test_revoke_key_of_another_tenant_is_not_found(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    made = api_key(tenant_b)
    with pytest.raises(NotFound):
        revoke_api_key(context=tenant_a.context, api_key_id=made.api_key.id, reason="x")
    assert authenticate_api_key(made.token, base=STRANGER).api_key_id == made.api_key.id


def test_revoke_key_by_security_administrator_needs_no_tenant_and_stands_in_its_trail(
    security_admin: Context, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = api_key(tenant_a)
    revoke_api_key(context=security_admin, api_key_id=made.api_key.id, reason="leaked")
    with pytest.raises(InvalidApiKey):
        authenticate_api_key(made.token, base=STRANGER)
    event = owner_sql.execute(
        "SELECT actor_label, reason FROM audit_event WHERE tenant_id = %s "
        "AND action = 'key.revoke' AND object_id = %s",
        [tenant_a.id, str(made.api_key.id)],
    ).fetchone()
    assert event == (security_admin.actor.label, "leaked")


def test_create_playground_key_is_bound_short_lived_and_closed_to_management(
    tenant_a: Organisation,
) -> None:
    made = create_playground_key(context=tenant_a.context, session_key="s" * 32)
    key = made.api_key
    assert key.kind == ApiKeyKind.PLAYGROUND
    assert key.scopes == ["inference", "apps"]
    assert key.expires_at is not None
    assert key.expires_at - timezone.now() <= timedelta(hours=1)
    assert key.session_hmac is not None
    assert peppers().matches(b"s" * 32, key.pepper_version, bytes(key.session_hmac))
    assert not peppers().matches(b"t" * 32, key.pepper_version, bytes(key.session_hmac))
    with pytest.raises(InvalidApiKey):
        authenticate_api_key(made.token, base=STRANGER)


def test_revoke_session_keys_ends_this_sessions_and_no_other(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    mine = create_playground_key(context=tenant_a.context, session_key="first-session")
    other = create_playground_key(context=tenant_a.context, session_key="second-session")
    assert revoke_session_keys(context=tenant_a.context, session_key="first-session") == 1
    rows = owner_sql.execute(
        "SELECT id, revoked_at IS NOT NULL FROM tenants_apikey WHERE id = ANY(%s)",
        [[mine.api_key.id, other.api_key.id]],
    ).fetchall()
    assert dict(rows) == {mine.api_key.id: True, other.api_key.id: False}
