"""Keeps programs running: starts them again when they die, ends them in order."""

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from portal.core.supervisor.faults import disk_full, last_line, says_disk_full

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# A program that has run this long is well: its next death is a first one.
_WELL_AFTER_S = 60.0
_LOOP_DEATHS = 3
_POLL_S = 0.05
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Program:
    """Something to keep running.

    Attributes:
        stage: programs are ended in order of stage, those of one stage together.
        patience_s: how long it may take to end before it is killed.
        drains: it ends after the work it has in hand, which a hurried operator may cut short.
    """

    name: str
    launch: Callable[[], subprocess.Popen[bytes]]
    log: Path
    stage: int
    patience_s: float
    stop_signal: signal.Signals = signal.SIGTERM
    drains: bool = True


class Keeper:
    """One program's life: its process, its deaths, when to start it again."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque(maxlen=_LOOP_DEATHS)
        self._launched_at = 0.0
        self._log_begin = 0
        self._resume_at = 0.0

    @property
    def loops(self) -> bool:
        """Whether it has died so often that it won't come up by itself."""
        return len(self._deaths) == _LOOP_DEATHS

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Take over a process that was started already."""
        self.process = process
        self._launched_at = time.monotonic()
        self._log_begin = self._log_size()

    def launch(self) -> None:
        """Start the program."""
        begin = self._log_size()
        self.adopt(self.program.launch())
        self._log_begin = min(begin, self._log_size())

    def tick(self, now: float) -> str | None:
        """Look after the program; a line for the operator if there is news."""
        if self.process is None:
            if now >= self._resume_at:
                self.launch()
            return None
        code = self.process.poll()
        if code is None:
            if self._deaths and now - self._launched_at > _WELL_AFTER_S:
                self._deaths.clear()
            return None
        return self._died(now, code)

    def verdict(self) -> str:
        """What the program said last, or that the disk is full if it said so."""
        try:
            with self.program.log.open("rb") as file:
                file.seek(max(self._log_begin, self._log_size() - _TAIL_BYTES))
                said = file.read().decode(errors="replace")
        except OSError:
            return "its log can't be read"
        return str(disk_full(self.program.log)) if says_disk_full(said) else last_line(said)

    def _died(self, now: float, code: int) -> str | None:
        self.process = None
        if now - self._launched_at > _WELL_AFTER_S:
            self._deaths.clear()
        looped = self.loops
        self._deaths.append(now)
        pause_s = min(_FIRST_PAUSE_S * 2 ** (len(self._deaths) - 1), _LONGEST_PAUSE_S)
        if looped:
            self._resume_at = now + _LONGEST_PAUSE_S
            return None
        self._resume_at = now + pause_s
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        if self.loops:
            return (
                f"{self.program.name} keeps stopping ({how}): {self.verdict()} "
                f"(tried again every {_LONGEST_PAUSE_S:.0f} s; log: {self.program.log})"
            )
        return f"{self.program.name} stopped ({how}); started again in {pause_s:g} s."

    def _log_size(self) -> int:
        return self.program.log.stat().st_size if self.program.log.exists() else 0


class Processes:
    """All programs of an installation."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._keepers: list[Keeper] = []

    def add(self, program: Program, process: subprocess.Popen[bytes] | None = None) -> Keeper:
        """Keep a program from now on; it is started unless its process is given."""
        keeper = Keeper(program)
        if process is None:
            keeper.launch()
        else:
            keeper.adopt(process)
        self._keepers.append(keeper)
        return keeper

    def tick(self) -> None:
        """Start again what has died; to be called a few times a second."""
        now = time.monotonic()
        for keeper in self._keepers:
            news = keeper.tick(now)
            if news:
                self._report(news)

    def looping(self) -> Keeper | None:
        """A program that won't come up by itself, if there is one."""
        return next((keeper for keeper in self._keepers if keeper.loops), None)

    def any(self) -> bool:
        """Whether there is anything to end."""
        return bool(self._keepers)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End everything in order of stage.

        Args:
            hurry: asked often; once true, processes that drain are killed instead of waited for.
        """
        for stage in sorted({keeper.program.stage for keeper in self._keepers}):
            group = [keeper for keeper in self._keepers if keeper.program.stage == stage]
            _end_together(group, hurry)
        self._keepers.clear()


def _end_together(group: Sequence[Keeper], hurry: Callable[[], bool]) -> None:
    running: list[tuple[Program, subprocess.Popen[bytes]]] = []
    for keeper in group:
        if keeper.process is not None and keeper.process.poll() is None:
            keeper.process.send_signal(keeper.program.stop_signal)
            running.append((keeper.program, keeper.process))
    begun = time.monotonic()
    while running:
        running = [(program, process) for program, process in running if process.poll() is None]
        waited = time.monotonic() - begun
        for program, process in running:
            if waited > program.patience_s or (hurry() and program.drains):
                process.kill()
        time.sleep(_POLL_S if running else 0)
