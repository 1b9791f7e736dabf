"""The messages that a call becomes, with as much of what was found as the model's context holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from inference.gateway.catalogue import Named, Routed, Served
from inference.gateway.requests import encoded
from inference.gateway.wire.request import parse_chat_request
from knowledge.applications.backends import AppCall, Source, Turn
from knowledge.applications.spec import AppSpec, chat_body
from knowledge.applications.template import CONTEXT, fill
from portal.core.errors import Invalid

NOTHING_FOUND: Final = "(No passage was found.)"

Messages = list[tuple[str, str]]
"""Role and content of each."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A request, and what of the passages stands in it.

    Attributes:
        body: as ``/v1/chat/completions`` takes it, in JSON.
    """

    body: bytes
    shown: Sequence[Source]
    left_out: int


def fit(call: AppCall, found: Sequence[Source], named: Named | None) -> Fitted:
    """The request with as many passages, best first, and turns as leave room for an answer.

    Passages go first, then the oldest turns; the last passage goes when nothing else is left. What
    does not fit by itself is left to admission, which says by how much it is too long.
    """
    turns = list(call.history)[-call.spec.history :] if call.spec.history else []
    choices = [(n, len(turns)) for n in range(len(found), 0, -1)]
    choices += [(min(1, len(found)), t) for t in range(len(turns) - bool(found), -1, -1)]
    choices += [(0, 0)]

    def body_of(choice: tuple[int, int]) -> bytes:
        passages, kept = choice
        return chat_body(call.spec, _messages(call, found[:passages], turns[len(turns) - kept :]))

    served = _narrowest(named)
    place = 0 if served is None else _first(choices, lambda c: _fits(body_of(c), call.spec, served))
    shown = choices[place][0]
    return Fitted(body_of(choices[place]), found[:shown], len(found) - shown)


def _first(choices: Sequence[tuple[int, int]], fits: Callable[[tuple[int, int]], bool]) -> int:
    """The first choice that fits, each being smaller than the one before; else the last."""
    low, high = 0, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        if fits(choices[middle]):
            high = middle
        else:
            low = middle + 1
    return low


def _fits(body: bytes, spec: AppSpec, served: Served) -> bool:
    request = parse_chat_request(body)
    answer = spec.sampling.max_tokens or min(served.default_max_tokens, served.context_length // 4)
    try:
        return len(encoded(request, served)) + answer <= served.context_length
    except Invalid:
        return False


def _narrowest(named: Named | None) -> Served | None:
    """Where the model's context is smallest; a call may be led there."""
    if isinstance(named, Routed):
        return min(named.served.values(), key=lambda s: s.context_length, default=None)
    return named


def _messages(call: AppCall, passages: Sequence[Source], turns: Sequence[Turn]) -> Messages:
    values = call.values | {CONTEXT: context_text(passages)}
    messages: Messages = []
    if call.spec.instructions.strip():
        messages.append(("system", fill(call.spec.instructions, values)))
    for turn in turns:
        messages += [("user", turn.query), ("assistant", turn.answer)]
    return [*messages, ("user", fill(call.spec.prompt, values))]


def context_text(passages: Sequence[Source]) -> str:
    """What stands in the place of ``{{context}}``: passages by number, each under its document."""
    shown = [f"[{n}] {one.document}\n{one.text}" for n, one in enumerate(passages, 1)]
    return "\n\n".join(shown) or NOTHING_FOUND
