"""Runs a server as a child that never outlives its owner: ``python guard.py FD COMMAND...``.

The owner keeps the other end of the pipe FD. When it closes it, or dies by whatever means, the
server's whole process group is asked to end, and killed if it doesn't. (A parent-death signal
alone would not do: it comes when the thread that started the child ends, and reaches no
grandchildren.) Standard library only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 8.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve until the command ends or the owner is gone; returns the command's status."""
    owner, command = int(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the owner decides when to end
    # No thread is running yet, so code between fork and exec is safe.
    child = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=_die_with_guard,  # noqa: PLW1509
    )
    threading.Thread(target=_watch, args=(owner, child), daemon=True).start()
    status = child.wait()
    # Its own children may be left.
    _signal(child, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _die_with_guard() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(owner: int, child: "subprocess.Popen[bytes]") -> None:
    while os.read(owner, 1):
        pass
    _signal(child, signal.SIGTERM)
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGKILL)


def _signal(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(main())
