"""Who may read /metrics: this machine, and whoever brings the token."""

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette

from portal.core.env import Env, env
from portal.metrics import Metrics, metrics_routes

TOKEN = "a-token-of-the-monitoring"
ELSEWHERE = "203.0.113.5"


async def get(
    peer: str | None,
    headers: dict[str, str] | None = None,
    *,
    token: str | None = TOKEN,
    **changes: str,
) -> httpx.Response:
    """What a process that serves no plane answers to a caller at that address."""
    secret = None if token is None else SecretStr(token)
    settings = env().model_copy(update={"metrics_token": secret, **changes})
    metrics = Metrics(settings, None, control=False)
    app = Starlette(routes=metrics_routes(metrics))
    transport = httpx.ASGITransport(app, client=(peer, 1))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://portal") as client:
        return await client.get("/metrics", headers=headers)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_scrape_from_this_machine_is_answered(peer: str) -> None:
    response = await get(peer)
    assert response.status_code == 200
    assert "freehold_metrics_refused_total" in response.text


@pytest.mark.parametrize("peer", [ELSEWHERE, "10.0.0.1", "2001:db8::1", "testclient", "", None])
async def test_scrape_from_elsewhere_without_the_token_is_refused(peer: str | None) -> None:
    response = await get(peer)
    assert response.status_code == 403
    assert "METRICS_TOKEN" in response.text
    assert "freehold_" not in response.text


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "x-forwarded-for"]
)
@pytest.mark.parametrize("value", [ELSEWHERE, "127.0.0.1", "", "garbage"])
@pytest.mark.parametrize("proxies", ["", "127.0.0.0/8"])
async def test_scrape_through_a_proxy_on_this_machine_is_refused(
    header: str, value: str, proxies: str
) -> None:
    response = await get("127.0.0.1", {header: value}, trusted_proxies=proxies)
    assert response.status_code == 403


async def test_scrape_that_claims_to_come_from_this_machine_is_refused() -> None:
    claims = {"X-Forwarded-For": "127.0.0.1"}
    assert (await get("10.0.0.1", claims, trusted_proxies="10.0.0.0/8")).status_code == 403
    assert (await get(ELSEWHERE, claims)).status_code == 403


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_scrape_with_the_token_is_answered_wherever_it_comes_from(scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}", "X-Forwarded-For": "198.51.100.7"}
    assert (await get(ELSEWHERE, headers)).status_code == 200


@pytest.mark.parametrize("peer", [ELSEWHERE, "127.0.0.1"])
@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xe4\xf6\xfc",
    ],
)
async def test_scrape_with_a_wrong_token_is_refused(peer: str, authorization: str) -> None:
    headers = {"Authorization": authorization.encode("latin-1")}
    assert (await get(peer, headers)).status_code == 403  # type: ignore[arg-type]


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer None", "Bearer **********"])
async def test_scrape_with_a_token_where_none_is_set_is_refused(authorization: str) -> None:
    refused = await get(ELSEWHERE, {"Authorization": authorization}, token=None)
    assert refused.status_code == 403


def test_set_token_that_is_too_short_is_refused() -> None:
    values = env().model_dump()
    with pytest.raises(ValidationError, match="metrics_token"):
        Env(**{**values, "metrics_token": "short"})
    assert Env(**{**values, "metrics_token": TOKEN}).metrics_token is not None


async def test_refused_scrapes_are_counted() -> None:
    metrics = Metrics(env(), None, control=False)
    transports = {
        peer: httpx.ASGITransport(Starlette(routes=metrics_routes(metrics)), client=(peer, 1))
        for peer in ("127.0.0.1", ELSEWHERE)
    }
    for peer in (ELSEWHERE, ELSEWHERE, "127.0.0.1"):
        async with httpx.AsyncClient(transport=transports[peer], base_url="http://x") as client:
            answer = await client.get("/metrics")
    assert "freehold_metrics_refused_total 2.0" in answer.text
