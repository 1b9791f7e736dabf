"""Parameters that few callers send; a request without any costs one comparison."""

import operator
from typing import Final

from inference.engines.base import Structure
from inference.gateway.wire.checks import invalid, out_of_range
from inference.gateway.wire.formats import structure_of
from inference.gateway.wire.schema import IncomingRequest
from inference.payloads import Extras

MAX_TOP_K: Final = 1000
MAX_TOP_LOGPROBS: Final = 20

MAX_CHOICES: Final = 8

_NOTHING: Final = Extras()

_of_chat: Final = operator.attrgetter(
    "response_format", "top_k", "min_tokens", "logprobs", "top_logprobs", "n"
)
_NO_CHAT: Final = (None,) * 6


def chat_extras(incoming: IncomingRequest) -> Extras | None:
    """What a chat completion asks for beyond the common, or None.

    Raises:
        Invalid: a value out of its range, or two that exclude each other.
    """
    if _of_chat(incoming) == _NO_CHAT:
        return None
    return extras_of(
        structure=structure_of(incoming.response_format),
        top_k=incoming.top_k,
        min_tokens=incoming.min_tokens,
        max_tokens=incoming.max_tokens or incoming.max_completion_tokens,
        logprobs=_logprobs(incoming),
        n=incoming.n,
    )


def _logprobs(incoming: IncomingRequest) -> int | None:
    top = _ranged("top_logprobs", incoming.top_logprobs or 0, 0, MAX_TOP_LOGPROBS)
    if incoming.logprobs:
        return top
    if top:
        raise invalid("top_logprobs", "it is only allowed when 'logprobs' is true")
    return None


def extras_of(
    *,
    structure: Structure | None = None,
    top_k: int | None = None,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    logprobs: int | None = None,
    n: int | None = None,
) -> Extras | None:
    """The extras of any API; None where nothing asks for something."""
    if top_k == -1:
        # vLLM's other word for no bound.
        top_k = 0
    least = _ranged("min_tokens", min_tokens or 0, 0, max_tokens or 2**31)
    if least and structure is not None:
        raise invalid("min_tokens", "an answer with a structure ends where the structure does")
    extras = Extras(
        top_k=_ranged("top_k", top_k or 0, 0, MAX_TOP_K),
        min_tokens=least,
        logprobs=logprobs,
        structure=structure,
        n=_ranged("n", 1 if n is None else n, 1, MAX_CHOICES),
    )
    return None if extras == _NOTHING else extras


def _ranged(param: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise out_of_range(param, "integer", value, least, most)
    return value
