"""Compares the usage rollups with the ledger, and repairs them if asked to."""

from argparse import ArgumentParser
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.core.actors import Context
from tenants.services import check_usage, repair_usage

CHECK = Context.system("usage_check")


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name, which in (("--from", "first"), ("--to", "last")):
            parser.add_argument(
                name,
                dest=which,
                type=date.fromisoformat,
                metavar="YYYY-MM-DD",
                help=f"{which} day (UTC) that is compared; else all",
            )
        parser.add_argument(
            "--repair",
            action="store_true",
            help="give the buckets that differ the ledger's figures",
        )

    def handle(
        self, *args: Any, first: date | None, last: date | None, repair: bool, **options: Any
    ) -> None:
        work = repair_usage if repair else check_usage
        found = work(
            context=CHECK,
            since=None if first is None else _midnight(first),
            until=None if last is None else _midnight(last + timedelta(days=1)),
        )
        for difference in found:
            self.stdout.write(str(difference))
        if not found:
            self.stdout.write("The usage rollups equal the ledger.")
        elif repair:
            self.stdout.write(f"{len(found)} buckets were rebuilt from the ledger.")
        else:
            raise CommandError(
                f"{len(found)} buckets differ from the ledger. `manage.py usage_check --repair` "
                "gives them its figures."
            )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
