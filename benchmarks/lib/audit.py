"""The books after a run: what was charged, recorded and reserved must agree."""

import time
from dataclasses import dataclass
from typing import Final

import psycopg

_BOOKS: Final = """
WITH jobs AS (
    SELECT count(*) FILTER (WHERE state > 1) AS ended, count(*) FILTER (WHERE state <= 1) AS live,
           coalesce(sum(prompt_tokens + watermark) FILTER (
               WHERE state = 2 OR (state > 1 AND watermark > 0)), 0) AS tokens,
           count(*) FILTER (WHERE state = 2 OR (state > 1 AND watermark > 0)) AS charged
      FROM inference_job
), ledger AS (
    SELECT count(*) AS entries, coalesce(sum(prompt_tokens + completion_tokens), 0) AS tokens,
           coalesce(sum(cost), 0) AS cost FROM tenants_ledgerentry
), windows AS (
    SELECT sum(requests_total_used) AS requests, sum(tokens_total_used) AS tokens,
           sum(cost_total_used) AS cost,
           sum(active + tokens_minute_held + tokens_day_held + tokens_month_held
               + tokens_total_held + cost_minute_held + cost_day_held + cost_month_held
               + cost_total_held) AS held
      FROM tenants_quotawindow
), events AS (
    SELECT count(*) FILTER (WHERE outcome = 'requested') AS requested,
           count(*) FILTER (WHERE outcome <> 'requested') AS outcomes
      FROM audit_event WHERE category = 'job' AND action = 'inference.chat'
)
SELECT jobs.ended, jobs.live, jobs.charged, jobs.tokens, ledger.entries, ledger.tokens, ledger.cost,
       windows.requests, windows.tokens, windows.cost, windows.held, events.requested,
       events.outcomes, (SELECT count(*) FROM inference_jobpayload)
  FROM jobs, ledger, windows, events
"""
_SETTLE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Books:
    """Totals over all tenants; tokens and cost as charged."""

    jobs_ended: int
    jobs_live: int
    jobs_charged: int
    job_tokens: int
    ledger_entries: int
    ledger_tokens: int
    ledger_cost: int
    quota_requests: int
    quota_tokens: int
    quota_cost: int
    quota_held: int
    audit_requests: int
    audit_outcomes: int
    payloads: int

    def faults(self) -> list[str]:
        """What does not agree, in words."""
        jobs = self.jobs_ended + self.jobs_live
        pairs = (
            ("live jobs", self.jobs_live, 0),
            ("held reservations", self.quota_held, 0),
            ("payloads left", self.payloads, 0),
            ("ledger entries and charged jobs", self.ledger_entries, self.jobs_charged),
            ("ledger tokens and delivered tokens", self.ledger_tokens, self.job_tokens),
            ("ledger tokens and quota tokens", self.ledger_tokens, self.quota_tokens),
            ("ledger cost and quota cost", self.ledger_cost, self.quota_cost),
            ("requests counted and jobs", self.quota_requests, jobs),
            ("audited requests and jobs", self.audit_requests, jobs),
            ("audited outcomes and ended jobs", self.audit_outcomes, self.jobs_ended),
        )
        return [
            f"{what}: {found}, not {wanted}" for what, found, wanted in pairs if found != wanted
        ]


def read_books(superuser_url: str) -> Books:
    """The books, once nothing is live any more or 15 seconds have passed."""
    deadline = time.monotonic() + _SETTLE_S
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        while True:
            row = connection.execute(_BOOKS).fetchone()
            assert row is not None
            books = Books(*map(int, row))
            if not books.jobs_live or time.monotonic() > deadline:
                return books
            time.sleep(0.2)
