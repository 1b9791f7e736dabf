"""Which beginnings of prompts are kept, for whom, and which must go first.

A beginning is found only by requests of the scope that it was computed for: between tenants the
speed of an answer would tell what another asked.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FEWEST = 16  # fewer tokens are computed as fast as they are copied


@dataclass(frozen=True, slots=True)
class _Entry:
    scope: str
    tokens: npt.NDArray[np.int64]


def _common(entry: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> int:
    """Length of the common beginning."""
    size = min(len(entry), len(tokens))
    differs = entry[:size] != tokens[:size]
    return int(differs.argmax()) if differs.any() else size


class PrefixStore:
    """Beginnings by handle, the least recently used first.

    Args:
        capacity: most tokens of all entries together.
        save: makes a copy of so many tokens of a row; returns its handle.
        drop: forgets a copy.
    """

    def __init__(
        self, capacity: int, *, save: Callable[[int, int], int], drop: Callable[[int], None]
    ) -> None:
        self._capacity = capacity
        self._save = save
        self._drop = drop
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._scopes: dict[str, set[int]] = {}
        self._used = 0

    @property
    def used(self) -> int:
        """Tokens of all entries together."""
        return self._used

    def find(self, scope: str, tokens: Sequence[int]) -> tuple[int, int]:
        """The entry of ``scope`` with the longest common beginning.

        Returns:
            Its handle and the number of tokens that may be taken of it; the number is 0 where
            nothing is worth it.
        """
        handle, common = self._longest(scope, np.asarray(tokens, dtype=np.int64))
        if common < _FEWEST:
            return 0, 0
        self._entries.move_to_end(handle)
        return handle, common

    def add(self, scope: str, tokens: Sequence[int], row: int) -> None:
        """Keep the tokens that ``row`` begins with, unless they are there already."""
        size = len(tokens)
        if not scope or not _FEWEST <= size <= self._capacity:
            return
        wanted = np.asarray(tokens, dtype=np.int64)
        handle, common = self._longest(scope, wanted)
        if common == size:
            self._entries.move_to_end(handle)
            return
        self._forget_beginnings(scope, wanted)
        while self._used + size > self._capacity:
            self._forget(next(iter(self._entries)))
        handle = self._save(row, size)
        self._entries[handle] = _Entry(scope, wanted)
        self._scopes.setdefault(scope, set()).add(handle)
        self._used += size

    def clear(self) -> None:
        """Forget everything."""
        for handle in list(self._entries):
            self._forget(handle)

    def _longest(self, scope: str, tokens: npt.NDArray[np.int64]) -> tuple[int, int]:
        found = (
            (_common(self._entries[handle].tokens, tokens), handle)
            for handle in self._scopes.get(scope, ())
        )
        common, handle = max(found, default=(0, 0))
        return handle, common

    def _forget_beginnings(self, scope: str, tokens: npt.NDArray[np.int64]) -> None:
        """Forget what the new entry makes superfluous."""
        for handle in list(self._scopes.get(scope, ())):
            entry = self._entries[handle].tokens
            if _common(entry, tokens) == len(entry):
                self._forget(handle)

    def _forget(self, handle: int) -> None:
        entry = self._entries.pop(handle)
        mine = self._scopes[entry.scope]
        mine.discard(handle)
        if not mine:
            del self._scopes[entry.scope]
        self._used -= len(entry.tokens)
        self._drop(handle)
