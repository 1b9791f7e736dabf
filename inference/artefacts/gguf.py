"""Reads the header of a GGUF file: metadata and the list of tensors, never the weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reference reader maps every
array element into numpy, which takes seconds for a vocabulary; this one takes a fraction of one,
checks every length against the file's size and finds truncation.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from portal.core.errors import Invalid

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about itself."""

    metadata: dict[str, Any]
    tensors: tuple[str, ...]


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = 0

    def _take(self, size: int) -> int:
        start = self.at
        if size > len(self._data) - start:
            raise Invalid("The GGUF file is truncated.")
        self.at += size
        return start

    def scalar(self, form: str) -> Any:
        return struct.unpack_from(form, self._data, self._take(struct.calcsize(form)))[0]

    def string(self) -> str:
        size = self.scalar("<Q")
        start = self._take(size)
        return self._data[start : start + size].decode("utf-8", "strict")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(self.scalar("<I"), self.scalar("<Q"))
        if kind not in _SCALARS:
            raise Invalid(f"The GGUF file has a value of unknown type {kind}.")
        return self.scalar(_SCALARS[kind])

    def _array(self, kind: int, count: int) -> list[Any]:
        # Every element takes a byte at least, so a count beyond the file is caught at once.
        if count > len(self._data) - self.at:
            raise Invalid("The GGUF file is truncated.")
        if kind == _ARRAY:
            raise Invalid("The GGUF file has an array of arrays.")
        if kind in _SCALARS:
            form = f"<{count}{_SCALARS[kind][1]}"
            return list(struct.unpack_from(form, self._data, self._take(struct.calcsize(form))))
        return [self.value(kind) for _ in range(count)]


def _tensor(cursor: _Cursor) -> tuple[str, int]:
    """Name of the next tensor, and where its data ends, from the start of all data."""
    name = cursor.string()
    dimensions = cursor.scalar("<I")
    if dimensions > _MOST_DIMENSIONS:
        raise Invalid(f"Tensor {name} of the GGUF file has {dimensions} dimensions.")
    elements = math.prod(cursor.scalar("<Q") for _ in range(dimensions))
    kind, offset = cursor.scalar("<I"), cursor.scalar("<Q")
    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise Invalid(f"Tensor {name} of the GGUF file has unknown type {kind}.") from None
    return name, offset + elements // block * size


def _parse(data: mmap.mmap) -> GgufHeader:
    cursor = _Cursor(data)
    if data[:4] != b"GGUF":
        raise Invalid("The file is not GGUF.")
    cursor.at = 4
    version = cursor.scalar("<I")
    if version not in (2, 3):
        raise Invalid(f"GGUF version {version} is not supported; 2 and 3 are.")
    tensor_count, value_count = cursor.scalar("<Q"), cursor.scalar("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("<I"))
    tensors = [_tensor(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    start = -(-cursor.at // alignment) * alignment
    if start + max((end for _, end in tensors), default=0) > len(data):
        raise Invalid("The GGUF file is truncated: its last weights are missing.")
    return GgufHeader(metadata, tuple(name for name, _ in tensors))


def read_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at ``path``.

    Raises:
        Invalid: no GGUF file, an unknown version, truncated or malformed.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) < 8:
            raise Invalid("The file is not GGUF.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _parse(data)
            except (UnicodeDecodeError, TypeError, ZeroDivisionError, OverflowError) as fault:
                raise Invalid(f"The GGUF file is malformed: {fault}") from None
