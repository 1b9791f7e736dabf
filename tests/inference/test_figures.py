"""What a worker tells of its memory."""

import subprocess
import sys

from inference.worker.figures import resident_bytes

HELD = 256 * 2**20
GRANDCHILD = f"held = b'x' * {HELD}; print(flush=True); input()"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}])"


def test_memory_of_a_childs_children_counts() -> None:
    before = resident_bytes()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline()
        assert resident_bytes() - before >= HELD
        child.communicate(b"\n")
    assert resident_bytes() - before < HELD
