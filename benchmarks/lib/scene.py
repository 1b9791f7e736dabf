"""What faults and restarts are played on: a slow fake model, and tenants with limits and keys.

``python -m benchmarks.lib.scene``, on a seeded database, prints a list of ``Actor`` as JSON.
"""

import os
from typing import Any, Final
from uuid import UUID

import msgspec

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

from benchmarks.lib.portal import Portal
from benchmarks.lib.seed import deploy, tenant_with_key
from benchmarks.lib.witnesses import WORDS

DEPLOYMENT: Final = "bench-faults"
TENANTS: Final = 3

_OPTIONS: Final[dict[str, Any]] = {"token_ms": 20, "slots": 24, "text": " ".join(WORDS)}
# Never reached: what is looked at is whether the counters are right.
_LIMIT: Final = 10**12


class Actor(msgspec.Struct, frozen=True):
    """A tenant, the key that it calls with, and what its webhooks are signed with."""

    tenant_id: UUID
    token: str
    webhook_secret: str


def set_scene(portal: Portal) -> tuple[list[int], list[Actor]]:
    """Adds two of each process; returns the ports of the web processes, and who calls."""
    actors = msgspec.json.decode(portal.run(["-m", "benchmarks.lib.scene"]), type=list[Actor])
    ports = [portal.add_gateway(f"gateway {number}", planes="both") for number in (1, 2)]
    for number in (1, 2):
        portal.add_worker(f"worker {number}", DEPLOYMENT)
    portal.add_io_worker("io worker 2")
    portal.await_ready()
    return ports, actors


def make() -> list[Actor]:
    """Makes the deployment and the tenants, with a limit of each metric."""
    from portal.core.actors import Context

    context = Context.system("benchmark")
    deploy(context, DEPLOYMENT, _OPTIONS, prices=(1_234_567, 2_345_678))
    return [_actor(context, f"faults-{number}") for number in range(TENANTS)]


def _actor(context: Any, slug: str) -> Actor:
    from inference.webhooks.services import make_webhook_secret
    from tenants.services import set_quota

    owner, key = tenant_with_key(context, slug)
    limits = {f"{metric}_{span}": _LIMIT for metric in ("tokens", "cost") for span in ("day",)}
    set_quota(context=context, tenant_id=owner.tenant_id, requests_total=_LIMIT, **limits)
    set_quota(
        context=owner, tenant_id=owner.tenant_id, api_key_id=key.api_key.id, concurrency=10_000
    )
    signing = make_webhook_secret(context=owner)
    return Actor(owner.tenant_id, key.token, signing.secret)


def main() -> None:
    django.setup()
    print(msgspec.json.encode(make()).decode())


if __name__ == "__main__":
    main()
