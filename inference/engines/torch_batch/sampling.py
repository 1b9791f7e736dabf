"""Choosing the next tokens of a whole batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from inference.engines.base import Sampling

_NUCLEUS = 256  # tokens that are sorted first: nearly every nucleus lies within them
_LEAST_TEMPERATURE = 1e-6  # below, 32 bits can't tell it from 0
_DRAWS = 64  # numbers that are drawn from a generator at once
NOTHING = -1  # in the place of an id: the model's logits leave nothing to choose from


class TokenMask(Protocol):
    """Restricts what may come next in one request, such as to what a grammar allows."""

    def mask(self, logits: torch.Tensor) -> None:
        """Set the logits (one number a token id) of all that may not come next to ``-inf``."""
        ...

    def accept(self, token_id: int) -> None:
        """Take note of the token that was chosen."""
        ...


class Draws:
    """A request's own random numbers in [0, 1): the same for a seed, whoever else is served."""

    def __init__(self, seed: int | None) -> None:
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed % 2**63)
        self._left: list[float] = []

    def take(self) -> float:
        """The next number."""
        if not self._left:
            self._left = torch.rand(_DRAWS, generator=self._generator).tolist()
            self._left.reverse()
        return self._left.pop()


@dataclass(frozen=True, slots=True)
class PlaceLogprobs:
    """Natural log-probabilities at one place, of the model's own distribution."""

    chosen: float
    top: list[tuple[int, float]]


class SamplingPlan:
    """The parameters of a batch as tensors; made anew only when the batch changes.

    Args:
        samplings: in the order of the rows.
        eos: ends of text, which are not taken before ``min_tokens``.
    """

    def __init__(
        self, samplings: Sequence[Sampling], eos: Sequence[int], device: torch.device
    ) -> None:
        self._device = device
        self._eos = torch.tensor(list(eos), dtype=torch.long, device=device)
        self.least = [s.min_tokens if eos else 0 for s in samplings]
        self.drawn = [row for row, s in enumerate(samplings) if s.temperature > 0 and s.top_p > 0]
        self.told = [row for row, s in enumerate(samplings) if s.logprobs is not None]
        drawn = [samplings[row] for row in self.drawn]
        self._drawn_rows = self._indices(self.drawn)
        self._temperature = self._column([max(s.temperature, _LEAST_TEMPERATURE) for s in drawn])
        cut = [place for place, s in enumerate(drawn) if s.top_p < 1 or s.top_k > 0]
        self._cut_rows = self._indices(cut)
        self._top_k = [drawn[place].top_k for place in cut]
        self._top_p = self._column([drawn[place].top_p for place in cut])
        self._told_rows = self._indices(self.told)
        self._told_top = [samplings[row].logprobs or 0 for row in self.told]

    def _indices(self, rows: Sequence[int]) -> torch.Tensor:
        return torch.tensor(list(rows), dtype=torch.long, device=self._device)

    def _column(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=self._device)[:, None]

    def choose(
        self,
        logits: torch.Tensor,
        *,
        generated: Sequence[int],
        draws: Sequence[Draws],
        masks: Sequence[TokenMask | None],
    ) -> tuple[list[int], dict[int, PlaceLogprobs], dict[int, Exception]]:
        """The next token of each row. ``logits`` ``[rows, vocabulary]`` are changed.

        Args:
            generated: tokens that each row has generated.
            draws: each row's random numbers.
            masks: each row's restriction.

        Returns:
            Ids by row, ``NOTHING`` where the logits leave nothing to choose from; the
            log-probabilities of the rows that asked for them; what the masks of rows raised.
        """
        own = logits[self._told_rows].log_softmax(-1) if self.told else None
        faults = _apply(masks, logits)
        self._hold_ends(logits, generated)
        best, ids = logits.max(-1)
        if self.drawn:
            numbers = torch.tensor([draws[row].take() for row in self.drawn], device=self._device)
            ids[self._drawn_rows] = self._draw(logits[self._drawn_rows], numbers)
        ids = torch.where(best.isfinite(), ids, NOTHING)
        told = {} if own is None else self._tell(own, ids)
        return ids.tolist(), told, faults

    def _hold_ends(self, logits: torch.Tensor, generated: Sequence[int]) -> None:
        early = [row for row, least in enumerate(self.least) if least and generated[row] < least]
        if not early:
            return
        rows = self._indices(early)
        held = logits[rows[:, None], self._eos]
        logits[rows[:, None], self._eos] = -torch.inf
        # Where a mask allows nothing but the end, the end it is.
        stuck = logits[rows].amax(-1, keepdim=True) == -torch.inf
        logits[rows[:, None], self._eos] = torch.where(stuck, held, -torch.inf)

    def _draw(self, logits: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Invert the cumulative distribution, in the order of ids: it does not depend on ties."""
        scaled = logits / self._temperature
        if self._top_k:
            cut = scaled[self._cut_rows]
            scaled[self._cut_rows] = _keep_likeliest(cut, self._top_k, self._top_p)
        reached = scaled.softmax(-1).cumsum(-1)
        total = reached[:, -1:]
        # Never the total itself: nothing lies above it.
        target = torch.minimum(numbers[:, None] * total, total.nextafter(torch.zeros_like(total)))
        found = torch.searchsorted(reached, target, right=True)[:, 0]
        return found.clamp_(max=logits.shape[-1] - 1)

    def _tell(self, own: torch.Tensor, ids: torch.Tensor) -> dict[int, PlaceLogprobs]:
        taken = ids[self._told_rows].clamp(min=0)[:, None]
        chosen = own.gather(1, taken)[:, 0].tolist()
        values, places = own.topk(min(max(self._told_top), own.shape[-1]))
        top = [
            list(zip(ids_of, values_of, strict=True))
            for ids_of, values_of in zip(places.tolist(), values.tolist(), strict=True)
        ]
        return {
            row: PlaceLogprobs(chosen[n], top[n][: self._told_top[n]])
            for n, row in enumerate(self.told)
        }


def _apply(masks: Sequence[TokenMask | None], logits: torch.Tensor) -> dict[int, Exception]:
    faults: dict[int, Exception] = {}
    for row, mask in enumerate(masks):
        if mask is None:
            continue
        try:
            mask.mask(logits[row])
        except Exception as fault:  # noqa: BLE001 - fails this request, and no other
            faults[row] = fault
    return faults


def _keep_likeliest(
    logits: torch.Tensor, top_k: Sequence[int], top_p: torch.Tensor
) -> torch.Tensor:
    """Logits of each row's ``top_k`` likeliest and, of these, of its nucleus; ``-inf`` elsewhere.

    The nucleus is the smallest set of the likeliest whose probabilities reach ``top_p``
    (Holtzman et al. 2020); a ``top_k`` of 0 sets no bound.
    """
    vocabulary = logits.shape[-1]
    bounds = [k or vocabulary for k in top_k]
    size = min(vocabulary, max(_NUCLEUS, *top_k))
    limit = torch.tensor(bounds, device=logits.device)[:, None]
    while True:
        values, places = logits.topk(size)
        bounded = values.masked_fill(torch.arange(size, device=logits.device) >= limit, -torch.inf)
        whole = torch.where(
            limit < vocabulary, bounded.logsumexp(-1, True), logits.logsumexp(-1, True)
        )
        shares = (bounded - whole).exp()
        before = shares.cumsum(-1) - shares
        short = (limit > size) & (before[:, -1:] + shares[:, -1:] < top_p)
        if size == vocabulary or not bool(short.any()):
            break
        size = vocabulary
    # The likeliest stays, whatever rounding does.
    kept = before < top_p
    kept[:, 0] = True
    kept &= bounded > -torch.inf
    return torch.full_like(logits, -torch.inf).scatter(
        1, places, bounded.masked_fill(~kept, -torch.inf)
    )
