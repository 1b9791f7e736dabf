"""What every reader of a source gives, and how it says that it can't."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from portal.core.errors import PortalError

BATCH: Final = 50
"""How many entries are looked at between two marks of how far a run is."""

MOST_ENTRIES: Final = 100_000
"""How many documents a source may have."""

Position = Any
"""How far a reader is, as JSON; None before its first entry."""


class SourceFault(PortalError):
    """A source that can't be read now; the sentence says what to do."""

    code = "source_failed"
    status = 502


class StillWritten(Exception):
    """A file that is being written while it is looked at."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a row as it was found.

    Attributes:
        key: what tells it from others in its source.
        stamp: what it looks like without being read; the same stamp is the same content.
        name: the document's.
        load: its content, a file's bytes or a row's text.

    Raises:
        StillWritten: from ``load``, where it has to be left for the next run.
        PortalError: from ``load``, where it is no document; the sentence says why.
    """

    key: str
    stamp: str
    name: str
    load: Callable[[], bytes | str]
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some entries, and how far the reader is behind them.

    Attributes:
        waiting: how many files were left out because they are still being written. Their keys
            stand in ``seen``: nobody removed them.
    """

    entries: Sequence[Entry]
    position: Position
    seen: Sequence[str] = ()
    waiting: int = 0


class Reader(Protocol):
    """Reads one source from its beginning, or from where another reader was."""

    def batches(self, position: Position) -> Iterator[Batch]:
        """Entries in an order in which ``position`` can be found again.

        Raises:
            SourceFault: it can't be read.
        """
        ...


Opened = AbstractContextManager[Reader]
