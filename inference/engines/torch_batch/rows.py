"""Who has which row of the cache.

Rows are compact: those that generate come first, then those whose prompt is being computed, then
none. So each step works on consecutive rows, and nothing is copied for it.
"""

from inference.engines.torch_batch.runner import ModelRunner
from inference.engines.torch_batch.runs import Run


class Rows:
    """The runs with a row, in the order of rows."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self._runs: list[Run] = []
        self.generating = 0

    @property
    def decoding(self) -> list[Run]:
        """The runs that generate."""
        return self._runs[: self.generating]

    @property
    def prefilling(self) -> list[Run]:
        """The runs whose prompt is being computed."""
        return self._runs[self.generating :]

    def row_of(self, run: Run) -> int:
        """The row of a run that has one."""
        return self._runs.index(run)

    def __contains__(self, run: Run) -> bool:
        return run in self._runs

    def append(self, run: Run) -> int:
        """Give a run the next row, which is empty."""
        self._runs.append(run)
        return len(self._runs) - 1

    def promote(self, count: int) -> None:
        """The first ``count`` of those prefilling generate from now on."""
        self.generating += count

    def remove(self, run: Run) -> None:
        """Take a run's row away, and close the gap."""
        row = self._runs.index(run)
        if row < self.generating:
            self.generating -= 1
            self._fill(row, self.generating)
            row = self.generating
        for source in range(row + 1, len(self._runs)):
            self._fill(source - 1, source)
        self._runs.pop()
        self._runner.clear(len(self._runs))

    def _fill(self, row: int, source: int) -> None:
        if row != source:
            self._runs[row] = self._runs[source]
            self._runner.move(source, row)
