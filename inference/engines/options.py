"""Validation of a deployment's engine options: unknown names and wrong types are refused."""

from typing import TypeVar

import msgspec

from inference.engines.base import EngineOptions
from portal.core.errors import Invalid

T = TypeVar("T", bound=msgspec.Struct)


def parse_options(kind: type[T], options: EngineOptions, *, engine: str) -> T:
    """``options`` as the engine's own typed struct.

    Raises:
        Invalid: naming the option at fault.
    """
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as fault:
        raise Invalid(
            f"The options of engine {engine} are wrong: {fault}.", param="options"
        ) from None
