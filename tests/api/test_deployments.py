"""Models, versions, deployments and workers on the management API."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from inference.models import Deployment
from portal.core.actors import PlatformRole
from portal.core.ids import uuid7
from tests import factories
from tests.api.callers import Caller, session_caller
from tests.factories import unique
from tests.live import deploy
from tests.servers import SessionServers


@pytest.fixture
def system(database: None) -> Caller:
    return session_caller(factories.administrator(PlatformRole.SYSTEM).user)


@pytest.fixture
def superuser(servers: SessionServers) -> Iterator[psycopg.Connection]:
    with psycopg.connect(servers.url("superuser"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def deployment(servers: SessionServers, database: None) -> Deployment:
    name = unique("managed")
    deploy(servers, name)
    return Deployment.objects.get(name=name)


def make_worker(superuser: psycopg.Connection, deployment: Deployment, **columns: Any) -> UUID:
    """A row as a worker's beat writes it."""
    now = datetime.now(UTC)
    row = {
        "id": uuid7(),
        "name": unique("worker"),
        "deployment_id": deployment.pk,
        "version_digest": deployment.version.digest,
        "engine": "fake",
        "state": "ready",
        "detail": "",
        "slots": 4,
        "running": 1,
        "started_at": now,
        "heartbeat_at": now,
        **columns,
    }
    names = ", ".join(row)
    places = ", ".join(["%s"] * len(row))
    query = f"INSERT INTO inference_worker ({names}) VALUES ({places})"
    superuser.execute(query.encode(), list(row.values()))
    found: UUID = row["id"]
    return found


def actions(superuser: psycopg.Connection, object_id: object) -> list[str]:
    query = "SELECT action FROM audit_event WHERE category <> 'change' AND object_id = %s"
    return [action for (action,) in superuser.execute(query, [str(object_id)])]


def test_version_is_registered_priced_and_its_model_renamed(
    system: Caller, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    name, artefact = unique("model"), deployment.version.path.rpartition("/")[2]
    body = {"model": name, "version": "1", "artefact": artefact, "title": "First"}
    made = system.post("model-versions", body)
    assert made.status_code == 201, made.content
    version = made.json()
    assert (version["model"], version["version"], version["prices"]) == (name, "1", [])
    assert version["digest"] == deployment.version.digest
    price = {"prompt_micros_per_million": 5, "completion_micros_per_million": 7}
    path = f"model-versions/{version['id']}"
    assert system.post(f"{path}/prices", price).status_code == 201
    (shown,) = system.get(path).json()["prices"]
    assert (shown["prompt_micros_per_million"], shown["currency"]) == (5, "USD")
    assert system.get(f"{path}/prices").json()["items"] == [shown]
    changed = system.call("PATCH", f"models/{version['model_id']}", {"title": "Second"})
    assert changed.status_code == 200
    assert (changed.json()["title"], changed.json()["name"]) == ("Second", name)
    assert [v["id"] for v in changed.json()["versions"]] == [version["id"]]
    assert "model.edit" in actions(superuser, version["model_id"])


@pytest.mark.parametrize("artefact", ["../secrets", "nothing", "a/b", "."])
def test_register_of_an_artefact_that_is_not_there_is_refused(
    system: Caller, artefact: str
) -> None:
    body = {"model": unique("model"), "version": "1", "artefact": artefact}
    refused = system.post("model-versions", body)
    assert refused.status_code == 400
    assert "artefact" in refused.content.decode()


def test_deployment_is_made_edited_switched_and_deleted(
    system: Caller, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    name = unique("made")
    made = system.post(
        "deployments",
        {
            "name": name,
            "version_id": str(deployment.version_id),
            "engine": "fake",
            "options": {"slots": 3},
        },
    )
    assert made.status_code == 201, made.content
    found = made.json()
    assert (found["queue"], found["options"], found["enabled"]) == (name, {"slots": 3}, True)
    assert found["load"]["queued"] == 0
    path = f"deployments/{found['id']}"
    edited = system.call("PATCH", path, {"options": {"slots": 9}, "default_max_tokens": 5})
    assert (edited.json()["options"], edited.json()["default_max_tokens"]) == ({"slots": 9}, 5)
    other = system.post(
        "model-versions",
        {
            "model": deployment.model.name,
            "version": "2",
            "artefact": deployment.version.path.rpartition("/")[2],
        },
    ).json()
    switched = system.call("PATCH", path, {"version_id": other["id"]})
    assert (switched.json()["version"], switched.json()["version_id"]) == ("2", other["id"])
    assert system.post(f"{path}/disable", {}).json()["enabled"] is False
    assert system.post(f"{path}/enable", {}).json()["enabled"] is True
    assert system.call("DELETE", path).status_code == 204
    assert system.get(path).status_code == 404
    assert {"deployment.create", "deployment.edit", "deployment.delete"} <= set(
        actions(superuser, found["id"])
    )


def test_switch_to_a_version_of_another_model_is_refused(
    system: Caller, deployment: Deployment, servers: SessionServers
) -> None:
    deploy(servers, other := unique("other"))
    version = Deployment.objects.get(name=other).version_id
    refused = system.call("PATCH", f"deployments/{deployment.pk}", {"version_id": str(version)})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")


def test_switch_to_another_vocabulary_while_a_worker_holds_the_model_is_refused(
    system: Caller, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    version = system.post(
        "model-versions",
        {
            "model": deployment.model.name,
            "version": "2",
            "artefact": deployment.version.path.rpartition("/")[2],
        },
    ).json()
    superuser.execute(
        "UPDATE inference_modelversion SET path = '/nowhere' WHERE id = %s", [version["id"]]
    )
    worker = make_worker(superuser, deployment)
    path, body = f"deployments/{deployment.pk}", {"version_id": version["id"]}
    refused = system.call("PATCH", path, body)
    assert (refused.status_code, "another way" in refused.json()["detail"]) == (409, True)
    superuser.execute("UPDATE inference_worker SET state = 'unloaded' WHERE id = %s", [worker])
    assert system.call("PATCH", path, body).status_code == 200


@pytest.mark.parametrize(
    ("options", "named"),
    [({"slots": 0}, "slots"), ({"slotz": 1}, "slotz"), ({"token_ms": "fast"}, "token_ms")],
)
def test_options_that_the_engine_does_not_know_are_refused_by_name(
    system: Caller, deployment: Deployment, options: dict[str, Any], named: str
) -> None:
    refused = system.call("PATCH", f"deployments/{deployment.pk}", {"options": options})
    assert refused.status_code == 400
    assert named in refused.json()["detail"]


def test_options_of_an_engine_with_its_own_process_are_checked_there(
    system: Caller, deployment: Deployment
) -> None:
    body = {"engine": "openvino", "options": {"cache_mb": 1}}
    refused = system.call("PATCH", f"deployments/{deployment.pk}", body)
    assert refused.status_code == 400
    assert "cache_mb" in refused.json()["detail"]
    body["options"] = {"cache_mb": 64}
    assert system.call("PATCH", f"deployments/{deployment.pk}", body).status_code == 200


def test_options_of_a_deployment_whose_machine_decides_are_those_of_an_engine_it_may_take(
    system: Caller, deployment: Deployment
) -> None:
    path = f"deployments/{deployment.pk}"
    for options, named in [
        # vLLM's, which never serves such a model.
        ({"tensor_parallel": 2}, "tensor_parallel"),
        ({"cache_mb": 64, "slotz": 1}, "slotz"),
        ({"cache_mb": "much"}, "cache_mb"),
    ]:
        refused = system.call("PATCH", path, {"engine": "auto", "options": options})
        assert refused.status_code == 400
        assert named in refused.json()["detail"]
    made = {
        "name": unique("auto"),
        "version_id": str(deployment.version_id),
        "engine": "auto",
        "options": {"slotz": 1},
    }
    refused = system.call("POST", "deployments", made)
    assert (refused.status_code, "slotz" in refused.json()["detail"]) == (400, True)
    kept = system.call("PATCH", path, {"engine": "auto", "options": {"cache_mb": 64}})
    assert (kept.status_code, kept.json()["options"]) == (200, {"cache_mb": 64})


def test_delete_of_a_deployment_with_a_worker_is_refused(
    system: Caller, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    worker = make_worker(superuser, deployment)
    path = f"deployments/{deployment.pk}"
    refused = system.call("DELETE", path)
    assert (refused.status_code, "stop them first" in refused.json()["detail"]) == (409, True)
    superuser.execute("UPDATE inference_worker SET state = 'stopped' WHERE id = %s", [worker])
    assert system.call("DELETE", path).status_code == 204


def test_workers_tell_their_figures_and_that_they_are_stale(
    system: Caller, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    worker = make_worker(
        superuser,
        deployment,
        version_digest="another",
        loaded='{"engine": "fake", "options": {"slots": 1}, "context_length": 4096}',
        tokens_per_second=12.5,
        resident_bytes=1000,
        memory_bytes=70,
        cache_tokens=50,
        cached_tokens=5,
        waiting=2,
    )
    (shown,) = system.get(f"deployments/{deployment.pk}/workers").json()["items"]
    assert shown == system.get(f"workers/{worker}").json()
    assert shown["stale"] == ["version", "options"]
    assert (shown["state"], shown["desired_state"], shown["pending"]) == ("ready", "serving", False)
    assert (shown["tokens_per_second"], shown["waiting"], shown["cached_tokens"]) == (12.5, 2, 5)
    load = system.get(f"deployments/{deployment.pk}").json()["load"]
    assert (load["workers"], load["ready"], load["running"], load["slots"]) == (1, 1, 1, 4)
    assert (load["tokens_per_second"], load["memory_bytes"]) == (12.5, 1000)
    superuser.execute(
        "UPDATE inference_worker SET heartbeat_at = %s WHERE id = %s",
        [datetime.now(UTC) - timedelta(minutes=1), worker],
    )
    assert system.get(f"workers/{worker}").json()["state"] == "silent"


def test_orders_are_written_down_audited_and_refused_in_words(
    system: Caller, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    worker = make_worker(superuser, deployment)
    told = system.post(f"workers/{worker}/orders", {"order": "drain"})
    assert told.status_code == 200, told.content
    assert (told.json()["desired_state"], told.json()["pending"]) == ("drained", True)
    again = system.post(f"workers/{worker}/orders", {"order": "drain"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "drained already" in again.json()["detail"]
    all_told = system.post(f"deployments/{deployment.pk}/orders", {"order": "unload"})
    assert [w["desired_state"] for w in all_told.json()["workers"]] == ["unloaded"]
    none = system.post(f"deployments/{deployment.pk}/orders", {"order": "resume"})
    assert none.status_code == 409
    assert system.post(f"workers/{worker}/orders", {"order": "explode"}).status_code == 400
    assert system.post(f"workers/{uuid7()}/orders", {"order": "load"}).status_code == 404
    assert actions(superuser, worker).count("worker.drain") == 1
    assert actions(superuser, worker).count("worker.unload") == 1
