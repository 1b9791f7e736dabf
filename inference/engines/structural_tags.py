"""Calls of tools as xgrammar's structural tags, which OpenVINO and vLLM take.

Source: xgrammar ``docs/tutorials/structural_tag.md``.
"""

from typing import Any

import msgspec

from inference.engines.base import Calls, CallTag


def structural_tag(calls: Calls) -> dict[str, Any]:
    """The structural tag that holds an answer to ``calls``."""
    return {"type": "structural_tag", "format": _forced(calls) if calls.forced else _free(calls)}


def _forced(calls: Calls) -> dict[str, Any]:
    begin, inner = calls.opener + calls.first, _separated(calls)
    if calls.after:
        return _tag(begin, inner, calls.after)
    if not begin:
        return inner
    # Separated tags have no end of their own, so nothing can stand behind them in a sequence.
    return {"type": "sequence", "elements": [{"type": "const_string", "value": begin}, inner]}


def _free(calls: Calls) -> dict[str, Any]:
    if not calls.opener:
        # What begins with a brace is a call; a form without an opener has no second one.
        other = {"type": "regex", "pattern": _OTHER}
        return {"type": "or", "elements": [*map(_call, calls.tags), other]}
    if calls.after:
        tags = [_tag(calls.opener + calls.first, _separated(calls), calls.after)]
    else:
        tags = [_call(tag, calls.opener + calls.first) for tag in calls.tags]
    return {
        "type": "triggered_tags",
        "triggers": [calls.opener],
        "tags": tags,
        "at_least_one": False,
        "stop_after_first": calls.one or bool(calls.after),
    }


# A class that excludes excludes all that is not ASCII too.
_OTHER = "[ \\n\\t]*[!-z|}~\\u0080-\\U0010ffff](.|\\n)*"


def _separated(calls: Calls) -> dict[str, Any]:
    return {
        "type": "tags_with_separator",
        "tags": [_call(tag) for tag in calls.tags],
        "separator": calls.between,
        "at_least_one": True,
        "stop_after_first": calls.one,
    }


def _call(tag: CallTag, before: str = "") -> dict[str, Any]:
    schema = msgspec.json.decode(tag.schema)
    return _tag(before + tag.begin, {"type": "json_schema", "json_schema": schema}, tag.end)


def _tag(begin: str, content: dict[str, Any], end: str) -> dict[str, Any]:
    return {"type": "tag", "begin": begin, "content": content, "end": end}
