"""What a worker has done since its start, for whoever watches it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from inference.models.jobs import JobState
from inference.settlement import Settled


class Counts:
    """Claims, and what was settled; one thread writes at a time, any may read."""

    def __init__(self) -> None:
        self._claims = 0
        self._ended: Counter[JobState] = Counter()
        self._prompt_tokens = 0
        self._completion_tokens = 0

    def claimed(self, jobs: int) -> None:
        """So many jobs were claimed."""
        self._claims += jobs

    def settled(self, ended: Iterable[Settled]) -> None:
        """These jobs were ended here, and charged."""
        for job in ended:
            self._ended[job.state] += 1
            self._prompt_tokens += job.prompt_tokens
            self._completion_tokens += job.completion_tokens

    def row(self) -> dict[str, Any]:
        """As the worker's row keeps it."""
        return {
            "claims": self._claims,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            # A copy in one step: the other thread may be adding a state.
            "ended": {state.name.lower(): n for state, n in self._ended.copy().items()},
        }
