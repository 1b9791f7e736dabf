"""Jobs with callbacks, and senders, moved by hand."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from inference.gateway.keys import Credential
from inference.models.jobs import JobState
from inference.models.webhooks import WebhookState
from inference.webhooks import services
from inference.webhooks.deliverer import Deliverer
from inference.webhooks.targets import clean_url
from inference.worker.claims import Claimed
from portal.core.outgoing import Targets
from portal.core.tenancy import tenant_scope
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential

LOOPBACK = Targets.parse("127.0.0.0/8, ::1")


@dataclass(slots=True)
class Hooks:
    """One tenant's jobs with callbacks, on a bench."""

    bench: Bench
    tenant: Organisation
    secret: str = field(init=False)
    caller: Credential = field(init=False)

    def __post_init__(self) -> None:
        self.secret = services.make_webhook_secret(context=self.tenant.context).secret
        self.caller = credential(factories.api_key(self.tenant))

    def job(self, url: str, **options: Any) -> UUID:
        """A waiting job with a callback, made in two steps where the product makes it in one."""
        (job_id,) = self.bench.admit(self.caller, **options)
        self.bench.superuser.execute(
            "UPDATE inference_job SET kind = 'job', gateway = '' WHERE id = %s", [job_id]
        )
        self.register(job_id, url)
        return job_id

    def register(self, job_id: UUID, url: str) -> None:
        with tenant_scope(self.tenant.context):
            urls = {job_id: clean_url(url, LOOPBACK)}
            services.register_callbacks(tenant_id=self.tenant.id, urls=urls)

    def claim(self, job_id: UUID) -> Claimed:
        """Claims a job as a worker; others that wait are claimed on the way."""
        while True:
            (claimed,) = self.bench.claim()
            if claimed.id == job_id:
                return claimed

    def ended(self, url: str, state: JobState = JobState.SUCCEEDED, **more: Any) -> UUID:
        """A job that has ended, whose callback is due."""
        job_id = self.job(url)
        self.bench.end(self.claim(job_id), state, tokens=3, **more)
        return job_id

    def delivery(self, job_id: UUID) -> dict[str, Any]:
        (row,) = self.bench.rows(
            "SELECT * FROM inference_webhookdelivery WHERE job_id = %s", job_id
        )
        return row

    def state(self, job_id: UUID) -> WebhookState:
        return WebhookState(self.delivery(job_id)["state"])

    def log(self, job_id: UUID) -> list[tuple[int, int | None, str]]:
        """Number, status and error of each attempt, in order."""
        rows = self.bench.rows(
            "SELECT number, status, error FROM inference_webhookattempt WHERE delivery_id = %s "
            "ORDER BY number",
            self.delivery(job_id)["id"],
        )
        return [(row["number"], row["status"], row["error"]) for row in rows]

    def make_due(self, job_id: UUID) -> None:
        """Lets the time until the next attempt pass."""
        self.bench.superuser.execute(
            "UPDATE inference_webhookdelivery SET due_at = clock_timestamp() - interval '1 second',"
            " lease_until = clock_timestamp() - interval '1 second' "
            "WHERE job_id = %s AND state = 1",
            [job_id],
        )

    def deliverer(self, targets: Targets = LOOPBACK, **options: Any) -> Deliverer:
        """A sender of its own, as in an io worker of its own."""
        return Deliverer(
            self.bench.servers.url("gateway"),
            ciphers=services.ciphers(),
            targets=targets,
            **{"slots": 64, **options},
        )

    def deliver(self, targets: Targets = LOOPBACK) -> None:
        """Sends all that is due, to the end."""

        async def all_of_it() -> None:
            deliverer = self.deliverer(targets)
            await deliverer.round()
            await deliverer.idle()
            await deliverer.close()

        self.bench.run(all_of_it())
