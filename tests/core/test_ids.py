"""Identifiers sort by the time they were made."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from unittest.mock import patch
from uuid import RFC_4122

from portal.core.ids import uuid7


def _milliseconds(identifier_int: int) -> int:
    return identifier_int >> 80


def test_make_id_many_at_once_ascends_strictly() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_make_id_is_version_7_of_now() -> None:
    before = time.time_ns() // 1_000_000
    identifier = uuid7()
    after = time.time_ns() // 1_000_000
    assert (identifier.version, identifier.variant) == (7, RFC_4122)
    # Made in a burst, an id may run ahead of the clock by the fraction of a millisecond.
    assert before <= _milliseconds(identifier.int) <= after + 10


def test_make_id_clock_set_back_still_ascends() -> None:
    first = uuid7()
    with patch("portal.core.ids.time.time_ns", return_value=1_000_000_000):
        second = uuid7()
    assert second > first


def test_make_id_in_a_forked_child_is_its_own() -> None:
    uuid7()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"".join(uuid7().bytes[8:] for _ in range(10)))
        os._exit(0)
    mine = {uuid7().bytes[8:] for _ in range(10)}
    os.waitpid(child, 0)
    told = os.read(read, 1000)
    os.close(read)
    os.close(write)
    theirs = {told[n : n + 8] for n in range(0, 80, 8)}
    assert len(theirs) == 10
    assert not mine & theirs


def test_make_id_in_threads_is_never_the_same() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: [uuid7() for _ in range(2_000)], range(8)))
    assert len({identifier for batch in made for identifier in batch}) == 16_000
    assert all(batch == sorted(batch) for batch in made)
