"""How long a new request would wait for a deployment, told from a few numbers.

Fair order makes it cheap. A flow's virtual time runs ahead of the queue's head by what it has
waiting there, divided by its weight; so what would be served before a request with start tag S is,
over all flows, what each has between the head and S. Nobody counts the queue.

Work is counted in reserved tokens: a prompt and the longest answer asked for. Jobs that are
cancelled while they wait still count until the head has passed them.
"""

from typing import Final
from uuid import UUID

import msgspec

from inference.fair_order import EARLIEST_TAG_SQL, FLOW_WEIGHT_SQL, VIRTUAL_UNIT
from inference.models.jobs import JobState

WORKER_SECONDS: Final = 10
"""A worker whose heartbeat is older than this has died or hangs."""

READY: Final = f"""w.state = 'ready'
               AND w.heartbeat_at > now() - interval '{WORKER_SECONDS} seconds'"""
"""Condition on a worker ``w`` that holds its model and takes work."""

LIVE: Final = f"SELECT DISTINCT w.deployment_id FROM inference_worker w WHERE {READY}"
"""Deployments that have such a worker."""

READ: Final = f"""
SELECT q.id, q.head, q.pace,
       (SELECT json_agg(json_build_array(s.tenant_id, s.priority, s.virtual_time,
                  {FLOW_WEIGHT_SQL.format(weight="t.weight", priority="s.priority")}))::text
          FROM inference_fairshare s JOIN tenants_tenant t ON t.id = s.tenant_id
         WHERE s.deployment_id = q.id AND s.virtual_time > q.head)
  FROM (
    SELECT d.id,
           (SELECT j.start_tag FROM inference_job j
             WHERE j.deployment_id = d.id AND j.state = {JobState.QUEUED.value}
               AND j.start_tag >= {EARLIEST_TAG_SQL.format(tag="c.virtual_time")}
             ORDER BY j.start_tag, j.id LIMIT 1) AS head,
           -- A worker that has not been full yet is taken for an average one.
           (SELECT avg(w.pace) * count(*) FROM inference_worker w
             WHERE w.deployment_id = d.id AND {READY}) AS pace
      FROM inference_deployment d
      JOIN inference_deploymentclock c ON c.deployment_id = d.id
     WHERE d.enabled) q
 WHERE q.head IS NOT NULL
"""
"""Rows for `Backlog.of`, of deployments where something waits; its role must see all shares."""

_MOST_RANKS: Final = 10_000

WRITE: Final = f"""
INSERT INTO inference_queueforecast (deployment_id, read_at, head, pace, shares, ranks)
SELECT b.id, clock_timestamp(), b.head, b.pace,
       coalesce((SELECT jsonb_agg(share - 0 - 0) FROM jsonb_array_elements(b.shares::jsonb) share),
                '[]'),
       (SELECT jsonb_agg(jsonb_build_array(n, start_tag) ORDER BY n)
          FROM (SELECT start_tag, row_number() OVER (ORDER BY start_tag, id) AS n
                  FROM (SELECT start_tag, id FROM inference_job
                         WHERE deployment_id = b.id AND state = {JobState.QUEUED.value}
                           AND start_tag >= b.head
                         ORDER BY start_tag, id LIMIT {_MOST_RANKS}) waiting) ranked
         WHERE n <= 100 OR n % 100 = 0)
  FROM ({READ}) b (id, head, pace, shares)
ON CONFLICT (deployment_id) DO UPDATE SET read_at = EXCLUDED.read_at, head = EXCLUDED.head,
       pace = EXCLUDED.pace, shares = EXCLUDED.shares, ranks = EXCLUDED.ranks
"""
"""Writes the forecasts of all deployments, without saying whose the shares are."""

_decode: Final = msgspec.json.Decoder(tuple[tuple[UUID, int, int, float], ...]).decode


class Backlog(msgspec.Struct, frozen=True):
    """What waits for a deployment.

    Attributes:
        head: start tag of the job that is next.
        pace: reserved tokens a second that its workers take; None while that is not known.
        drawn: tenant, class of priority, virtual time and weight of each flow that is ahead of
            the head; the tenant is None where it is not told.
    """

    head: int
    pace: float | None
    drawn: tuple[tuple[UUID | None, int, int, float], ...]

    @classmethod
    def of(cls, head: int, pace: float | None, drawn: str | None) -> "Backlog":
        """The backlog in a row of ``READ``, without its deployment."""
        return cls(head, pace, _decode(drawn or "[]"))

    @property
    def anonymous(self) -> bool:
        """Whether it does not say whose its flows are."""
        return bool(self.drawn) and self.drawn[0][0] is None

    def tokens_ahead(
        self, start: float, *, clock: int = 0, own: tuple[UUID, int, float] | None = None
    ) -> float:
        """Reserved tokens that are served before a start tag; infinity asks for all.

        Args:
            clock: the deployment's virtual time, which may have passed the head since it was read.
            own: tenant, class and weight of the flow of a request that comes now with that tag,
                which is where its flow ends, whatever that was when it was read.
        """
        head = max(self.head, clock)
        virtual = max(0, start - head) * own[2] if own else 0
        for tenant, priority, at, weight in self.drawn:
            if own is None or (tenant, priority) != own[:2]:
                virtual += max(0, min(at, start) - head) * weight
        return virtual / VIRTUAL_UNIT

    def wait_seconds(
        self, start: float, *, clock: int = 0, own: tuple[UUID, int, float] | None = None
    ) -> float | None:
        """Seconds until a start tag is claimed; None while the pace is not known."""
        if not self.pace:
            return None
        return self.tokens_ahead(start, clock=clock, own=own) / self.pace
