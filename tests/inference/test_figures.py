"""What a worker tells of its memory."""

import subprocess
import sys

HELD = 256 * 2**20
GRANDCHILD = f"held = b'x' * {HELD}; print(flush=True); input()"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}])"


# A process of its own: what else a test has started ends when it likes.
MEASURE = f"""
import subprocess, sys
from inference.worker.figures import resident_bytes
before = resident_bytes()
with subprocess.Popen(
    [sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE
) as child:
    child.stdout.readline()
    held = resident_bytes() - before
    child.communicate(b"\\n")
print(held, resident_bytes() - before)
"""


def test_memory_of_a_childs_children_counts() -> None:
    measured = subprocess.run([sys.executable, "-c", MEASURE], stdout=subprocess.PIPE, check=True)
    held, left = map(int, measured.stdout.split())
    assert held >= HELD
    assert left < HELD
