"""What a scrape says, read as strictly as its formats allow."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True, slots=True)
class Scrape:
    """The families of one scrape, by the names that stand in the documents."""

    families: Mapping[str, Metric]

    def values(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """Samples of that very name that have these labels, by their label values."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }

    def value(self, name: str, **labels: str) -> float:
        """The sum of those samples; 0 if there is none."""
        return sum(self.values(name, **labels).values())


def parse(text: str, *, openmetrics: bool = False) -> Scrape:
    """Families by name, each of which may appear once."""
    read = openmetrics_families if openmetrics else text_families
    found: dict[str, Metric] = {}
    for family in read(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name not in found, f"{name} is told twice"
        found[name] = family
    return Scrape(found)


def scrape(url: str, token: str = "", *, openmetrics: bool = False) -> Scrape:
    """Scrapes a running process."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if openmetrics:
        headers["Accept"] = OPENMETRICS
    response = httpx.get(f"{url}/metrics", headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    return parse(response.text, openmetrics=openmetrics)
