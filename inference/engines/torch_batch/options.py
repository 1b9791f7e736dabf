"""What a deployment may say about the engine ``torch_batch``."""

from typing import Annotated, Final, Literal

import msgspec

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
MOST_RANKS: Final = 64


class TorchBatchOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the engine ``torch_batch``.

    Args:
        device: ``cuda`` is an NVIDIA or, with torch built for ROCm, an AMD accelerator; ``auto``
            takes one if there is one.
        dtype: number format of weights and cache; ``auto`` is the artefact's own on an
            accelerator. On a CPU it is bfloat16 if the artefact has 16 bits and the CPU has
            instructions for it, or if the weights are packed; otherwise float32.
        slots: requests that run at once.
        cache_mb: memory of the key-value cache, in MiB; None takes a fixed part of an
            accelerator's free memory, and 1024 on a CPU.
        prefill_tokens: most prompt tokens that are computed between two steps of the others;
            None is 256 on a CPU and 2048 on an accelerator.
        prefix_cache_mb: memory for beginnings of prompts that may be used again, in MiB, on the
            same device; 0 computes every prompt anew.
        threads: CPU threads for computing; None leaves it to torch.
        tensor_parallel: ranks over which the model is split, each a process with an accelerator of
            its own; memory and threads above are each rank's.
    """

    device: Device = "auto"
    dtype: Dtype = "auto"
    slots: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    cache_mb: Annotated[int, msgspec.Meta(ge=1)] | None = None
    prefill_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    prefix_cache_mb: Annotated[int, msgspec.Meta(ge=0)] = 256
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tensor_parallel: Annotated[int, msgspec.Meta(ge=1, le=MOST_RANKS)] = 1
