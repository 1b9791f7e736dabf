"""Lists scenarios, installs one in a tenant, and runs its labelled set through its app."""

import json
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from knowledge.scenarios.catalogue import scenarios
from knowledge.scenarios.evaluating import evaluate
from knowledge.scenarios.services import install_scenario
from portal.core.actors import Context
from portal.core.errors import PortalError
from portal.core.tenancy import platform_scope
from tenants.models import Tenant


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="say which there are")
        install = verbs.add_parser("install", help="make its knowledge base, app and trigger")
        install.add_argument("--model", help="what the app asks; the first that generates here")
        measure = verbs.add_parser("evaluate", help="run its labelled set, and keep the scores")
        measure.add_argument("--version", dest="number", type=int, help="of the app; the newest")
        measure.add_argument("--cases", type=int, help="so many, spread over the set")
        for verb in (install, measure):
            verb.add_argument("scenario")
            verb.add_argument("--tenant", required=True, help="its short name")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._do(options)
        except PortalError as refusal:
            raise CommandError(refusal.message) from None

    def _do(self, options: dict[str, Any]) -> None:
        if options["verb"] == "list":
            for slug, one in scenarios().items():
                self.stdout.write(f"{slug:20} {len(one.cases):3} cases  {one.description}")
            return
        context, slug = _context(options["tenant"]), options["scenario"]
        if options["verb"] == "install":
            made = install_scenario(context=context, slug=slug, model=options["model"])
            self.stdout.write(f"Installed: app '{made.app.slug}', trigger '{made.trigger.name}'.")
            return
        made_evaluation = evaluate(
            context=context,
            slug=slug,
            number=options["number"],
            most=options["cases"],
            progress=lambda done, of: self.stderr.write(f"{done} of {of} cases are answered"),
        )
        self.stdout.write(
            f"{made_evaluation.cases} cases, version {made_evaluation.app_version}, "
            f"{made_evaluation.model}, {made_evaluation.seconds:.0f} s"
        )
        self.stdout.write(json.dumps(made_evaluation.scores, indent=2))


def _context(slug: str) -> Context:
    work = Context.system("scenario")
    with platform_scope(work, reason="scenario"):
        found = Tenant.objects.filter(slug=slug).values_list("pk", flat=True).first()
    if found is None:
        raise CommandError(f"There is no tenant '{slug}'.")
    return replace(work, tenant_id=found)
