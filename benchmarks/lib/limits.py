"""Tenants that each have one limit, one of every kind.

``python -m benchmarks.lib.limits CALLS``, on a seeded database, prints a list of ``Case`` as JSON;
each limit lets through about CALLS calls, those of a minute at most 100, those on generations at
once two.
"""

import os
import sys
from typing import Any, Final
from uuid import UUID

import msgspec

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

from benchmarks.lib.seed import deploy, tenant_with_key

DEPLOYMENT: Final = "bench-limits"
MAX_TOKENS: Final = 40
AT_ONCE: Final = 2

_PRICES: Final = (1_000_000, 2_000_000)
# Answers are shorter than what is reserved for them, so that much comes back.
_OPTIONS: Final = {"token_ms": 5, "slots": 48, "tokens": 12}
_SCOPES: Final = {
    "tenant": (
        *(f"{m}_{w}" for m in ("tokens", "requests", "cost") for w in ("minute", "day", "month")),
        "tokens_total",
        "requests_total",
        "cost_total",
        "concurrency",
    ),
    "key": ("tokens_day", "requests_minute", "concurrency"),
    "user": ("cost_day", "requests_total"),
    "model": ("tokens_total", "concurrency"),
    "key and model": ("requests_day",),
}
_A_MINUTE: Final = 100
# Less than a call is charged of each, so that every limit is reached in time.
_OF_A_CALL: Final = {"tokens": 10, "requests": 1, "cost": 18_000}


class Case(msgspec.Struct, frozen=True):
    """One limit, and who is bound by it."""

    tenant_id: UUID
    token: str
    scope: str
    limit: str
    value: int


def make(calls: int) -> list[Case]:
    """Makes a deployment, and a tenant for every kind of limit."""
    from portal.core.actors import Context

    context = Context.system("benchmark")
    model_id = deploy(context, DEPLOYMENT, _OPTIONS, prices=_PRICES)
    return [
        _case(context, f"{number}-{limit}".replace("_", "-"), scope, limit, calls, model_id)
        for number, (scope, limit) in enumerate((s, n) for s in _SCOPES for n in _SCOPES[s])
    ]


def _case(context: Any, slug: str, scope: str, limit: str, calls: int, model_id: UUID) -> Case:
    from tenants.services import set_quota

    owner, key = tenant_with_key(context, f"limit-{slug}")
    metric, _, span = limit.partition("_")
    least = min(calls, _A_MINUTE) if span == "minute" else calls
    value = AT_ONCE if limit == "concurrency" else least * _OF_A_CALL[metric]
    whose: dict[str, UUID] = {}
    if "key" in scope:
        whose["api_key_id"] = key.api_key.id
    if "user" in scope:
        whose["user_id"] = owner.user_id
    if "model" in scope:
        whose["model_id"] = model_id
    by = owner if "api_key_id" in whose or "user_id" in whose else context
    set_quota(context=by, tenant_id=owner.tenant_id, **whose, **{limit: value})
    return Case(owner.tenant_id, key.token, scope, limit, value)


def main() -> None:
    django.setup()
    print(msgspec.json.encode(make(int(sys.argv[1]))).decode())


if __name__ == "__main__":
    main()
