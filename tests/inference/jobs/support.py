"""Jobs as business systems submit them, on the bench that admits a gateway's calls too."""

import base64
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from inference.jobs.submission import JobRequest, Outcome, key_context, submit
from inference.models import JobState
from inference.worker.claims import Claimed
from portal.core.actors import Context
from tenants.services import CreatedKey
from tests.factories import unique
from tests.inference.bench import Bench

ADDRESS = "192.0.2.7"


def context_of(key: CreatedKey, address: str | None = ADDRESS) -> Context:
    """The context of the key's holder, as if its secret had been sent."""
    made = key.api_key
    return key_context(
        tenant_id=made.tenant_id,
        api_key_id=made.id,
        user_id=made.user_id,
        label=made.name,
        request_id=unique("req"),
        address=address,
    )


def body(bench: Bench, *, prompt: str = "hi", max_tokens: int = 8, **more: Any) -> bytes:
    """A chat completion request to the bench's model."""
    return msgspec.json.encode(
        {
            "model": bench.served.model_name,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            **more,
        }
    )


def submit_jobs(bench: Bench, key: CreatedKey, count: int = 1, **options: Any) -> list[UUID]:
    """Submits jobs of one key, and returns their ids; none may be refused."""
    requests = [JobRequest(body(bench), **options) for _ in range(count)]
    return ids(submit(context=context_of(key), requests=requests))


def ids(outcomes: Sequence[Outcome]) -> list[UUID]:
    assert all(outcome.error is None for outcome in outcomes), outcomes
    return [outcome.job_id for outcome in outcomes if outcome.job_id is not None]


def codes(outcomes: Sequence[Outcome]) -> list[str]:
    """Each outcome in a word: the refusal's code, or nothing."""
    return [outcome.error.error_code if outcome.error else "" for outcome in outcomes]


def succeed(bench: Bench, job: Claimed, text: str = "Hello!", tokens: int = 3) -> None:
    """Ends a claimed job as its worker does, its answer kept."""
    cipher = bench.ciphers.of(job.tenant_id, job.data_key_version, job.data_key)
    answer = base64.b64encode(cipher.encrypt(text.encode(), row_id=job.id)).decode()
    ended = bench.end(job, JobState.SUCCEEDED, tokens, answer=answer, finish_reason="stop")
    assert [e.job_id for e in ended] == [job.id]


def claimed(bench: Bench, job_id: UUID) -> Claimed:
    """The claim of this very job."""
    (found,) = [job for job in bench.claim(100) if job.id == job_id]
    return found
