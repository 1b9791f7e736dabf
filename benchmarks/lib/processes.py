"""Processor time of processes, read from ``/proc``."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[int, float] | None:
    """A process's parent and its processor seconds, ended children included; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def trees_cpu(roots: Mapping[str, int]) -> dict[str, float]:
    """Processor seconds that each process and all its descendants have used since they began.

    Args:
        roots: name -> pid of the topmost process.
    """
    found = {
        int(folder.name): stat
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and (stat := _stat(int(folder.name))) is not None
    }
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in found.items():
        children.setdefault(parent, []).append(pid)
    used = {}
    for name, root in roots.items():
        stack, seconds = [root], 0.0
        while stack:
            pid = stack.pop()
            if pid in found:
                seconds += found[pid][1]
                stack += children.get(pid, ())
        used[name] = seconds
    return used
