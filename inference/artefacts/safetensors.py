"""Checks weights in safetensors files by their headers; the weights themselves are not read.

Format: https://huggingface.co/docs/safetensors. Eight bytes give the header's length, the header is
JSON with type, shape and place of each tensor, and the tensors fill the rest without gaps.
"""

import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from portal.core.errors import Invalid

INDEX = "model.safetensors.index.json"
_MOST_HEADER = 100_000_000  # bytes, as the reference reader has it
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def tensors_of(path: Path) -> frozenset[str]:
    """The names of a file's tensors, after checking that each is there in full.

    Raises:
        Invalid: naming the file, and what is wrong with it.
    """
    try:
        return _tensors(path)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Invalid(f"{path} is damaged: its header is no JSON ({fault}).") from None
    except (KeyError, TypeError, ValueError) as fault:
        raise Invalid(f"{path} is damaged: its header is malformed ({fault}).") from None


def _tensors(path: Path) -> frozenset[str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise Invalid(f"{path} is truncated: it has no header.")
        (length,) = struct.unpack("<Q", start)
        if length > _MOST_HEADER:
            raise Invalid(f"{path} is no safetensors file: its header would be {length} bytes.")
        if length > size - 8:
            raise Invalid(f"{path} is truncated: its header is incomplete.")
        header: dict[str, Any] = msgspec.json.decode(file.read(length), type=dict[str, Any])
    header.pop("__metadata__", None)
    places = [_place(name, entry) for name, entry in header.items()]
    _check_places(path, places, size - 8 - length)
    return frozenset(header)


def _place(name: str, entry: Any) -> tuple[int, int, str]:
    begin, end = entry["data_offsets"]
    bits = math.prod(entry["shape"]) * _BITS[entry["dtype"]]
    if not 0 <= begin <= end or (end - begin) * 8 != bits:
        raise ValueError(f"the size of tensor {name} does not fit its shape")
    return begin, end, name


def _check_places(path: Path, places: Iterable[tuple[int, int, str]], size: int) -> None:
    at = 0
    for begin, end, name in sorted(places):
        if begin != at:
            raise ValueError(f"there is a gap before tensor {name}, or it overlaps")
        if end > size:
            raise Invalid(f"{path} is truncated: tensor {name} is incomplete.")
        at = end
    if at != size:
        raise Invalid(f"{path} is damaged: {size - at} bytes at its end belong to no tensor.")


def weight_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that hold a model's weights, all of them checked, and the index if any.

    Raises:
        Invalid: naming the file that is missing or damaged, or that only pickles are there.
    """
    if (folder / INDEX).is_file():
        return _indexed(folder)
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if "model.safetensors" in found:
        found = ["model.safetensors"]
    if not found:
        raise Invalid(_without_weights(folder))
    if len(found) > 1:
        raise Invalid(f"{folder / INDEX} is missing, which says what is in each of its files.")
    tensors_of(folder / found[0])
    return tuple(found)


def _without_weights(folder: Path) -> str:
    pickles = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt")
    )
    if not pickles:
        return f"{folder} holds no weights: model.safetensors is missing."
    return (
        f"{folder} holds pickled weights only ({pickles[0]}), which can run code when they are "
        "loaded and are never imported; bring the model as safetensors."
    )


def _indexed(folder: Path) -> tuple[str, ...]:
    index = folder / INDEX
    try:
        content = msgspec.json.decode(index.read_bytes(), type=dict[str, Any])
        weight_map = msgspec.convert(content["weight_map"], dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, UnicodeDecodeError) as fault:
        raise Invalid(f"{index} is damaged: {fault}.") from None
    named: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        named.setdefault(shard, []).append(tensor)
    if not named:
        raise Invalid(f"{index} names no weights.")
    for shard, tensors in sorted(named.items()):
        _check_shard(index, shard, tensors)
    return (*sorted(named), INDEX)


def _check_shard(index: Path, shard: str, tensors: list[str]) -> None:
    if Path(shard).name != shard or not shard.endswith(".safetensors"):
        raise Invalid(f"{index} names {shard!r}, which is no safetensors file of its folder.")
    path = index.parent / shard
    if not path.is_file():
        raise Invalid(f"{path} is missing, which {index.name} names.")
    absent = sorted(set(tensors) - tensors_of(path))
    if absent:
        raise Invalid(f"{path} lacks tensor {absent[0]}, which {index.name} places there.")
