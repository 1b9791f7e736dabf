"""An operator's signals: how often they wished for the end."""

import signal
import time

# Programs such as timeout(1) send a signal twice at once: that is one wish.
_ONE_WISH_S = 0.5


class Wishes:
    """Counts the signals that ask a process to end.

    The handler only counts: it runs between any two instructions of the main thread, and a lock
    that this thread holds just then (an Event's, say, within its ``wait``) would never come free.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last_at = -_ONE_WISH_S

    def listen(self, *numbers: signal.Signals) -> None:
        """Count these signals from now on; to be called in the main thread."""
        for number in numbers:
            # nohup's wish holds: an ignored hang-up stays ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._heard)

    def pause(self, seconds: float) -> None:
        """Let time pass; signals are counted meanwhile."""
        time.sleep(seconds)

    def _heard(self, *_: object) -> None:
        now = time.monotonic()
        if now - self._last_at > _ONE_WISH_S:
            self.count += 1
        self._last_at = now
