"""What engines can't do of what a request may ask for: said before it is admitted."""

from typing import Final

from inference.payloads import Extras
from portal.core.errors import Invalid

# Engines that tell the chosen token's log probability alone.
_NO_ALTERNATIVES: Final = frozenset({"auto", "openvino"})


def check_abilities(engine: str, extras: Extras | None) -> None:
    """Refuses what a deployment's engine can't do.

    Raises:
        Invalid: with the parameter's name.
    """
    if extras is not None:
        refusal = refusal_of(engine, extras)
        if refusal is not None:
            raise refusal


def refusal_of(engine: str, extras: Extras) -> Invalid | None:
    """What is refused of the extras on a deployment of that engine, or None."""
    if extras.logprobs and engine in _NO_ALTERNATIVES:
        return Invalid(
            "The engine of this model tells the log probability of the chosen token alone: send "
            "'top_logprobs' 0, or leave it out.",
            code="unsupported_parameter",
            param="top_logprobs",
        )
    return None
