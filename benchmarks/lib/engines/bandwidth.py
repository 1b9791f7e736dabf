"""How fast this machine reads memory, which bounds how fast one sequence can be generated.

``python -m benchmarks.lib.engines.bandwidth`` prints bytes a second.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from benchmarks.lib.engines.stage import ROOT

_BYTES: Final = 1 << 28
_ROUNDS: Final = 5


def read_bandwidth() -> float:
    """Bytes a second, measured in a process of its own: the best of some rounds on two threads."""
    words = [sys.executable, "-m", "benchmarks.lib.engines.bandwidth"]
    return float(subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout)


def main() -> None:
    halves = np.ones((2, _BYTES // 16), dtype=np.float64)
    best = 0.0
    with ThreadPoolExecutor(2) as threads:
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            list(threads.map(np.max, halves))
            best = max(best, halves.nbytes / (time.perf_counter() - begun))
    print(best)


if __name__ == "__main__":
    main()
