"""Whether the books are right: what callers were told, against the rows, by sums of its own.

Nothing here uses the product's code. What must hold is written down as queries over raw rows that
count what breaks it, and as comparisons of rows with testimony.
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import psycopg

from benchmarks.lib.business import Batched, Submitted
from benchmarks.lib.witnesses import Told, consecutive

_STATES: Final = ("queued", "running", "succeeded", "failed", "cancelled", "dead")
_SUCCEEDED: Final = _STATES.index("succeeded")
_TERMINAL: Final = "(2, 3, 4, 5)"

RULES: Final = {
    "jobs_not_ended": f"SELECT count(*) FROM inference_job WHERE state NOT IN {_TERMINAL}",
    # Its admission is recorded once, and so is its one end.
    "jobs_without_one_admission": """
        SELECT count(*) FROM inference_job j
         WHERE 1 <> (SELECT count(*) FROM audit_event e
                      WHERE e.object_id = j.id::text AND e.outcome = 'requested'
                        AND e.action = 'inference.' || j.kind)""",
    "jobs_without_one_outcome": """
        SELECT count(*) FROM inference_job j
         WHERE 1 <> (SELECT count(*) FROM audit_event e
                      WHERE e.object_id = j.id::text AND e.category = 'job'
                        AND e.outcome IN ('success', 'failure'))""",
    "jobs_charged_twice": """
        SELECT count(*) FROM (SELECT job_id FROM tenants_ledgerentry
                               GROUP BY job_id HAVING count(*) > 1) twice""",
    "charges_without_a_job": """
        SELECT count(*) FROM tenants_ledgerentry l
         WHERE NOT EXISTS (SELECT 1 FROM inference_job j WHERE j.id = l.job_id)""",
    # What is charged is the watermark, with the prompt; and nothing where nothing was delivered.
    "charges_that_are_not_the_watermark": f"""
        SELECT count(*) FROM inference_job j LEFT JOIN tenants_ledgerentry l ON l.job_id = j.id
         WHERE coalesce(l.completion_tokens, 0) <> j.watermark
            OR coalesce(l.prompt_tokens, 0) <> CASE
                   WHEN j.watermark > 0 OR j.state = {_SUCCEEDED} THEN j.prompt_tokens ELSE 0 END
            OR coalesce(l.cost, 0) <> ceil((coalesce(l.prompt_tokens, 0) * j.prompt_price
                   + coalesce(l.completion_tokens, 0) * j.completion_price) / 1000.0)""",
    "windows_that_still_hold": """
        SELECT count(*) FROM tenants_quotawindow
         WHERE active <> 0 OR tokens_total_held <> 0 OR cost_total_held <> 0
            OR tokens_minute_held <> 0 OR tokens_day_held <> 0 OR tokens_month_held <> 0""",
    # Counters of all time, against the ledger and the jobs.
    "windows_that_miscount": """
        SELECT count(*) FROM tenants_quotawindow w
          LEFT JOIN (
               SELECT quota_id, count(*) AS requests, sum(l.cost) AS cost,
                      sum(l.prompt_tokens + l.completion_tokens) AS tokens
                 FROM inference_job j CROSS JOIN LATERAL unnest(j.quota_ids) quota_id
                 LEFT JOIN tenants_ledgerentry l ON l.job_id = j.id
                GROUP BY quota_id) s ON s.quota_id = w.quota_id
         WHERE w.tokens_total_used <> coalesce(s.tokens, 0)
            OR w.cost_total_used <> coalesce(s.cost, 0)
            OR w.requests_total_used <> coalesce(s.requests, 0)""",
    "payloads_beyond_their_time": """
        SELECT count(*) FROM inference_jobpayload p JOIN inference_job j ON j.id = p.job_id
         WHERE p.delete_after IS NULL OR p.delete_after < now() - interval '1 minute'""",
    "charges_rolled_up_wrongly": """
        SELECT count(*) FROM (
            SELECT tenant_id, user_id, api_key_id, sku, sum(prompt_tokens) AS p,
                   sum(completion_tokens) AS c, sum(cost) AS cost, count(*) AS n
              FROM tenants_ledgerentry GROUP BY 1, 2, 3, 4) l
          FULL JOIN (
            SELECT tenant_id, user_id, api_key_id, sku, sum(prompt_tokens) AS p,
                   sum(completion_tokens) AS c, sum(cost) AS cost, sum(requests) AS n
              FROM tenants_usagebucket GROUP BY 1, 2, 3, 4) u
            USING (tenant_id, user_id, api_key_id, sku)
         WHERE (l.p, l.c, l.cost, l.n) IS DISTINCT FROM (u.p, u.c, u.cost, u.n)""",
}
"""What must never be: each counts rows that break a rule, and must be 0."""

# A delivery that a kill cut off or the receiver refused comes again, some of them after minutes.
_TO_COME: Final = b"SELECT job_id FROM inference_webhookdelivery WHERE due_at IS NOT NULL"
_JOBS: Final = b"SELECT id, state, prompt_tokens, watermark FROM inference_job"


@dataclass(frozen=True, slots=True)
class Depositions:
    """What everybody was told.

    Attributes:
        ended: job -> the states that its webhooks told of; filled as they come.
    """

    calls: Sequence[Told]
    submitted: Sequence[Submitted] = ()
    batches: Sequence[Batched] = ()
    ended: Mapping[UUID, set[str]] = field(default_factory=dict)

    def answers(self) -> list[Told]:
        """Every answer, however it was asked for."""
        results = [job.answer for job in self.submitted if job.answer is not None]
        lines = [told for batch in self.batches for _, told in batch.results]
        return [*self.calls, *results, *lines]


def judge(superuser_url: str, testimony: Depositions, patience_s: float) -> dict[str, int]:
    """How often each rule and promise is broken, once the portal has come to rest.

    Args:
        patience_s: how long it may take to come to rest.
    """
    deadline = time.monotonic() + patience_s
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        while True:
            broken = broken_rules(connection) | broken_promises(connection, testimony)
            if not any(broken.values()) or time.monotonic() > deadline:
                return broken
            time.sleep(1.0)


def show(figures: Mapping[str, Any]) -> None:
    """Prints figures, and what is broken among them."""
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{name.replace('_', ' ')}:")
            show({f"  {inner}": count for inner, count in value.items()})
        else:
            print(f"{name.replace('_', ' '):<40}  {value:>8,}")


def broken_rules(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """How many rows break each rule."""
    found = {}
    for name, query in RULES.items():
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        found[name] = int(row[0])
    return found


def broken_promises(connection: psycopg.Connection[Any], testimony: Depositions) -> dict[str, int]:
    """What callers were told and the rows, or the engine, gainsay."""
    jobs = {row[0]: row[1:] for row in connection.execute(_JOBS).fetchall()}
    found: Counter[str] = Counter()
    answers = testimony.answers()
    for told in answers:
        found["answers_with_a_gap"] += not consecutive(told.words)
        if told.job_id is None:
            continue
        job = jobs.get(told.job_id)
        if job is None:
            found["answers_without_a_job"] += 1
        elif told.finished:
            found.update(_finished(told, *job))
    shown = Counter(told.job_id for told in answers if told.job_id is not None)
    found["jobs_answered_twice"] += sum(count > 1 for count in shown.values())
    states = {job_id: _STATES[state] for job_id, (state, _, _) in jobs.items()}
    to_come = {job_id for (job_id,) in connection.execute(_TO_COME).fetchall()}
    for submitted in testimony.submitted:
        found.update(_submitted(submitted, states, testimony.ended, to_come))
    for batch in testimony.batches:
        found.update(_batch(batch))
    return dict(found)


def _submitted(
    job: Submitted,
    states: Mapping[UUID, str],
    ended: Mapping[UUID, set[str]],
    to_come: Collection[UUID],
) -> Counter[str]:
    ids = [job_id for job_id in job.job_ids if job_id in states]
    awaited = [job_id for job_id in ids if job.calls_back and job_id not in to_come]
    called = [ended.get(job_id, set()) for job_id in awaited]
    return Counter(
        submissions_that_made_two_jobs=int(len(job.job_ids) > 1),
        jobs_accepted_and_lost=len(job.job_ids) - len(ids),
        jobs_told_of_another_end=sum(states[job_id] != job.state for job_id in ids),
        webhooks_lost=sum(not told for told in called),
        webhooks_that_lie=sum(bool(told - {job.state}) for told in called),
    )


def _batch(batch: Batched) -> Counter[str]:
    came = Counter([name for name, _ in batch.results] + batch.errors)
    return Counter(
        batches_not_completed=int(batch.state != "completed"),
        lines_without_one_result=sum(came[name] != 1 for name in batch.lines),
        lines_that_nobody_sent=len(set(came) - set(batch.lines)),
    )


def _finished(told: Told, state: int, prompt: int, watermark: int) -> Counter[str]:
    return Counter(
        answers_of_unsuccessful_jobs=int(state != _SUCCEEDED),
        answers_of_another_length=int(len(told.words) != watermark),
        answers_with_another_usage=int(told.usage != (prompt, watermark)),
    )
