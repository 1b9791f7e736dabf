"""Figures as a table, and as JSON."""

import dataclasses
import json
import os
import statistics
from pathlib import Path
from typing import Any

from benchmarks.lib.comparison import Figures, Series

_MAIN = ("web", "worker", "postgres", "valkey")


def figures_json(figures: Figures) -> dict[str, float]:
    """The figures by their names for a machine; times in ms, rates in 1/s."""
    one, many, streams = figures.own[1], figures.own[32], figures.streams
    told = {
        "c1_p50_ms": one.median("p50_ms"),
        "c32_rps": many.median("rps"),
        "c32_p99_ms": many.median("p99_ms"),
        "c32_cpu_ms": sum(many.cpu_ms().values()),
        "c32_vs_limit": many.median("rps") / statistics.median(figures.limit_rps),
        "sse_tokens_per_s": streams.tokens_per_s,
        "sse_ttft_p50_ms": streams.median("ttft_p50_ms"),
    }
    if figures.peers:
        told["c1_vs_peer"] = one.median("rps") / figures.peers[1].median("rps")
        told["c32_vs_peer"] = many.median("rps") / figures.peers[32].median("rps")
    return {name: round(value, 4) for name, value in told.items()}


def write_json(figures: Figures, path: Path) -> None:
    """Writes the figures to a file."""
    path.write_text(json.dumps(figures_json(figures), indent=2) + "\n")


def print_table(figures: Figures) -> None:
    """Prints everything for people; medians over the rounds, processor time over all of them."""
    print(f"\n{os.cpu_count()} cores; load generator, servers and workers share them\n")
    head = ["", "rps", "p50 ms", "p99 ms", "errors", "CPU ms", *_MAIN, "rest", "load gen."]
    rows = [_row(series) for series in (*figures.own.values(), figures.streams)]
    peers = [*figures.peers.values()]
    if figures.peer_streams is not None:
        peers.append(figures.peer_streams)
    rows += [_row(series) for series in peers]
    _print([head, *rows])
    for series in (figures.streams, figures.peer_streams):
        if series is not None:
            print(
                f"{series.title}: {series.tokens_per_s:,.0f} tokens/s, time to first token p50 "
                f"{series.median('ttft_p50_ms'):.1f}, p99 {series.median('ttft_p99_ms'):.1f} ms"
            )
    limit = statistics.median(figures.limit_rps)
    print(f"bare group commit of the same rows, 32 in flight: {limit:,.0f} a second\n")
    for name, value in figures_json(figures).items():
        print(f"{name:18} {value:,.4g}" if value < 1000 else f"{name:18} {value:,.0f}")
    print()
    _print_books(figures)


def _row(series: Series) -> list[str]:
    cpu = series.cpu_ms()
    parts = [cpu.get(name, 0.0) for name in _MAIN]
    # A stream's work is its worker's, and not the other's that idles beside it.
    total = sum(cpu.values())
    shown = [f"{part:.3f}" for part in (total, *parts, total - sum(parts))] if cpu else ["-"] * 6
    return [
        series.title,
        f"{series.median('rps'):,.0f}",
        f"{series.median('p50_ms'):.2f}",
        f"{series.median('p99_ms'):.2f}",
        str(series.errors),
        *shown,
        f"{series.load_cpu_ms:.3f}",
    ]


def _print(rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print()


def _print_books(figures: Figures) -> None:
    books: dict[str, Any] = dataclasses.asdict(figures.books)
    print("books: " + ", ".join(f"{name} {value:,}" for name, value in books.items()))
    print("FAULTS: " + "; ".join(figures.faults) if figures.faults else "the books agree")
    for series in (*figures.own.values(), figures.streams, *figures.peers.values()):
        for measured in series.rounds:
            if measured.load.error:
                print(f"{series.title}: {measured.load.errors} errors: {measured.load.error}")
