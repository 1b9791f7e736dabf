"""The page of metrics lists what a running portal exposes, and its alerts ask for nothing else."""

import re

import yaml

from tests.docs.test_claims import first_cells, page
from tests.live import LivePortal
from tests.metrics.scrapes import scrape

_ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", re.MULTILINE)
_RULES = re.compile(r"```yaml\n(groups:.*?)```", re.DOTALL)
_NAME = re.compile(r"\b(?:freehold|process)_\w+")


def rules() -> dict[str, str]:
    """The alerts of the page, with what they ask."""
    (block,) = _RULES.findall(page("operations.md"))
    (group,) = yaml.safe_load(block)["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def test_operations_lists_every_metric_with_its_type_and_labels(live_portal: LivePortal) -> None:
    found = scrape(live_portal.base_url).families
    listed = {name: (kind, labels) for name, kind, labels in _ROW.findall(page("operations.md"))}
    assert {name: kind for name, (kind, _) in listed.items()} == {
        name: family.type for name, family in found.items()
    }
    for name, family in found.items():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        if labels:
            assert set(re.findall(r"`(\w+)`", listed[name][1])) == labels, name


def test_alerts_ask_for_metrics_that_there_are(live_portal: LivePortal) -> None:
    found = scrape(live_portal.base_url).families
    asked = {name for expr in rules().values() for name in _NAME.findall(expr)}
    assert {re.sub(r"_bucket$", "", name) for name in asked} <= set(found)


def test_every_alert_says_what_to_do() -> None:
    told = {cell for cell in first_cells("operations.md") if re.fullmatch(r"Freehold\w+", cell)}
    assert told == set(rules())
