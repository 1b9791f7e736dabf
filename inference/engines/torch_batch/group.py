"""The process group over which ranks sum and gather what they computed; all on one machine."""

import os
import socket
from datetime import timedelta

import torch
from torch import distributed

_MOST_WAIT = timedelta(seconds=120)
"""Of one rank for another within a step, or while the group is formed: loading waits elsewhere."""


def join_group(
    store: distributed.TCPStore, *, rank: int, ranks: int, device: torch.device
) -> torch.device:
    """Form the group with the other ranks; blocks until all have come.

    Returns:
        The rank's own device.

    Raises:
        RuntimeError: they did not come.
    """
    # transformers asks it which device is this process's.
    os.environ["LOCAL_RANK"] = str(rank)
    # What the ranks exchange is not for the network.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    own = device
    if device.type == "cuda":
        own = torch.device("cuda", rank)
        torch.cuda.set_device(own)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=ranks,
        timeout=_MOST_WAIT,
        device_id=own if device.type == "cuda" else None,
    )
    return own


def abort_group() -> None:
    """End the operations that wait for a rank which is gone, with an error or worthless numbers."""
    if distributed.is_initialized():
        distributed.group.WORLD.abort()


def leave_group() -> None:
    """Leave, whether or not the others are still there."""
    if distributed.is_initialized():
        distributed.group.WORLD.abort()
        distributed.destroy_process_group()


def lead_store(ranks: int) -> tuple[distributed.TCPStore, int]:
    """The store in which ranks find each other, and its port on loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    store = distributed.TCPStore(
        "127.0.0.1",
        port,
        ranks,
        is_master=True,
        timeout=_MOST_WAIT,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    return store, port


def find_store(port: int, ranks: int) -> distributed.TCPStore:
    """Rank 0's store."""
    return distributed.TCPStore(
        "127.0.0.1", port, ranks, is_master=False, timeout=_MOST_WAIT, wait_for_workers=False
    )
