"""The key-value cache of a batch: one row a request, allocated once, written in place.

Memory is flat for each layer and seen as ``[rows, heads, length, size]``; the shape changes when a
longer request comes or more requests than it has rows. Whatever lies beyond the end of a request
is finite: attention multiplies it by zero, and zero times NaN would be NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from portal.core.errors import Invalid

BUCKET = 64  # attention reads whole buckets, so that few shapes occur


def buckets(tokens: int) -> int:
    """``tokens`` rounded up to whole buckets."""
    return -(-tokens // BUCKET) * BUCKET


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What a layer keeps of a token: heads and their size, of keys and of values.

    Of multi-head latent attention these are the compressed latent and the rotary key, of one head.
    """

    key_heads: int
    key_size: int
    value_heads: int
    value_size: int

    @property
    def numbers(self) -> int:
        """Numbers a token."""
        return self.key_heads * self.key_size + self.value_heads * self.value_size


def layer_shapes(seen: DynamicCache) -> list[LayerShape]:
    """The shapes of a cache that a model has filled.

    Raises:
        Invalid: a layer keeps something else than keys and values of every token.
    """
    shapes = []
    for layer in seen.layers:
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            raise Invalid(
                f"This engine can't serve a model whose cache has a {type(layer).__name__}."
            )
        keys, values = layer.keys.shape, layer.values.shape
        shapes.append(LayerShape(keys[1], keys[3], values[1], values[3]))
    return shapes


@dataclass(frozen=True, slots=True)
class CacheBudget:
    """How many requests of which lengths fit.

    Args:
        tokens: that the cache's memory holds, whole buckets.
        slots: most rows.
        context_length: most tokens of a request.
    """

    tokens: int
    slots: int
    context_length: int

    @property
    def longest(self) -> int:
        """Most tokens of one request."""
        return min(self.tokens, buckets(self.context_length))

    def length_for(self, need: int) -> int:
        """Length of rows in which ``need`` tokens fit: powers of two, so that it changes rarely."""
        length = BUCKET
        while length < need:
            length *= 2
        return min(length, self.longest)

    def rows_of(self, length: int) -> int:
        """How many rows of a length there is memory for."""
        return min(self.slots, self.tokens // length)

    def fits(self, needs: Sequence[int]) -> bool:
        """Whether requests of these lengths have room beside each other."""
        longest = max(needs)
        return longest <= self.longest and len(needs) <= self.rows_of(self.length_for(longest))


@dataclass(slots=True)
class StepPlace:
    """Where the tokens of the current step go, for all layers.

    Args:
        rows: indices ``[batch, 1]``.
        positions: ``[batch, tokens]``.
        first: the first of the consecutive rows.
        batch: their number.
        extent: how much of each row attention reads.
    """

    rows: torch.Tensor
    positions: torch.Tensor
    first: int
    batch: int
    extent: int


class RowLayer(CacheLayerMixin):
    """One layer's keys and values."""

    is_sliding = False

    def __init__(self, shape: LayerShape, tokens: int, dtype: torch.dtype, device: torch.device):
        super().__init__()
        self._shape = shape
        # Zeros of a CPU are not touched before they are written, so that the cache takes memory
        # only as it fills.
        self._flat = (
            torch.zeros(tokens * shape.key_heads * shape.key_size, dtype=dtype, device=device),
            torch.zeros(tokens * shape.value_heads * shape.value_size, dtype=dtype, device=device),
        )
        self.is_initialized = True
        self.keys: torch.Tensor
        self.values: torch.Tensor
        self.place: StepPlace

    def view(self, rows: int, length: int) -> None:
        """See the memory as ``rows`` of ``length`` tokens; what it held is not moved."""
        shape = self._shape
        flat_keys, flat_values = self._flat
        count = rows * length
        self.keys = flat_keys[: count * shape.key_heads * shape.key_size].view(
            rows, shape.key_heads, length, shape.key_size
        )
        self.values = flat_values[: count * shape.value_heads * shape.value_size].view(
            rows, shape.value_heads, length, shape.value_size
        )

    @property
    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys, self.values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the step's tokens; returns what attention reads, the rows of this step."""
        place = self.place
        self.keys[place.rows, :, place.positions] = key_states.transpose(1, 2)
        self.values[place.rows, :, place.positions] = value_states.transpose(1, 2)
        rows = slice(place.first, place.first + place.batch)
        return self.keys[rows, :, : place.extent], self.values[rows, :, : place.extent]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: memory is there from the beginning."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what ``update`` returns."""
        return self.place.extent, 0

    def get_seq_length(self) -> int:
        """Positions are always given: no length is common to all rows."""
        return 0

    def get_max_length(self) -> int:
        """Most tokens of a row."""
        return int(self.keys.shape[2])


class RowCache(Cache):
    """All layers. Rows and lengths are plain numbers, so that other ranks can repeat each call."""

    def __init__(
        self,
        shapes: Sequence[LayerShape],
        budget: CacheBudget,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.rows_layers = [RowLayer(shape, budget.tokens, dtype, device) for shape in shapes]
        super().__init__(layers=list(self.rows_layers))
        self._lengths: list[int] = []
        self.length = 0
        self._view(budget.slots, budget.length_for(1), budget)

    def _view(self, rows: int, length: int, budget: CacheBudget) -> None:
        rows = min(rows, budget.rows_of(length))
        self.length = length
        self._lengths = [0] * rows
        for layer in self.rows_layers:
            layer.view(rows, length)

    @property
    def rows(self) -> int:
        """Rows of the present shape."""
        return len(self._lengths)

    @property
    def used_tokens(self) -> int:
        """Tokens that rows hold."""
        return sum(self._lengths)

    def reshape(self, length: int, budget: CacheBudget) -> None:
        """Give each row ``length`` tokens; rows in use stay what they are."""
        lengths = self._lengths
        used = max((row + 1 for row, size in enumerate(lengths) if size), default=0)
        longest = max(lengths, default=0)
        old = [
            [tensor[:used, :, :longest].clone() for tensor in layer.both]
            for layer in self.rows_layers
        ]
        for layer in self.rows_layers:
            for tensor in layer.both:
                tensor[:used, :, :longest].zero_()
        self._view(budget.slots, length, budget)
        for layer, copies in zip(self.rows_layers, old, strict=True):
            for tensor, copy in zip(layer.both, copies, strict=True):
                tensor[:used, :, :longest] = copy
        self._lengths[: len(lengths)] = lengths[: self.rows]

    def place(self, first: int, positions: torch.Tensor, ends: Sequence[int]) -> int:
        """Say where the next forward writes; returns how much of each row attention reads."""
        batch = len(ends)
        rows = torch.arange(first, first + batch, device=positions.device)[:, None]
        extent = min(buckets(max(ends)), self.length)
        place = StepPlace(rows, positions, first, batch, extent)
        for layer in self.rows_layers:
            layer.place = place
        for row, end in enumerate(ends, first):
            self._lengths[row] = max(self._lengths[row], end)
        return extent

    def move(self, source: int, target: int) -> None:
        """Row ``source`` becomes row ``target``, whose content is lost, and is empty then."""
        size = max(self._lengths[source], self._lengths[target])
        for layer in self.rows_layers:
            for tensor in layer.both:
                tensor[target, :, :size] = tensor[source, :, :size]
        self._lengths[target] = self._lengths[source]
        self.clear(source)

    def clear(self, row: int) -> None:
        """Empty a row."""
        size, self._lengths[row] = self._lengths[row], 0
        for layer in self.rows_layers:
            for tensor in layer.both:
                tensor[row, :, :size].zero_()

    def copy_out(self, row: int, tokens: int) -> list[torch.Tensor]:
        """Copies of the first ``tokens`` of a row."""
        return [
            tensor[row, :, :tokens].clone() for layer in self.rows_layers for tensor in layer.both
        ]

    def copy_in(self, row: int, copies: Sequence[torch.Tensor], tokens: int) -> None:
        """Fill an empty row with the first ``tokens`` of what ``copy_out`` gave."""
        pairs = iter(copies)
        for layer in self.rows_layers:
            for tensor in layer.both:
                tensor[row, :, :tokens] = next(pairs)[:, :tokens]
        self._lengths[row] = tokens
