"""The campaign's balancer: as patient as an operator's own."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from benchmarks.lib.balancer import Balancer
from benchmarks.lib.portal import free_port

HOST = "127.0.0.1"
CALLS = 64


@pytest.fixture
def alive() -> Iterator[int]:
    """The port of a server that greets each connection."""
    with socket.create_server((HOST, 0), backlog=CALLS) as server:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"hello")

        threading.Thread(target=greet, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_connect_many_at_once_beside_a_dead_server_reaches_the_other_each_time(
    alive: int,
) -> None:
    with Balancer(HOST, [free_port(), alive]) as balancer, ThreadPoolExecutor(CALLS) as callers:
        together = threading.Barrier(CALLS)

        def call(_: int) -> bytes:
            together.wait()
            with socket.create_connection((HOST, balancer.port)) as connection:
                return connection.recv(5)

        assert list(callers.map(call, range(CALLS))) == [b"hello"] * CALLS
