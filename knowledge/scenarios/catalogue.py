"""The scenarios that the product ships, as they stand in ``data``.

Each is a folder: ``scenario.json`` says the app (an ``AppSpec`` without model and knowledge, so
that the portal's runner and Dify are given the same), its trigger, and how it is scored;
``knowledge`` holds its documents, ``sample.jsonl`` events to try it with, ``evaluation.jsonl`` the
labelled cases. All data is made up.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from knowledge.triggers.rules import Finding, Happening, Rule, findings, read_rules
from portal.core.errors import NotFound

_DATA: Final = Path(__file__).parent / "data"


class Moment(msgspec.Struct, frozen=True):
    """An event of a case, so many minutes before its last."""

    minute: float
    data: dict[str, Any]


class Sample(msgspec.Struct, frozen=True):
    """An event to try the scenario with."""

    subject: str
    type: str
    data: dict[str, Any]
    minute: float


class Case(msgspec.Struct, frozen=True):
    """A labelled case: the last event is judged.

    Attributes:
        expected: what the answer's fields must be.
        document: the passage's document that must be found for it; empty for none.
    """

    id: str
    kind: str
    events: tuple[Moment, ...]
    expected: dict[str, Any]
    document: str = ""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario.

    Attributes:
        verdict: the field of the answer that is a class.
        fields: of the answer, compared with what is expected.
        by_score: what rules alone say: the verdict from such a score on, highest first.
        by_rule: or the verdict of each rule, the heaviest that holds; ``default`` without any.
        profile: what rules of the trade it keeps to; ``hipaa`` or empty.
    """

    name: str
    description: str
    verdict: str
    fields: tuple[str, ...]
    app: dict[str, Any]
    trigger: dict[str, Any]
    slug: str = ""
    by_score: tuple[tuple[float, str], ...] = ()
    by_rule: dict[str, str] = {}
    default: str = ""
    profile: str = ""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The trigger's rules."""
        return read_rules(self.trigger["rules"])

    @property
    def documents(self) -> Mapping[str, str]:
        """Texts by name."""
        folder = _DATA / self.slug / "knowledge"
        return {file.name: file.read_text() for file in sorted(folder.glob("*.md"))}

    @property
    def cases(self) -> list[Case]:
        """The labelled set."""
        lines = (_DATA / self.slug / "evaluation.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Case) for line in lines]

    @property
    def samples(self) -> list[Sample]:
        """Events to try it with, oldest first."""
        lines = (_DATA / self.slug / "sample.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Sample) for line in lines]

    def by_rules(self, found: list[Finding]) -> str:
        """The verdict of the rules alone; empty where the scenario has none."""
        if self.by_score:
            score = sum(one.weight for one in found)
            return next(verdict for least, verdict in self.by_score if score >= least)
        heaviest = max(found, key=lambda one: one.weight, default=None)
        return self.by_rule[heaviest.rule] if heaviest is not None else self.default


@cache
def scenarios() -> Mapping[str, Scenario]:
    """Every scenario by its short name."""
    found = {}
    for file in sorted(_DATA.glob("*/scenario.json")):
        read = msgspec.json.decode(file.read_bytes(), type=Scenario)
        found[file.parent.name] = msgspec.structs.replace(read, slug=file.parent.name)
    return found


def get_scenario(slug: str) -> Scenario:
    """One scenario.

    Raises:
        NotFound: none; the sentence names those that there are.
    """
    found = scenarios().get(slug)
    if found is None:
        raise NotFound(f"There is no such scenario; there are {', '.join(scenarios())}.")
    return found


def happenings(case: Case, at: datetime) -> list[Happening]:
    """The events of a case as rules see them, the last one at that time."""
    last = case.events[-1].minute
    return [
        Happening(case.id, at + timedelta(minutes=one.minute - last), one.data)
        for one in case.events
    ]


def findings_of(scenario: Scenario, events: list[Happening]) -> list[Finding]:
    """What the rules find about the last event."""
    return findings(scenario.rules, events[-1], events[:-1])
