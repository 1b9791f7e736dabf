"""A rank from 1 on: ``python -m inference.engines.torch_batch.follower FD``.

It holds its part of the model and of the cache, and makes every call that rank 0 makes. It ends
when rank 0 closes the socket or dies, even in the middle of a step that waits for others.
"""

import os
import queue
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec
import torch

from inference.engines.stepping import log_failure
from inference.engines.torch_batch.calls import (
    Join,
    Loaded,
    Open,
    Ready,
    ToRank,
)
from inference.engines.torch_batch.group import find_store, join_group
from inference.engines.torch_batch.loading import load_model, pick_device
from inference.engines.torch_batch.runner import ModelRunner, cache_bytes_of
from inference.engines.wire import LoadRefused, frames, send
from portal.core.errors import PortalError


class _Follower:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._told: queue.SimpleQueue[ToRank] = queue.SimpleQueue()

    def run(self) -> None:
        threading.Thread(target=self._read, name="rank-calls", daemon=True).start()
        join = self._told.get()
        assert isinstance(join, Join), "Join comes first"
        send(self._sock, Ready())
        try:
            runner = self._open(join)
        except PortalError as fault:
            send(self._sock, LoadRefused(fault.error_code, fault.error_status, fault.message))
            return
        while True:
            call = self._told.get()
            assert not isinstance(call, Join | Open), "those come once"
            call.make(runner)

    def _open(self, join: Join) -> ModelRunner:
        options = join.options
        ranks = options.tensor_parallel
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        store = find_store(join.port, ranks)
        device = join_group(store, rank=join.rank, ranks=ranks, device=pick_device(options.device))
        model = load_model(Path(join.artefact_dir), device=device, dtype=options.dtype, ranks=ranks)
        send(self._sock, Loaded(cache_bytes_of(options, device)))
        opening = self._told.get()
        assert isinstance(opening, Open), "Open comes second"
        return ModelRunner(
            model,
            slots=options.slots,
            context_length=join.context_length,
            cache_bytes=opening.cache_bytes,
        )

    def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(ToRank)
        for frame in frames(self._sock):
            self._told.put(decoder.decode(frame))
        # Whatever this rank computes, nobody waits for it any more.
        os._exit(0)


def main() -> None:
    """Follow the owner of the socket whose file descriptor is the first argument."""
    # Rank 0 decides when to end, also when a terminal signals the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        try:
            _Follower(sock).run()
        except Exception as fault:  # noqa: BLE001 - logged, and rank 0 sees that this rank ends
            log_failure(fault)
    sys.stdout.flush()
    sys.stderr.flush()
    # Native libraries' own exit handlers may wait for ranks that are gone.
    os._exit(1)


if __name__ == "__main__":
    main()
