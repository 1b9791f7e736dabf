"""Rolling usage up to the end, whatever else the database is doing."""

from datetime import UTC, datetime

from portal.core.tenancy import bare_scope
from tenants.models import UsageWatermark
from tenants.services import roll_up_usage
from tests.factories import TESTS
from tests.waiting import eventually


def roll_up_all() -> None:
    """Returns once every charge committed before the call is in the rollups.

    One run of the service need not do that: it stops at the oldest transaction under way, and
    that may be anybody's, such as autovacuum's or that of a connection closed a moment ago.
    """
    begun = datetime.now(UTC)

    def complete() -> bool:
        roll_up_usage(context=TESTS)
        with bare_scope(TESTS):
            until = UsageWatermark.objects.get().complete_until
        return until is not None and until > begun

    eventually(complete, what="everything is rolled up")
