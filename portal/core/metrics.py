"""Figures of a process for Prometheus: plain numbers while it works, families when it is asked.

``prometheus_client``'s own counters cost microseconds each; a request of the data plane can't
spare them. So whoever counts keeps integers, and makes families of them for a scrape.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

Labels: TypeAlias = tuple[str, ...]
Families: TypeAlias = list[Metric]


class Histogram:
    """How many observations fell into each bucket, and their sum. Belongs to one thread.

    Args:
        bounds: upper bounds of the buckets, ascending, without infinity.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each upper bound with how many observations were at most that."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


def counter(
    name: str, text: str, labels: Labels, values: Iterable[tuple[Labels, float]]
) -> CounterMetricFamily:
    """A counter's family; ``name`` without the ``_total`` that each sample's has."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def gauge(
    name: str, text: str, labels: Labels, values: Iterable[tuple[Labels, float]]
) -> GaugeMetricFamily:
    """A gauge's family."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def histogram(
    name: str, text: str, labels: Labels, values: Mapping[Labels, Histogram]
) -> HistogramMetricFamily:
    """The family of histograms, by their labels."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, found in values.items():
        family.add_metric(key, buckets=found.buckets(), sum_value=found.total)
    return family
