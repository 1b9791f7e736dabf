"""Benchmarks: each starts what it measures, prints a table and writes ``--json FILE``."""
