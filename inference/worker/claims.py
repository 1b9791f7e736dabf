"""Claiming and keeping jobs: what a worker does to the queue, as SQL.

PostgreSQL is the only truth. A claim takes a lease and raises the fence; every later write of
the worker names that fence, so a worker that was thought dead and lives on changes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from inference.models.jobs import JobState
from inference.pipelining import Answer, Connection


# Fair order is the order of start tags. With a floor the scan skips the dead entries that fast
# claiming leaves at the head of the index until they are vacuumed; a claim without one, now and
# then, finds what a floor could hide. Each look-up stands behind OFFSET 0: a join would be planned
# by the size that the table had once, and the payloads' is often none.
def _claim(fence: str, condition: str) -> str:
    return f"""
WITH picked AS (
    SELECT id, start_tag FROM inference_job
     WHERE deployment_id = %(deployment)s AND state = {JobState.QUEUED.value}
       AND start_tag >= %(floor)s
     ORDER BY start_tag, id
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), clock AS (
    UPDATE inference_deploymentclock c SET virtual_time = p.latest
      FROM (SELECT max(start_tag) AS latest FROM picked) p
     WHERE c.deployment_id = %(deployment)s AND p.latest > c.virtual_time
), claimed AS (
    UPDATE inference_job j SET state = {JobState.RUNNING.value}, fence = j.fence + {fence},
           attempts = j.attempts + 1, worker = %(worker)s, claimed_at = clock_timestamp(),
           lease_until = clock_timestamp() + %(lease)s * interval '1 second'
      FROM picked WHERE j.id = picked.id
    RETURNING j.id, j.tenant_id, j.fence, j.stream, j.gateway, j.prompt_tokens, j.parameters,
              j.start_tag, j.attempts, j.cancel_requested_at
)
SELECT c.id, c.tenant_id, c.fence, c.stream, c.gateway, c.prompt_tokens, c.parameters::text,
       c.start_tag, c.attempts, c.cancel_requested_at IS NOT NULL, p.prompt, k.version, k.wrapped
  FROM claimed c
 CROSS JOIN LATERAL (SELECT data_key_version, prompt FROM inference_jobpayload
                      WHERE job_id = c.id OFFSET 0) p
 CROSS JOIN LATERAL (SELECT version, wrapped FROM tenants_tenantdatakey
                      WHERE tenant_id = c.tenant_id AND version = p.data_key_version OFFSET 0) k
 WHERE {condition}
"""


CLAIM: Final = _claim("1", "true")

# No caller was promised anything by a claim, so that it need not wait for the disk; the write that
# follows it does. A crash of the server can undo it, and then the job is claimed anew: by a fence
# that is not that of the claim which was lost, whose worker may live on.
CLAIM_LIGHTLY: Final = _claim(
    "1 + (random() * 65535)::integer",
    "(SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL",
)

# Waits for no lock: heartbeat and queue each renew while the other may hold jobs of the batch in
# another order. A job that is locked is being settled, cancelled or renewed at this moment.
RENEW: Final = f"""
WITH x AS (
    SELECT * FROM json_to_recordset(%(rows)s) AS x(job_id uuid, fence integer, watermark integer,
        first_token_at timestamptz)
), free AS (
    SELECT j.id FROM x JOIN inference_job j ON j.id = x.job_id
     WHERE j.fence = x.fence AND j.state + 0 = {JobState.RUNNING.value}
       FOR NO KEY UPDATE OF j SKIP LOCKED
), renewed AS (
    UPDATE inference_job j
       SET lease_until = clock_timestamp() + %(lease)s * interval '1 second',
           watermark = greatest(j.watermark, x.watermark),
           first_token_at = coalesce(j.first_token_at, x.first_token_at)
      FROM free JOIN x ON x.job_id = free.id
     WHERE j.id = free.id
)
SELECT j.id, j.cancel_requested_at IS NOT NULL
  FROM x JOIN inference_job j ON j.id = x.job_id
 WHERE j.fence = x.fence AND j.state + 0 = {JobState.RUNNING.value}
"""

RELEASE: Final = f"""
UPDATE inference_job j SET state = {JobState.QUEUED.value}, lease_until = NULL, worker = '',
       claimed_at = NULL, first_token_at = NULL, watermark = 0,
       attempts = greatest(0, j.attempts - x.forgive)
  FROM json_to_recordset(%(rows)s) AS x(job_id uuid, fence integer, forgive smallint)
 WHERE j.id = x.job_id AND j.fence = x.fence AND j.state + 0 = {JobState.RUNNING.value}
"""


class Parameters(msgspec.Struct, frozen=True):
    """What a claim needs of a job's parameters; the rest of them is for people to read."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    n: int = 1


class Claimed(msgspec.Struct, frozen=True):
    """A job that is this worker's for as long as it renews the lease."""

    id: UUID
    tenant_id: UUID
    fence: int
    stream: bool
    gateway: str
    prompt_tokens: int
    parameters: Parameters
    start_tag: int
    attempts: int
    cancel_requested: bool
    prompt: bytes
    data_key_version: int
    data_key: bytes

    @property
    def reserved_tokens(self) -> int:
        """The prompt and the longest answers asked for: what fair order counts."""
        return self.prompt_tokens + self.parameters.n * self.parameters.max_tokens


class Progress(msgspec.Struct, frozen=True):
    """How far a running job has come; ``watermark`` counts delivered completion tokens."""

    job_id: UUID
    fence: int
    watermark: int
    first_token_at: datetime | None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Parameters).decode
_PARAMETERS: Final = Claimed.__struct_fields__.index("parameters")


def send_claim(
    connection: Connection,
    *,
    deployment_id: UUID,
    worker: str,
    limit: int,
    lease_seconds: float,
    floor: int,
    lightly: bool = False,
) -> Answer:
    """Sends a claim of up to ``limit`` jobs; ``claimed`` reads what it got.

    Args:
        lightly: nothing else is in this transaction, which need not wait for the disk.
    """
    parameters = {
        "deployment": deployment_id,
        "worker": worker,
        "limit": limit,
        "lease": lease_seconds,
        "floor": floor,
    }
    return connection.execute(CLAIM_LIGHTLY if lightly else CLAIM, parameters, prepare=True)


def claimed(cursor: Answer) -> list[Claimed]:
    """The claimed jobs, in fair order."""
    return sorted(map(_claimed, cursor.fetchall()), key=lambda job: (job.start_tag, job.id))


def _claimed(row: Sequence[Any]) -> Claimed:
    values = list(row)
    values[_PARAMETERS] = _decode(row[_PARAMETERS])
    return Claimed(*values)


def send_renewal(
    connection: Connection, progress: Sequence[Progress], *, lease_seconds: float
) -> Answer:
    """Sends renewed leases and watermarks; ``renewed`` reads the answer."""
    rows = _encode(
        [
            {
                "job_id": p.job_id,
                "fence": p.fence,
                "watermark": p.watermark,
                "first_token_at": p.first_token_at,
            }
            # In id order, as settlement locks them: no circle of waiting can form.
            for p in sorted(progress, key=lambda p: p.job_id)
        ]
    ).decode()
    parameters = {"lease": lease_seconds, "rows": rows}
    return connection.execute(RENEW, parameters, prepare=True)


def renewed(cursor: Answer) -> dict[UUID, bool]:
    """For each job that is still this worker's, whether its cancellation was asked for.

    A job that is missing was lost to another claim or has ended.
    """
    return dict(cursor.fetchall())


def send_release(
    connection: Connection, jobs: Sequence[tuple[UUID, int]], *, forgive: bool
) -> None:
    """Puts jobs that have shown nothing back into the queue, at their old place.

    Args:
        jobs: id and fence of each.
        forgive: whether the attempt does not count (a drain is no fault of the job's).
    """
    rows = _encode(
        [{"job_id": i, "fence": f, "forgive": 1 if forgive else 0} for i, f in jobs]
    ).decode()
    connection.execute(RELEASE, {"rows": rows}, prepare=True)
