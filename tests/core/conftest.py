"""A Valkey of their own for the tests of what speaks to it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.core.supervisor.valkey import EmbeddedValkey


@pytest.fixture(scope="package")
def server() -> Iterator[EmbeddedValkey]:
    # A short path: a Unix socket's name holds 107 bytes, and pytest's own folders come close.
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        valkey = EmbeddedValkey(Path(folder))
        valkey.start()
        yield valkey
        valkey.stop()
