"""Whether two JSON values have one shape: the same keys, and values of the kinds that were seen."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.knowledge.dify.recorded import recordings

# Their keys are data, not shape.
_FREE = frozenset({"metadata", "credentials", "rules", "model_config", "site", "settings"})


def differences(ours: Any, theirs: Any, where: str = "$") -> Iterator[str]:
    """What ours has that a recording has not, and the other way round.

    A value may be of any kind that some recording has under its key: null here, a text there.
    """
    key = where.rpartition(".")[2].partition("[")[0]
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if key in _FREE:
            return
        for name in sorted(ours.keys() ^ theirs.keys()):
            yield f"{where}.{name} is only in {'ours' if name in ours else 'theirs'}"
        for name in sorted(ours.keys() & theirs.keys()):
            yield from differences(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if not theirs:
            return
        for number, element in enumerate(ours):
            best = min(
                (list(differences(element, t, f"{where}[{number}]")) for t in theirs), key=len
            )
            yield from best
    elif kind(ours) != kind(theirs) and kind(ours) not in kinds().get(key, set()):
        yield f"{where} is {kind(ours)}, and {kind(theirs)} in the recording"


def kind(value: Any) -> str:
    """JSON's name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {int: "number", float: "number", str: "string", dict: "object", list: "array"}
    return names[type(value)]


@cache
def kinds() -> dict[str, set[str]]:
    """The kinds of value that stand under each key in any recorded answer."""
    found: dict[str, set[str]] = {}
    for recorded in recordings().values():
        _collect(recorded.body, found)
    return found


def _collect(node: Any, found: dict[str, set[str]]) -> None:
    if isinstance(node, list):
        for part in node:
            _collect(part, found)
    elif isinstance(node, dict):
        for key, value in node.items():
            found.setdefault(key, set()).add(kind(value))
            _collect(value, found)
