"""Checks models in OpenVINO's own format (IR): ``openvino_model.xml`` and the weights beside it.

The description names the place of each constant in the ``.bin``; it is searched, not parsed, since
that takes no XML reader and a fraction of the time.
"""

import mmap
import re
from pathlib import Path

from portal.core.errors import Invalid

MODEL, BIN = "openvino_model.xml", "openvino_model.bin"
_TOKENIZERS = ("openvino_tokenizer", "openvino_detokenizer")
_CONSTANT = re.compile(
    rb'<data element_type="(\w+)"[^>]*?\soffset="(\d{1,19})"[^>]*?\ssize="(\d{1,19})"'
)


def is_there(folder: Path) -> bool:
    """Whether a folder is meant to be in this format."""
    return (folder / MODEL).is_file() or (folder / BIN).is_file()


def weight_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that hold the model, all of them checked.

    Raises:
        Invalid: naming the file that is missing or damaged.
    """
    for name in (MODEL, BIN):
        if not (folder / name).is_file():
            raise Invalid(f"{folder / name} is missing.")
    _check(folder / MODEL, folder / BIN)
    return MODEL, BIN


def optional_files(folder: Path) -> tuple[str, ...]:
    """Names of the converted tokenizers, each of which is two files.

    Raises:
        Invalid: naming the file that is missing or damaged.
    """
    found: list[str] = []
    for name in _TOKENIZERS:
        if (folder / f"{name}.xml").is_file():
            if not (folder / f"{name}.bin").is_file():
                raise Invalid(f"{folder / name}.bin is missing.")
            _check(folder / f"{name}.xml", folder / f"{name}.bin")
            found += [f"{name}.xml", f"{name}.bin"]
    return tuple(found)


def precision(folder: Path) -> str:
    """Element type that most bytes of the weights have, such as ``U4`` or ``F16``."""
    sizes: dict[str, int] = {}
    for kind, _, size in _constants(folder / MODEL):
        sizes[kind] = sizes.get(kind, 0) + size
    return max(sizes, key=lambda kind: sizes[kind]).upper() if sizes else "unknown"


def _check(description: Path, weights: Path) -> None:
    constants = _constants(description)
    size = weights.stat().st_size
    if max((offset + length for _, offset, length in constants), default=0) > size:
        raise Invalid(f"{weights} is truncated: {description.name} places weights behind its end.")


def _constants(description: Path) -> list[tuple[str, int, int]]:
    """Type, offset and size of each constant."""
    with description.open("rb") as file:
        if file.seek(0, 2) == 0:
            raise Invalid(f"{description} is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if b"<net " not in data[:4096] or not data[-64:].rstrip().endswith(b"</net>"):
                raise Invalid(f"{description} is damaged: it is no whole OpenVINO model.")
            return [
                (kind.decode(), int(offset), int(size))
                for kind, offset, size in _CONSTANT.findall(data)
            ]
