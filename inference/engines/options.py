"""Validation of a deployment's engine options: unknown names and wrong types are refused."""

from types import ModuleType
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


def options_of(module: ModuleType) -> type[msgspec.Struct] | None:
    """The structure of options in an engine's module; None where it is not plain which."""
    found = {
        value
        for name, value in vars(module).items()
        if name.endswith("Options")
        and isinstance(value, type)
        and issubclass(value, msgspec.Struct)
    }
    own = {kind for kind in found if kind.__module__ == module.__name__}
    found = own or found
    return found.pop() if len(found) == 1 else None


def known_options(module: ModuleType, options: EngineOptions) -> EngineOptions:
    """Those of the options that the engine in that module has, as ``auto`` gives them to it."""
    kind = options_of(module)
    if kind is None:
        return options
    return {n: value for n, value in options.items() if n in kind.__struct_fields__}
