"""What two tenants get of a busy deployment, by their weights.

``python -m benchmarks.lib.fairness JOBS`` prints ``Shares`` as JSON. On standard input it is told
a superuser's URL and two API keys of two tenants, a line each. Jobs go through the product's own
admission and its own claim; only HTTP, the broker and the engine are left out.
"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import django
import msgspec
import psycopg
import uvloop

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from benchmarks.lib.claiming import BATCH  # noqa: E402
from benchmarks.lib.seed import LIMIT  # noqa: E402
from inference.engines.base import Message  # noqa: E402
from inference.gateway.admission import Admitted, Ask, Call, Credential  # noqa: E402
from inference.gateway.calls import CHAT, Generation, Origin, Pending  # noqa: E402
from inference.gateway.catalogue import Catalogue, Served  # noqa: E402
from inference.gateway.desk import AdmissionDesk  # noqa: E402
from inference.gateway.link import Link  # noqa: E402
from inference.payloads import Ciphers, Prompt  # noqa: E402
from inference.worker.claims import claimed, send_claim  # noqa: E402
from portal.core.crypto import Keyring, Peppers  # noqa: E402
from portal.core.env import env  # noqa: E402
from portal.core.ids import uuid7  # noqa: E402
from tenants import api_key_format  # noqa: E402

WEIGHTS: Final = (3, 1)
_LONGEST: Final = 400
_AT_ONCE: Final = 200
_ENABLE: Final = "UPDATE inference_deployment SET enabled = %s WHERE name = %s RETURNING id"
_MESSAGES: Final = (Message("user", "Say hello in one sentence."),)


class Shares(msgspec.Struct, frozen=True):
    """What was claimed while both tenants had jobs waiting.

    Attributes:
        tokens: reserved tokens of the jobs that were claimed, of the heavier tenant and the other.
        first_claim: the claim in which a job of the lighter one was, though it came last; from 1.
    """

    tokens: tuple[int, int]
    first_claim: int


async def _admit(token: str, jobs: int, sizes: random.Random) -> None:
    """Admits so many jobs of one tenant, their lengths drawn from ``sizes``."""
    settings = env()
    link, queries = (Link(settings.database_url("gateway"), "fairness") for _ in range(2))
    desk = AdmissionDesk(
        link,
        gateway="fairness",
        peppers=Peppers.parse(settings.api_key_peppers.get_secret_value()),
        ciphers=Ciphers(Keyring.parse(settings.encryption_keys.get_secret_value())),
        job_seconds=86_400,
        running=lambda: _AT_ONCE,
        backlogs=dict,
        ring=lambda queues: None,
        abandon=lambda job_ids: None,
        used=lambda key, at: None,
        committed=lambda size, seconds: None,
    )
    named = (await Catalogue(queries).names()).values()
    served = next(s for s in named if isinstance(s, Served) and s.queue == LIMIT)
    try:
        for begun in range(0, jobs, _AT_ONCE):
            count = min(_AT_ONCE, jobs - begun)
            calls = [_call(token, served, sizes.randint(1, _LONGEST)) for _ in range(count)]
            verdicts = await asyncio.gather(*(desk.submit(call) for call in calls))
            if not all(isinstance(verdict, Admitted) for verdict in verdicts):
                raise SystemExit(f"Not all were admitted: {verdicts[0]}")
    finally:
        await desk.close()
        await link.close()
        await queries.close()


def _call(token: str, served: Served, max_tokens: int) -> Pending:
    key = api_key_format.parse(token)
    assert key is not None
    ids = served.encoder.encode(_MESSAGES)
    ask = Ask(
        served.model_id,
        served.model_name,
        served.deployment_id,
        len(ids),
        max_tokens,
        served.prompt_price,
        served.completion_price,
    )
    return Pending(
        CHAT,
        Origin(f"req-{uuid7().hex}", None, "127.0.0.1"),
        Call(Credential(key.public_id, key.secret), ask),
        datetime.now(UTC),
        Generation(served, Prompt(ids, _MESSAGES), max_tokens, False, {"max_tokens": max_tokens}),
    )


def _claim(tenants: Sequence[UUID], deployment: UUID, jobs: int) -> Shares:
    """Claims as many jobs as one tenant has sent: then both still wait, if order is fair."""
    tokens: Counter[UUID] = Counter()
    first = taken = number = 0
    with psycopg.connect(env().database_url("gateway"), autocommit=True) as worker:
        while taken < jobs:
            number += 1
            cursor = send_claim(
                worker,
                deployment_id=deployment,
                worker="fairness",
                limit=BATCH,
                lease_seconds=3600,
                floor=0,
            )
            found = claimed(cursor)
            taken += len(found)
            for job in found:
                tokens[job.tenant_id] += job.reserved_tokens
            if not first and tokens[tenants[1]]:
                first = number
    return Shares((tokens[tenants[0]], tokens[tenants[1]]), first)


def main() -> None:
    superuser_url, *tokens = sys.stdin.read().split()
    jobs = int(sys.argv[1])
    tenants = []
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        for token, weight in zip(tokens, WEIGHTS, strict=True):
            key = api_key_format.parse(token)
            assert key is not None
            row = superuser.execute(
                "UPDATE tenants_tenant SET weight = %s WHERE id = "
                "(SELECT tenant_id FROM tenants_apikey WHERE public_id = %s) RETURNING id",
                [weight, key.public_id],
            ).fetchone()
            assert row is not None
            tenants.append(row[0])
        found = superuser.execute(_ENABLE, [True, LIMIT]).fetchone()
        assert found is not None
        sizes = random.Random(7)
        for token in tokens:
            uvloop.run(_admit(token, jobs, sizes))
        shares = _claim(tenants, found[0], jobs)
        # What is measured next begins with an empty queue.
        superuser.execute("DELETE FROM inference_job WHERE gateway = 'fairness'")
        superuser.execute(_ENABLE, [False, LIMIT])
    print(msgspec.json.encode(shares).decode())


if __name__ == "__main__":
    main()
