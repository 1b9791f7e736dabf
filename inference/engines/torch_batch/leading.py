"""Rank 0 of a tensor-parallel group: its part of the model, and the lead of the others."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from inference.engines.base import EngineBroken
from inference.engines.torch_batch.calls import Call, Forward, Join, Loaded, Open, Ready
from inference.engines.torch_batch.group import join_group, lead_store, leave_group
from inference.engines.torch_batch.loading import load_model
from inference.engines.torch_batch.options import TorchBatchOptions
from inference.engines.torch_batch.ranks import RankLost, Ranks
from inference.engines.torch_batch.runner import ModelRunner, StepInputs, cache_bytes_of


class LeadingRunner(ModelRunner):
    """Tells the other ranks of each call before it makes it; see ``ModelRunner``.

    A call that fails on any rank raises ``RankLost``, as does every later one: ranks that no longer
    do the same compute nothing of worth.
    """

    def __init__(
        self,
        model: nn.Module,
        ranks: Ranks,
        *,
        slots: int,
        context_length: int,
        cache_bytes: int,
    ) -> None:
        self._ranks = ranks
        ranks.tell(Open(cache_bytes))
        with ranks.together():
            super().__init__(
                model, slots=slots, context_length=context_length, cache_bytes=cache_bytes
            )

    @property
    def lost(self) -> bool:
        """See ``ModelRunner.lost``."""
        return self._ranks.lost

    def check(self) -> None:
        """See ``ModelRunner.check``."""
        self._ranks.check()

    def close(self) -> None:
        """See ``ModelRunner.close``."""
        self._ranks.close()
        leave_group()

    def forward(self, inputs: StepInputs) -> torch.Tensor:
        """See ``ModelRunner.forward``."""
        self._ranks.tell(Forward.of(inputs))
        with self._ranks.together():
            return super().forward(inputs)

    def reshape(self, length: int) -> None:
        """See ``ModelRunner.reshape``."""
        self._ranks.tell(Call("reshape", (length,)))
        with self._ranks.together():
            super().reshape(length)

    def move(self, source: int, target: int) -> None:
        """See ``ModelRunner.move``."""
        self._ranks.tell(Call("move", (source, target)))
        super().move(source, target)

    def clear(self, row: int) -> None:
        """See ``ModelRunner.clear``."""
        self._ranks.tell(Call("clear", (row,)))
        super().clear(row)

    def save(self, row: int, tokens: int) -> int:
        """See ``ModelRunner.save``."""
        self._ranks.tell(Call("save", (row, tokens)))
        with self._ranks.together():
            return super().save(row, tokens)

    def restore(self, row: int, handle: int, tokens: int) -> None:
        """See ``ModelRunner.restore``."""
        self._ranks.tell(Call("restore", (row, handle, tokens)))
        super().restore(row, handle, tokens)

    def drop(self, handle: int) -> None:
        """See ``ModelRunner.drop``."""
        self._ranks.tell(Call("drop", (handle,)))
        super().drop(handle)

    def give_back(self) -> None:
        """See ``ModelRunner.give_back``."""
        self._ranks.tell(Call("give_back", ()))
        super().give_back()


def open_group(
    artefact_dir: Path,
    *,
    options: TorchBatchOptions,
    device: torch.device,
    context_length: int,
    on_loss: Callable[[], None],
) -> LeadingRunner:
    """Start the other ranks and load every rank's part of the model.

    Args:
        on_loss: called on another thread when a rank has ended that should not have.

    Raises:
        PortalError: the artefact or the options cannot be used, or a rank has ended.
    """
    count = options.tensor_parallel
    store, port = lead_store(count)
    ranks = Ranks(
        [
            Join(str(artefact_dir.resolve()), context_length, options, rank, port)
            for rank in range(1, count)
        ],
        on_loss=on_loss,
    )
    try:
        ranks.gather(Ready)
        with ranks.together():
            own = join_group(store, rank=0, ranks=count, device=device)
        model = load_model(artefact_dir, device=own, dtype=options.dtype, ranks=count)
        free = [loaded.cache_bytes for loaded in ranks.gather(Loaded)]
        return LeadingRunner(
            model,
            ranks,
            slots=options.slots,
            context_length=context_length,
            cache_bytes=min(cache_bytes_of(options, own), *free),
        )
    except BaseException as fault:
        ranks.close()
        leave_group()
        if isinstance(fault, RankLost):
            raise EngineBroken(f"The model could not be loaded: {fault}.") from fault
        raise
