"""What must have been admitted and refused, replayed from the rows, apart from the code under test.

An admission and a settlement of one scope exclude each other, and each takes its time while it
does: so the times in the rows are their order. The replay knows nothing of counters or windows as
the product keeps them, only calls, their times, and what was reserved and charged for each.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from benchmarks.lib.limits import Case

_JOBS: Final = """
SELECT j.admitted_at, j.finished_at, j.reserved_tokens, j.reserved_cost,
       coalesce(l.prompt_tokens + l.completion_tokens, 0), coalesce(l.cost, 0)
  FROM inference_job j LEFT JOIN tenants_ledgerentry l ON l.job_id = j.id
 WHERE j.tenant_id = %s
"""
_REFUSALS: Final = """
SELECT recorded_at FROM audit_event
 WHERE tenant_id = %s AND reason IN ('rate_limit_exceeded', 'insufficient_quota')
"""
# Of two things at one moment a settlement comes first, and a refusal last.
_SETTLED, _ADMITTED, _REFUSED = range(3)


@dataclass(frozen=True, slots=True)
class Job:
    """One admitted call, in tokens and nano-units of currency."""

    admitted_at: datetime
    finished_at: datetime | None
    reserved_tokens: int
    reserved_cost: int
    charged_tokens: int
    charged_cost: int

    def needs(self, metric: str) -> int:
        """What it takes of a limit while it is under way."""
        return (
            1 if metric in ("requests", "concurrency") else int(getattr(self, f"reserved_{metric}"))
        )

    def keeps(self, metric: str) -> int:
        """What it has taken once it has ended."""
        if metric == "concurrency":
            return 0
        return 1 if metric == "requests" else int(getattr(self, f"charged_{metric}"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a case came to.

    Attributes:
        overspent: times at which more was taken than the limit allows.
        phantoms: refusals of calls that fitted.
        unsettled: jobs that have not ended.
    """

    admitted: int
    refused: int
    overspent: int
    phantoms: int
    unsettled: int


def replay(case: Case, jobs: Sequence[Job], refusals: Sequence[datetime]) -> Verdict:
    """Goes through a case's calls in order."""
    metric, _, span = case.limit.partition("_")
    events: list[tuple[datetime, int, Job | None]] = [(at, _REFUSED, None) for at in refusals]
    for job in jobs:
        events.append((job.admitted_at, _ADMITTED, job))
        if job.finished_at is not None:
            events.append((job.finished_at, _SETTLED, job))
    taken: Counter[tuple[int, ...]] = Counter()
    overspent = phantoms = 0
    need = max((job.needs(metric) for job in jobs), default=0)
    for at, kind, job in sorted(events, key=lambda event: event[:2]):
        if job is None:
            phantoms += taken[_window(at, span)] + need <= case.value
        elif kind == _ADMITTED:
            taken[_window(at, span)] += job.needs(metric)
            overspent += taken[_window(at, span)] > case.value
        else:
            # It belongs to the window in which it was admitted, whenever it ends.
            taken[_window(job.admitted_at, span)] += job.keeps(metric) - job.needs(metric)
    unsettled = sum(job.finished_at is None for job in jobs)
    return Verdict(len(jobs), len(refusals), overspent, phantoms, unsettled)


def read(connection: psycopg.Connection[Any], tenant_id: UUID) -> tuple[list[Job], list[datetime]]:
    """A tenant's jobs, and the times of its refusals."""
    jobs = [Job(*row) for row in connection.execute(_JOBS, [tenant_id]).fetchall()]
    refusals = [row[0] for row in connection.execute(_REFUSALS, [tenant_id]).fetchall()]
    return jobs, refusals


def _window(at: datetime, span: str) -> tuple[int, ...]:
    """Which minute, day or month of UTC, where the tenants are at home; one for all of time."""
    parts = (at.year, at.month, at.day, at.hour, at.minute)
    return parts[: {"minute": 5, "day": 3, "month": 2}.get(span, 0)]
