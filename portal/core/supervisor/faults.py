"""What can be wrong with a machine, said in one line that names the way out."""

import errno
from pathlib import Path

_DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded")
_DISK_FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT)


class Fault(Exception):
    """Something an operator must put right; the message is one line and says how."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Stopped(Exception):
    """The operator asked to stop while something was still under way."""


def disk_full(place: Path) -> Fault:
    """The fault of a full file system that holds ``place``."""
    return Fault(
        f"The disk that holds {place} is full: free some space (1 GB is enough), "
        "or choose another place with --data-dir, then run bin/start again."
    )


def explain(error: OSError, place: Path) -> Fault:
    """Turn an operating system error about ``place`` into a line that says what to do."""
    where = Path(error.filename) if isinstance(error.filename, str) else place
    if error.errno in _DISK_FULL_NUMBERS:
        return disk_full(where)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Fault(
            f"{where} may not be written by this user: give it to the user who runs bin/start "
            "(chown), or choose another place with --data-dir."
        )
    if error.errno == errno.EROFS:
        return Fault(f"{where} is on a read-only disk: choose another place with --data-dir.")
    reason = error.strerror or str(error)
    return Fault(f"{where}: {reason}; put that right, or choose another place with --data-dir.")


def says_disk_full(text: str) -> bool:
    """Whether a program's output names a full disk as its trouble."""
    return any(words in text for words in _DISK_FULL_WORDS)


def last_line(text: str) -> str:
    """The last line with something on it: where programs put their verdict."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
