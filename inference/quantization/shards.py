"""Safetensors of an artefact folder, a tensor at a time, in files of bounded size."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from portal.core.errors import Invalid, NotFound

SHARD_BYTES = 4 * 2**30


def read_tensors(folder: Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the folder's ``*.safetensors``, by name, on a device.

    Raises:
        NotFound: there is no such file.
        Invalid: one is damaged.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise NotFound(f"There are no weights (*.safetensors) in {folder}.")
    for path in paths:
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    yield name, file.get_tensor(name)
        except SafetensorError as fault:
            raise Invalid(f"The artefact's file {path} is damaged: {fault}.") from None


def write_tensors(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> int:
    """Writes tensors as they come, a file for each ``SHARD_BYTES``.

    Returns:
        Bytes of all tensors.
    """
    shard: dict[str, Tensor] = {}
    size = total = number = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > SHARD_BYTES:
            number += 1
            save_file(shard, folder / f"model-{number:05}.safetensors", {"format": "pt"})
            shard, size = {}, 0
        shard[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    save_file(shard, folder / f"model-{number + 1:05}.safetensors", {"format": "pt"})
    return total
