"""Checks a certificate of a tenant's deletion: by itself, and against the database."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.core.actors import Context
from tenants.services import verify_certificate


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="the certificate, as it was downloaded")

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        try:
            content = file.read_bytes()
        except OSError as fault:
            raise CommandError(f"{file} can't be read: {fault.strerror}.") from None
        context = Context.system("verify_certificate")
        findings = verify_certificate(context=context, content=content)
        for finding in findings:
            self.stdout.write(f"{'ok    ' if finding.passed else 'FAILED'} {finding.check}")
        if not all(finding.passed for finding in findings):
            raise CommandError("The certificate does not hold.")
