"""What a trigger hands to its app: each input is a text, or names something of the event.

``$.amount`` and ``$.order.id`` are fields of the event; ``$event`` is all of its data and
``$recent`` that of the last twenty of its subject, as JSON; ``$findings`` is what the rules found,
a line each; ``$subject``, ``$type`` and ``$time`` are the event's. Anything else is itself.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from knowledge.triggers.rules import Finding, Happening, value_at
from portal.core.errors import Invalid

MOST_INPUTS: Final = 32
MOST_CHARS: Final = 4000
RECENT: Final = 20
_FIELD: Final = "$."

Inputs = dict[str, Any]


def check_expressions(inputs: Mapping[str, Any]) -> dict[str, str]:
    """What each input is made of.

    Raises:
        Invalid: naming the input that is wrong.
    """
    if len(inputs) > MOST_INPUTS:
        raise Invalid(f"'inputs' may be {MOST_INPUTS} at most.", param="inputs")
    for name, text in inputs.items():
        if not isinstance(text, str) or len(text) > MOST_CHARS or "\0" in text:
            raise Invalid(f"The input '{name[:80]}' must be a text.", param="inputs")
        known = text in _WHOLE or text.startswith(_FIELD) or not text.startswith("$")
        if not known or text == _FIELD:
            raise Invalid(
                f"The input '{name[:80]}' names what there is not: {text[:40]}. There are "
                f"$.field, {', '.join(_WHOLE)}.",
                param="inputs",
            )
    return dict(inputs)


def inputs_of_event(
    expressions: Mapping[str, str],
    event: Happening,
    kind: str,
    found: Sequence[Finding],
    before: Sequence[Happening],
) -> Inputs:
    """The inputs for one event; what it does not have is left out."""
    recent = sorted((one for one in before if one.subject == event.subject), key=lambda o: o.at)
    values: Mapping[str, Callable[[], Any]] = {
        "$event": lambda: _json(event.data),
        "$recent": lambda: "\n".join(_json(one.data) for one in [*recent, event][-RECENT:]),
        "$findings": lambda: "\n".join(f"- {one.rule}: {one.why}" for one in found),
        "$subject": lambda: event.subject,
        "$type": lambda: kind,
        "$time": event.at.isoformat,
    }
    given: Inputs = {}
    for name, text in expressions.items():
        if text.startswith(_FIELD):
            value = value_at(event.data, text.removeprefix(_FIELD))
            value = _json(value) if isinstance(value, list | dict) else value
        else:
            value = values[text]() if text in values else text
        if value is not None:
            given[name] = value
    return given


def inputs_of_time(expressions: Mapping[str, str], at: datetime) -> Inputs:
    """The inputs for one time of a schedule, at which there is no event."""
    given = {name: at.isoformat() if t == "$time" else t for name, t in expressions.items()}
    return {name: text for name, text in given.items() if not text.startswith("$")}


_WHOLE: Final = ("$event", "$recent", "$findings", "$subject", "$type", "$time")


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
