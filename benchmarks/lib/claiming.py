"""Claims from a queue in which many jobs wait.

``python -m benchmarks.lib.claiming COUNT...`` with a superuser's URL on standard input prints a
list of ``Claims`` as JSON, one for each number of waiting jobs.
"""

import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import django
import msgspec
import psycopg

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from benchmarks.lib.seed import LIMIT  # noqa: E402
from inference.worker.claims import claimed, send_claim  # noqa: E402
from portal.core.env import env  # noqa: E402

BATCH: Final = 32
_CLAIMS: Final = 30

# Start tags grow with the row, as they do for one tenant that sends faster than it is served.
_FILL: Final = """
INSERT INTO inference_job (id, tenant_id, deployment_id, model_id, api_key_id, user_id, sku,
    kind, state, stream, parameters, request_id, gateway, quota_ids, prompt_tokens,
    reserved_tokens, reserved_cost, prompt_price, completion_price, currency, start_tag,
    attempts, fence, worker, admitted_at, deadline, watermark, finish_reason, error_code,
    error_message)
SELECT gen_random_uuid(), k.tenant_id, d.id, d.model_id, k.id, k.user_id, 'queue@1', 'chat', 0,
    false, '{"max_tokens": 16}', 'req-' || n, 'queue', '{}', 16, 32, 0, 0, 0, 'USD', n * 1000, 0,
    0, '', now(), now() + interval '1 day', 0, '', '', ''
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) n, inference_deployment d,
       (SELECT * FROM tenants_apikey LIMIT 1) k
 WHERE d.name = %(deployment)s
"""
_FILL_PAYLOADS: Final = """
INSERT INTO inference_jobpayload (job_id, tenant_id, data_key_version, prompt)
SELECT j.id, j.tenant_id, 1, '\\x00'::bytea || j.request_id::bytea
  FROM inference_job j
 WHERE NOT EXISTS (SELECT 1 FROM inference_jobpayload p WHERE p.job_id = j.id)
"""


class Claims(msgspec.Struct, frozen=True):
    """What claims took while so many jobs waited, in milliseconds."""

    waiting: int
    statement_p50_ms: float
    statement_worst_ms: float
    transaction_p50_ms: float


def measure(superuser_url: str, url: str, waiting: Sequence[int]) -> list[Claims]:
    """Fills the queue to each number of waiting jobs in turn, and claims at each."""
    measured, filled = [], 0
    with (
        psycopg.connect(superuser_url, autocommit=True) as superuser,
        psycopg.connect(url, autocommit=True) as worker,
    ):
        deployment = _one(superuser, "SELECT id FROM inference_deployment WHERE name = %s", LIMIT)
        for count in waiting:
            still = _one(superuser, "SELECT count(*) FROM inference_job WHERE state = 0")
            last = filled + count - still
            print(f"filling the queue to {count:,} waiting jobs", file=sys.stderr, flush=True)
            span = {"first": filled + 1, "last": last, "deployment": LIMIT}
            superuser.execute(_FILL, span)
            superuser.execute(_FILL_PAYLOADS)
            filled = last
            measured.append(_claim(worker, deployment, count))
    return measured


def _claim(worker: psycopg.Connection[Any], deployment: UUID, waiting: int) -> Claims:
    statements, transactions = [], []
    for number in range(_CLAIMS):
        begun = time.perf_counter()
        with worker.transaction():
            sent = time.perf_counter()
            cursor = send_claim(
                worker,
                deployment_id=deployment,
                worker="queue",
                limit=BATCH,
                lease_seconds=3600,
                floor=0,
            )
            rows = claimed(cursor)
            answered = time.perf_counter()
        if len(rows) != BATCH:
            raise SystemExit(f"A claim of {BATCH} got {len(rows)} of {waiting:,} waiting jobs.")
        if number:  # The first one prepares the statement.
            statements.append(1000 * (answered - sent))
            transactions.append(1000 * (time.perf_counter() - begun))
    return Claims(
        waiting, statistics.median(statements), max(statements), statistics.median(transactions)
    )


def _one(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def main() -> None:
    superuser_url = sys.stdin.readline().strip()
    waiting = [int(word) for word in sys.argv[1:]]
    measured = measure(superuser_url, env().database_url("gateway"), waiting)
    print(msgspec.json.encode(measured).decode())


if __name__ == "__main__":
    main()
