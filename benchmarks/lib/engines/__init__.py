"""What ``benchmarks/engines.py`` measures, each contender in a process of its own."""
