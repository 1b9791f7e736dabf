"""Wake-ups from wherever work is made."""

import json

import redis

from inference.dispatch import WAKE_TASK
from tests.factories import unique
from tests.servers import SessionServers, manage


def test_command_wakes_a_worker_through_the_portals_broker(servers: SessionServers) -> None:
    queue = unique("queue")
    manage(
        servers.data_dir,
        "shell",
        "--no-imports",
        "-c",
        f"from inference.dispatch import send_wake; send_wake('{queue}')",
    )
    with redis.Redis.from_url(servers.valkey.url()) as broker:
        (message,) = broker.lrange(queue, 0, -1)
    assert json.loads(message)["headers"]["task"] == WAKE_TASK
