"""Routes over real processes: the first deployment fails, and the caller is served all the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from inference.models import Deployment
from inference.models.jobs import JobState
from inference.route_services import NewTarget, create_route
from inference.services import edit_deployment
from tenants.services import create_api_key
from tests import factories
from tests.factories import unique
from tests.faults.arena import Arena, Call, Callers
from tests.inference.engines.doubles import Double, Reply, answer_of
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)

MakeArena = Callable[..., Arena]
WORD = "second "


@dataclass(slots=True)
class Routed:
    """A route over two arenas; the callers are the first one's tenant."""

    first: Arena
    second: Arena
    name: str
    callers: Callers

    def call(self, *, stream: bool, max_tokens: int = 5) -> Call:
        (call,) = self.callers.start(1, stream=stream, max_tokens=max_tokens)
        return call

    def fallbacks(self) -> list[str]:
        """Why each fallback of this tenant's jobs was taken."""
        rows = self.first.rows(
            "SELECT reason FROM audit_event WHERE tenant_id = %s AND action = 'inference.fallback'",
            self.first.tenant.id,
        )
        return [row["reason"] for row in rows]


def deployment_id(arena: Arena) -> UUID:
    return Deployment.objects.get(name=arena.deployed.deployment).id


@pytest.fixture
def set_route(set_arena: MakeArena) -> Callable[..., Routed]:
    """Makes a route from a fake engine with the given options to one that always serves."""

    def make(**options: Any) -> Routed:
        first = set_arena(**options)
        second = set_arena(token_ms=1, text=WORD)
        targets = [NewTarget(deployment_id(first)), NewTarget(deployment_id(second), tier=1)]
        name = unique("route")
        create_route(context=factories.TESTS, name=name, targets=targets)
        callers = Callers(first.gateway.url, first.token, name)
        first.opened.append(callers)
        return Routed(first, second, name, callers)

    return make


# With one attempt the worker itself moves the job that it would have ended; with more it puts the
# job back, and the sweeper finds that nobody is left there.
@pytest.mark.parametrize("attempts", ["1", "3"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_engine_that_dies_before_a_token_is_replaced_by_the_next_target(
    set_route: Callable[..., Routed], stream: bool, attempts: str
) -> None:
    route = set_route(fail_on="go", fail_code="engine_failed")
    route.first.worker(MAX_ATTEMPTS=attempts)
    route.second.worker()
    call = route.call(stream=stream)
    route.callers.wait()
    assert call.answered, call
    assert call.text == WORD * 5
    (job,) = route.first.balance()
    assert job["deployment_id"] == deployment_id(route.second)
    assert job["sku"] == f"{route.second.deployed.model}@1"
    assert route.fallbacks() == ["engine_failed" if attempts == "1" else "worker_lost"]


def test_killed_worker_is_replaced_by_the_next_target(set_route: Callable[..., Routed]) -> None:
    route = set_route(token_ms=500)
    lost = route.first.worker()
    route.second.worker()
    call = route.call(stream=False)
    eventually(
        lambda: route.first.in_state(JobState.RUNNING) == 1, what=lambda: str(route.first.jobs())
    )
    lost.kill()
    route.callers.wait()
    assert call.answered, call
    assert call.text == WORD * 5
    (job,) = route.first.balance()
    assert job["deployment_id"] == deployment_id(route.second)
    assert route.fallbacks() == ["worker_lost"]


def test_engine_that_dies_after_a_token_was_shown_ends_the_stream(
    set_route: Callable[..., Routed],
) -> None:
    route = set_route(fail_on="go", fail_after=3, fail_code="engine_failed", token_ms=50)
    route.first.worker()
    route.second.worker()
    call = route.call(stream=True)
    route.callers.wait()
    assert not call.answered
    assert call.tokens == 3
    (job,) = route.first.balance()
    assert (job["deployment_id"], job["watermark"]) == (deployment_id(route.first), 3)
    assert route.fallbacks() == []


def test_server_elsewhere_that_fails_a_request_is_replaced_and_its_worker_goes_on(
    set_route: Callable[..., Routed],
) -> None:
    route, double = set_route(), Double(answer_of)
    try:
        edit_deployment(
            context=factories.TESTS,
            deployment_id=deployment_id(route.first),
            engine="openai_http",
            options={"url": double.url},
        )
        worker = route.first.worker(MAX_ATTEMPTS="1")
        route.second.worker()
        double.plan = lambda asked: Reply(status=500)
        replaced = route.call(stream=True)
        route.callers.wait()
        assert replaced.text == WORD * 5, replaced
        assert route.fallbacks() == ["engine_failed"]
        double.plan = answer_of
        served = route.call(stream=True)
        route.callers.wait()
        assert served.text == "w0 w1 w2 w3 w4 ", served
        assert worker.alive
    finally:
        double.close()


def test_request_that_the_engine_refuses_is_the_callers_and_stays(
    set_route: Callable[..., Routed],
) -> None:
    route = set_route(fail_on="go")
    route.first.worker()
    route.second.worker()
    call = route.call(stream=False)
    route.callers.wait()
    assert (call.status, call.code) == (400, "request_refused")
    assert [job["state"] for job in route.first.balance()] == [JobState.FAILED]
    assert route.fallbacks() == []


def test_answer_names_the_model_that_was_asked_for_and_calls_pass_over_who_is_not_there(
    set_route: Callable[..., Routed],
) -> None:
    route = set_route()
    route.second.worker()
    headers = {"Authorization": f"Bearer {route.first.token}"}
    body = {
        "model": route.name,
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": 3,
    }
    with httpx.Client(base_url=route.first.gateway.url, headers=headers, timeout=60) as client:

        def ask() -> dict[str, Any]:
            response = client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200, response.text
            answer: dict[str, Any] = response.json()
            return answer

        # A gateway looks every second who is live.
        answer = ask()
        listed = client.get("/v1/models").json()["data"]
        one = client.get(f"/v1/models/{route.name}").json()
    assert answer["model"] == route.name
    assert answer["choices"][0]["message"]["content"] == WORD * 3
    assert route.name in {model["id"] for model in listed}
    assert one["id"] == route.name
    (job,) = route.first.balance()
    assert job["parameters"]["route"] == route.name
    assert job["sku"] == f"{route.second.deployed.model}@1"


def test_key_whose_list_lacks_every_model_behind_a_route_neither_sees_nor_calls_it(
    set_route: Callable[..., Routed],
) -> None:
    route = set_route()
    statuses: dict[str, list[Any]] = {}
    for allowed in (route.second.deployed.model, route.name, "another"):
        key = create_api_key(
            context=route.first.tenant.owner.context,
            name="till",
            scopes=["inference"],
            allowed_models=[allowed],
        )
        headers = {"Authorization": f"Bearer {key.token}"}
        with httpx.Client(base_url=route.first.gateway.url, headers=headers, timeout=60) as client:
            listed = {model["id"] for model in client.get("/v1/models").json()["data"]}
            found = client.get(f"/v1/models/{route.name}").status_code
            body = {"model": route.name, "messages": [{"role": "user", "content": "go"}]}
            refused = client.post("/v1/chat/completions", json={**body, "max_tokens": 10**6})
            statuses[allowed] = [route.name in listed, found, refused.json()["error"]["code"]]
    # Whoever may use it learns what is wrong with the request; to others there is no such name.
    assert statuses[route.second.deployed.model] == [True, 200, "context_length_exceeded"]
    assert statuses[route.name] == [False, 404, "model_not_found"]
    assert statuses["another"] == [False, 404, "model_not_found"]
    assert route.first.jobs() == []
