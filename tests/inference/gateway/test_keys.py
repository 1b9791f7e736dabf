"""Keys on several gateway processes at once: what is changed holds on all of them."""

from collections.abc import Iterator

import httpx
import psycopg
import pytest

from tenants.services import create_api_key, edit_api_key, revoke_api_key, rotate_api_key
from tests import factories, live
from tests.factories import Organisation
from tests.live import Web
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def gateways(servers: SessionServers, database: None) -> Iterator[list[Web]]:
    """Gateway processes behind a proxy on the loopback."""
    programs = live.Programs(servers)
    started = [
        programs.web(f"keys-gateway-{n}", FREEHOLD_PLANES="data", TRUSTED_PROXIES="127.0.0.1")
        for n in range(3)
    ]
    for web in started:
        web.wait_alive()
    yield started
    programs.stop()


def answers(gateways: list[Web], token: str, address: str = "") -> set[tuple[int, str]]:
    """Status and error code of a look at the models, at each gateway; one if they agree."""
    headers = {"authorization": f"Bearer {token}"}
    if address:
        headers["x-forwarded-for"] = address
    return {answer(web, headers) for web in gateways}


def answer(web: Web, headers: dict[str, str]) -> tuple[int, str]:
    response = httpx.get(f"{web.url}/v1/models", headers=headers, timeout=30)
    return response.status_code, response.json().get("error", {}).get("code", "")


GOOD = {(200, "")}
UNKNOWN = {(401, "invalid_api_key")}
ELSEWHERE = {(403, "network_not_allowed")}


def test_rotated_key_opens_every_gateway_with_both_secrets_within_the_overlap(
    gateways: list[Web], tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    old = factories.api_key(tenant_a)
    new = rotate_api_key(context=tenant_a.context, api_key_id=old.api_key.id)
    assert answers(gateways, old.token) == answers(gateways, new.token) == GOOD
    owner_sql.execute(
        "UPDATE tenants_apikey SET former_until = clock_timestamp() WHERE id = %s",
        [old.api_key.id],
    )
    assert answers(gateways, old.token) == UNKNOWN
    assert answers(gateways, new.token) == GOOD


def test_rotated_key_with_overlap_0_is_refused_by_every_gateway_at_the_next_request(
    gateways: list[Web], tenant_a: Organisation
) -> None:
    old = factories.api_key(tenant_a)
    assert answers(gateways, old.token) == GOOD
    new = rotate_api_key(context=tenant_a.context, api_key_id=old.api_key.id, overlap_seconds=0)
    assert answers(gateways, old.token) == UNKNOWN
    assert answers(gateways, new.token) == GOOD


def test_revoked_key_is_refused_by_every_gateway_at_the_next_request(
    gateways: list[Web], tenant_a: Organisation
) -> None:
    old = factories.api_key(tenant_a)
    new = rotate_api_key(context=tenant_a.context, api_key_id=old.api_key.id)
    assert answers(gateways, old.token) == answers(gateways, new.token) == GOOD
    revoke_api_key(context=tenant_a.context, api_key_id=old.api_key.id, reason="leaked")
    assert answers(gateways, old.token) == answers(gateways, new.token) == UNKNOWN


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", GOOD),
        ("192.0.3.7", ELSEWHERE),
        ("::ffff:192.0.2.7", GOOD),
        ("::ffff:192.0.3.7", ELSEWHERE),
        ("2001:db8::7", GOOD),
        ("2001:db9::7", ELSEWHERE),
        # The proxy is not the caller, and what the caller claims before it is not believed.
        ("", ELSEWHERE),
        ("192.0.2.7, 203.0.113.1", ELSEWHERE),
        ("203.0.113.1, 192.0.2.7", GOOD),
    ],
)
def test_bound_key_opens_every_gateway_behind_a_proxy_from_its_networks_alone(
    gateways: list[Web], tenant_a: Organisation, address: str, expected: set[tuple[int, str]]
) -> None:
    made = create_api_key(
        context=tenant_a.context,
        name="bound",
        scopes=["inference"],
        allowed_networks=["192.0.2.0/24", "2001:db8::/32"],
    )
    assert answers(gateways, made.token, address) == expected


def test_bound_key_reads_the_proxys_own_header_behind_the_callers(
    gateways: list[Web], tenant_a: Organisation
) -> None:
    made = create_api_key(
        context=tenant_a.context,
        name="bound",
        scopes=["inference"],
        allowed_networks=["192.0.2.0/24"],
    )
    # Two proxies, each of which adds a header: the outer one met the caller.
    headers = [
        ("authorization", f"Bearer {made.token}"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-for", "127.0.0.1"),
    ]
    response = httpx.get(f"{gateways[0].url}/v1/models", headers=headers, timeout=30)
    assert response.status_code == 200


def test_changed_networks_hold_on_every_gateway_at_the_next_request(
    gateways: list[Web], tenant_a: Organisation
) -> None:
    made = factories.api_key(tenant_a)
    assert answers(gateways, made.token, "192.0.2.7") == GOOD
    for networks, expected in ((["198.51.100.0/24"], ELSEWHERE), (None, GOOD)):
        edit_api_key(
            context=tenant_a.context, api_key_id=made.api_key.id, allowed_networks=networks
        )
        assert answers(gateways, made.token, "192.0.2.7") == expected


def test_stopped_gateway_has_written_the_last_use_of_each_generation(
    gateways: list[Web], tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    leaving, *_ = gateways
    first = factories.api_key(tenant_a)
    assert answers([leaving], first.token) == GOOD
    rotate_api_key(context=tenant_a.context, api_key_id=first.api_key.id)
    third = rotate_api_key(context=tenant_a.context, api_key_id=first.api_key.id)
    assert answers([leaving], third.token) == GOOD
    assert answers([leaving], first.token) == UNKNOWN
    gateways.remove(leaving)
    leaving.stop()
    written = owner_sql.execute(
        "SELECT generation FROM tenants_apikeyuse WHERE api_key_id = %s ORDER BY generation",
        [first.api_key.id],
    ).fetchall()
    assert written == [(1,), (3,)]
