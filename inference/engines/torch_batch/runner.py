"""The model and its cache: everything that touches the device.

Each call is determined by its arguments, plain numbers and small arrays, and by the calls before.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.cache_utils import DynamicCache

from inference.engines.torch_batch.cache import (
    BUCKET,
    CacheBudget,
    LayerShape,
    RowCache,
    buckets,
    layer_shapes,
)
from inference.engines.torch_batch.options import TorchBatchOptions
from portal.core.errors import Invalid

Ids = npt.NDArray[np.int64]
_CPU_CACHE_BYTES = 1024 * 2**20
_FREE_PART = 0.8  # of an accelerator's free memory; the rest is for what a step computes


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What one forward step computes.

    Args:
        first: the first of consecutive rows of the cache.
        tokens: ids, ``[rows, width]``.
        positions: of the same shape. A row with fewer tokens than the width begins with copies of
            its first token at the same position, which write the same thing again.
    """

    first: int
    tokens: Ids
    positions: Ids


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether a step failed for want of memory, so that a smaller one may pass."""
    # What torch raises on a CPU has no class of its own.
    return isinstance(fault, torch.OutOfMemoryError) or "can't allocate memory" in str(fault)


class ModelRunner:
    """Runs steps of a model over rows of a cache.

    Args:
        model: a causal language model of transformers, on its device.
        slots: most rows.
        context_length: most tokens of a row.
        cache_bytes: memory of the cache.

    Raises:
        Invalid: the model's cache is of a kind that has no rows, or there is no memory for one.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        slots: int,
        context_length: int,
        cache_bytes: int,
    ) -> None:
        self._model = model
        self.device = next(model.parameters()).device
        shapes, dtype = self._probe()
        self.token_bytes: int = sum(shape.numbers for shape in shapes) * dtype.itemsize
        # More than all slots at their longest would never be used.
        most = slots * buckets(context_length)
        tokens = min(cache_bytes // self.token_bytes // BUCKET * BUCKET, most)
        if tokens < BUCKET:
            raise Invalid(
                f"A token takes {self.token_bytes} bytes of the cache, and it must hold at least "
                f"{BUCKET}: give it more memory (cache_mb).",
                param="options",
            )
        self.budget = CacheBudget(tokens, slots, context_length)
        self._cache = RowCache(shapes, self.budget, dtype, self.device)
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self._saved: dict[int, list[torch.Tensor]] = {}
        self._handles = 0
        self._saved_bytes: int = 0
        self._weight_bytes = sum(_own_bytes(p) for p in (*model.parameters(), *model.buffers()))

    @torch.inference_mode()
    def _probe(self) -> tuple[list[LayerShape], torch.dtype]:
        """What the model keeps of a token, found by giving it two."""
        seen = DynamicCache(config=self._model.config)
        ids = torch.zeros((1, 2), dtype=torch.long, device=self.device)
        self._model(input_ids=ids, past_key_values=seen, use_cache=True, logits_to_keep=1)
        shapes = layer_shapes(seen)
        keys = seen.layers[0].keys
        assert keys is not None
        return shapes, keys.dtype

    @property
    def rows(self) -> int:
        """Rows of the cache in its present shape."""
        return self._cache.rows

    @property
    def length(self) -> int:
        """Tokens of a row in the present shape."""
        return self._cache.length

    @property
    def used_tokens(self) -> int:
        """Tokens that rows hold."""
        return self._cache.used_tokens

    @property
    def memory_bytes(self) -> int:
        """What weights, cache and saved rows take."""
        return self._weight_bytes + self.budget.tokens * self.token_bytes + self._saved_bytes

    @torch.inference_mode()
    def forward(self, inputs: StepInputs) -> torch.Tensor:
        """Compute tokens and keep their keys and values.

        A step that failed may be repeated: it writes the same things at the same places.

        Returns:
            Logits after each row's last token, ``[rows, vocabulary]``, in 32 bits.
        """
        ends = [int(last) + 1 for last in inputs.positions[:, -1]]
        positions = torch.from_numpy(inputs.positions).to(self.device, non_blocking=True)
        tokens = torch.from_numpy(inputs.tokens).to(self.device, non_blocking=True)
        extent = self._cache.place(inputs.first, positions, ends)
        reach = torch.arange(extent, device=self.device)
        output = self._model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=(positions[:, None, :, None] >= reach),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    @torch.inference_mode()
    def reshape(self, length: int) -> None:
        """Give each row of the cache ``length`` tokens, and as many rows as there is memory for."""
        self._cache.reshape(length, self.budget)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Row ``source`` becomes row ``target``, whose content is lost."""
        self._cache.move(source, target)

    @torch.inference_mode()
    def clear(self, row: int) -> None:
        """Empty a row."""
        self._cache.clear(row)

    @torch.inference_mode()
    def save(self, row: int, tokens: int) -> int:
        """Keep a copy of the first ``tokens`` of a row; returns what to call it."""
        self._handles += 1
        copies = self._cache.copy_out(row, tokens)
        self._saved[self._handles] = copies
        self._saved_bytes += sum(part.nbytes for part in copies)
        return self._handles

    @torch.inference_mode()
    def restore(self, row: int, handle: int, tokens: int) -> None:
        """Fill an empty row with the first ``tokens`` of a copy."""
        self._cache.copy_in(row, self._saved[handle], tokens)

    def drop(self, handle: int) -> None:
        """Forget a copy."""
        self._saved_bytes -= sum(part.nbytes for part in self._saved.pop(handle))

    def give_back(self) -> None:
        """Return to the device what torch holds and does not use."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def lost(self) -> bool:
        """Whether it can compute no more, for other processes that take part are gone."""
        return False

    def check(self) -> None:
        """Raises if it is lost: then what it computed last is worth nothing."""

    def close(self) -> None:
        """End what takes part in other processes."""


def _own_bytes(part: torch.Tensor) -> int:
    """Of a tensor, or of this rank's part of one."""
    own = part.to_local() if isinstance(part, DTensor) else part
    return own.numel() * own.element_size()


def cache_bytes_of(options: TorchBatchOptions, device: torch.device) -> int:
    """Memory for a cache on a device that holds the model already."""
    if options.cache_mb is not None:
        return options.cache_mb * 2**20
    if device.type != "cuda":
        return _CPU_CACHE_BYTES
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _FREE_PART) - options.prefix_cache_mb * 2**20
