"""PostgreSQL and Valkey that die and come back under running work."""

import signal

from django.db import connection

from inference.models.jobs import JobState
from tests.faults.arena import Arena
from tests.faults.conftest import MakeArena
from tests.servers import SessionServers
from tests.waiting import eventually


def kill_valkey(servers: SessionServers) -> None:
    process = servers.valkey.process
    assert process is not None
    process.kill()
    process.wait()


def crash_postgres(servers: SessionServers) -> None:
    """As if the machine's power had gone, as far as its clients can tell."""
    process = servers.postgres.process
    assert process is not None
    process.send_signal(signal.SIGQUIT)
    process.wait(30)


def serves(arena: Arena) -> bool:
    """Whether a new stream is answered to its end."""
    callers = arena.callers()
    (call,) = callers.start(stream=True, max_tokens=3)
    callers.wait()
    return call.answered


def test_ends_streams_and_answers_the_rest_from_postgresql_when_valkey_is_killed(
    set_arena: MakeArena, servers: SessionServers
) -> None:
    arena = set_arena(token_ms=20, slots=8)
    arena.worker()
    callers = arena.callers()
    streams = callers.start(3, stream=True, max_tokens=2000)
    for call in streams:
        assert call.begun.wait(20)
    whole = callers.start(3, stream=False, max_tokens=30)
    eventually(lambda: arena.in_state(JobState.RUNNING) == 6, what="all run")
    kill_valkey(servers)
    try:
        callers.wait(15)
        # These begin and end while the broker is away.
        without = callers.start(4, stream=False, max_tokens=5)
        callers.wait(15)
    finally:
        servers.valkey.start()
    for call in streams:
        assert (call.finished, call.code, call.broken) == (False, "broker_lost", ""), call
    for call in (*whole, *without):
        assert call.answered, call
    for job in (jobs := arena.balance()):
        assert job["attempts"] == 1
    lost = [job for job in jobs if job["stream"]]
    assert {job["error_code"] for job in lost} == {"broker_lost"}
    assert all(job["watermark"] > 0 for job in lost)
    eventually(lambda: serves(arena), within=20, what="streams flow again")
    arena.balance()


def test_answers_or_refuses_cleanly_while_postgresql_crashes_and_comes_back(
    set_arena: MakeArena, servers: SessionServers
) -> None:
    arena = set_arena(token_ms=10, slots=8)
    arena.worker()
    callers = arena.callers()
    streams = callers.start(3, stream=True, max_tokens=150)
    for call in streams:
        assert call.begun.wait(20)
    whole = callers.start(3, stream=False, max_tokens=50)
    eventually(lambda: len(arena.jobs()) == 6, what="all are admitted")
    connection.close()
    crash_postgres(servers)
    refused = callers.start(4, stream=False, max_tokens=5)
    try:
        eventually(lambda: all(call.status for call in refused), within=10, what="refusals")
    finally:
        servers.postgres.start()
    callers.wait()
    for call in refused:
        assert (call.status, call.code) == (503, "service_unavailable"), call
    for call in (*streams, *whole):
        assert not call.broken, call
        assert call.answered or call.code, call
    jobs = arena.balance()
    assert len(jobs) == 6
    eventually(lambda: serves(arena), within=20, what="calls are served again")
    arena.balance()
