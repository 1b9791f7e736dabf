"""What rank 0 of a tensor-parallel group and the other ranks tell each other.

Messages travel in the frames of ``inference.engines.wire``, over a socket for each of the others:
they wait there for the next step as long as it takes, where a collective operation would time out,
and both sides see at once when the other is gone.
"""

from typing import Literal

import msgspec
import numpy as np

from inference.engines.torch_batch.options import TorchBatchOptions
from inference.engines.torch_batch.runner import ModelRunner, StepInputs
from inference.engines.wire import LoadRefused


class Join(msgspec.Struct, frozen=True, tag="join"):
    """First message to a rank.

    Args:
        rank: from 1 on.
        port: of the group's store, on loopback.
    """

    artefact_dir: str
    context_length: int
    options: TorchBatchOptions
    rank: int
    port: int


class Open(msgspec.Struct, frozen=True, tag="open"):
    """All ranks hold their part of the model: make a cache of so many bytes for it."""

    cache_bytes: int


class Forward(msgspec.Struct, frozen=True, tag="forward"):
    """``ModelRunner.forward``; the arrays' bytes, with so many numbers a row."""

    first: int
    width: int
    tokens: bytes
    positions: bytes

    @classmethod
    def of(cls, inputs: StepInputs) -> "Forward":
        """The message for a step."""
        width = inputs.tokens.shape[1]
        return cls(inputs.first, width, inputs.tokens.tobytes(), inputs.positions.tobytes())

    def make(self, runner: ModelRunner) -> None:
        """Compute the step; the logits are rank 0's to use."""
        tokens, positions = (
            np.frombuffer(numbers, np.int64).reshape(-1, self.width).copy()
            for numbers in (self.tokens, self.positions)
        )
        runner.forward(StepInputs(self.first, tokens, positions))


class Call(msgspec.Struct, frozen=True, tag="call"):
    """A method of ``ModelRunner`` that takes plain numbers."""

    method: Literal["reshape", "move", "clear", "save", "restore", "drop", "give_back"]
    args: tuple[int, ...]

    def make(self, runner: ModelRunner) -> None:
        """Call it."""
        getattr(runner, self.method)(*self.args)


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The rank's process runs, and joins the group now."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The rank holds its part of the model, and has memory for a cache of so many bytes."""

    cache_bytes: int


ToRank = Join | Open | Forward | Call
ToLead = Ready | Loaded | LoadRefused
