"""What the benchmarks share: load, processes, processor time, checks."""
