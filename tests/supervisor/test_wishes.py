"""Signals that ask a supervisor to end, whatever it does just then."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_STORM = """
import faulthandler, signal, sys
from portal.core.supervisor.wishes import Wishes

wishes, sent = Wishes(), 0
wishes.listen(signal.SIGTERM)

def between_any_two_lines(frame, event, argument):
    global sent
    if frame.f_code.co_name != "_heard":
        sent += 1
        signal.raise_signal(signal.SIGTERM)
    return between_any_two_lines

faulthandler.dump_traceback_later(30.0, exit=True)
sys.settrace(between_any_two_lines)
wishes.pause(0.01)
sys.settrace(None)
assert sent > 1, sent
print(wishes.count)
"""


def test_a_signal_at_any_moment_of_a_pause_is_counted_and_gets_in_nothing_s_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STORM],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    # Many signals in half a second are one wish.
    assert done.stdout == "1\n"
