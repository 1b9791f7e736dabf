"""Reads a folder: no link is followed, and files that are still being written are left for later.

Every file is opened from the root that the operator gave, one name after the other: whoever may
write there can't lead the portal out of it.
"""

import fnmatch
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from knowledge.extraction.checks import MOST_BYTES, Unreadable, kind_of
from knowledge.models.sources import MOST_ITEM_KEY_CHARS
from knowledge.sources.reading import (
    BATCH,
    MOST_ENTRIES,
    Batch,
    Entry,
    Position,
    SourceFault,
    StillWritten,
)

MOST_NAME_CHARS: Final = 200
"""Of a path below the folder, which becomes the document's name."""

SETTLE_SECONDS: Final = 5.0
"""A file that was changed later than this ago may still be being written."""

_MOST_DEPTH: Final = 30
_UNFINISHED: Final = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe would be waited for.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    parts: Parts
    status: os.stat_result

    @property
    def path(self) -> str:
        return "/".join(self.parts)


@contextmanager
def open_folder(root: Path, path: str, include: str) -> Iterator["FolderReader"]:
    """A reader of a folder below a root.

    Args:
        root: what the operator gave to the tenant; itself it may be a link.
        path: of the folder below it; empty for the root.
        include: patterns of names or paths by commas, such as ``*.pdf, reports/*``; empty for all.

    Raises:
        SourceFault: there is no such folder, or it may not be read.
    """
    patterns = [p.strip() for p in include.split(",") if p.strip()]
    with _opened(root, parts_of(path)) as folder:
        yield FolderReader(folder, patterns)


def parts_of(path: str) -> Parts:
    """The names of which a path is made, without any that leads upwards.

    Raises:
        SourceFault: one does.
    """
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in path:
        raise SourceFault("The folder's path must lead downwards: it may not hold '..'.")
    return parts


class FolderReader:
    """Gives the files below a folder, ordered by their paths' names."""

    def __init__(self, folder: int, patterns: list[str]) -> None:
        self._folder = folder
        self._patterns = patterns

    def batches(self, position: Position) -> Iterator[Batch]:
        """Files behind ``position``, which is the last path before: its bytes as Latin-1.

        Raises:
            SourceFault: the folder can't be read, or holds too many files.
        """
        after: Parts = tuple(os.fsdecode(position.encode("latin-1")).split("/")) if position else ()
        entries: list[Entry] = []
        seen: list[str] = []
        last = position
        try:
            for count, found in enumerate(self._files(after)):
                if count >= MOST_ENTRIES:
                    raise SourceFault(
                        f"There are more than {MOST_ENTRIES} files: choose a folder below, or "
                        "patterns."
                    )
                last = os.fsencode(found.path).decode("latin-1")
                if _unsettled(found.status):
                    seen.append(_key(found.path))
                else:
                    entries.append(self._entry(found))
                if len(entries) + len(seen) == BATCH:
                    yield Batch(entries, last, seen, waiting=len(seen))
                    entries, seen = [], []
        except OSError as fault:
            raise _fault(fault) from None
        if entries or seen:
            yield Batch(entries, last, seen, waiting=len(seen))

    def _files(self, after: Parts) -> Iterator[_Found]:
        for found in _walk(self._folder, ()):
            if found.parts > after and self._wanted(found):
                yield found

    def _wanted(self, found: _Found) -> bool:
        if not self._patterns:
            return True
        return any(
            fnmatch.fnmatch(found.path if "/" in pattern else found.parts[-1], pattern)
            for pattern in self._patterns
        )

    def _entry(self, found: _Found) -> Entry:
        status = found.status
        folder = "/".join(found.parts[:-1])
        facts = {"path": found.path, **({"folder": folder} if folder else {})}
        fits = len(found.path) <= MOST_NAME_CHARS and _is_text(found.path)
        load: Callable[[], bytes] = partial(self._load, found) if fits else _refuse_name
        return Entry(
            key=_key(found.path),
            stamp=f"{status.st_size}:{status.st_mtime_ns}",
            name=found.path,
            load=load,
            metadata={name: value[:512] for name, value in facts.items()} if fits else {},
        )

    def _load(self, found: _Found) -> bytes:
        kind_of(found.parts[-1])
        if found.status.st_size > MOST_BYTES:
            raise Unreadable("The file is larger than 15 MB: split it into smaller ones.")
        try:
            with _beneath(self._folder, found.parts[:-1]) as folder:
                return _read(folder, found)
        except FileNotFoundError:
            raise StillWritten from None
        except OSError as fault:
            raise Unreadable(
                "The file can't be opened: let the portal's workers read it "
                f"({os.strerror(fault.errno or 0)})."
            ) from None


def _walk(folder: int, above: Parts) -> Iterator[_Found]:
    """Regular files below an open folder; hidden ones and links are passed over."""
    if len(above) > _MOST_DEPTH:
        raise SourceFault(
            f"Folders stand in each other more than {_MOST_DEPTH} deep: choose one below."
        )
    with os.scandir(folder) as listed:
        names = sorted((e for e in listed if _visible(e.name)), key=lambda e: e.name)
    for entry in names:
        try:
            status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield _Found((*above, entry.name), status)
        elif stat.S_ISDIR(status.st_mode):
            with _beneath(folder, (entry.name,)) as inner:
                yield from _walk(inner, (*above, entry.name))


def _visible(name: str) -> bool:
    return not name.startswith((".", "~$")) and not name.lower().endswith(_UNFINISHED)


def _unsettled(status: os.stat_result) -> bool:
    # A time to come is a clock that is wrong, and no sign of anything.
    return 0 <= time.time() - status.st_mtime < SETTLE_SECONDS


def _read(folder: int, found: _Found) -> bytes:
    """A file's content, if it is still what was listed from its first byte to its last.

    Raises:
        StillWritten: it is not.
    """
    descriptor = os.open(found.parts[-1], _FILE, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        content = file.read(MOST_BYTES + 1) if stat.S_ISREG(before.st_mode) else b""
        after = os.fstat(descriptor)
    if not (_same(found.status, before) and _same(before, after) and len(content) == after.st_size):
        raise StillWritten
    return content


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_ino, other.st_size, other.st_mtime_ns,
    )  # fmt: skip


@contextmanager
def _opened(root: Path, parts: Parts) -> Iterator[int]:
    try:
        top = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
        try:
            with _beneath(top, parts) as folder:
                opened = os.dup(folder)
        finally:
            os.close(top)
    except OSError as fault:
        raise _fault(fault) from None
    try:
        yield opened
    finally:
        os.close(opened)


@contextmanager
def _beneath(top: int, parts: Parts) -> Iterator[int]:
    """Opens a folder below an open one, name by name; a link on the way is an ``OSError``."""
    folder = os.dup(top)
    try:
        for part in parts:
            inner = os.open(part, _DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _fault(fault: OSError) -> SourceFault:
    if isinstance(fault, PermissionError):
        return SourceFault(
            "The folder may not be read: give the user that the portal's workers run as the right "
            "to read it."
        )
    return SourceFault(
        "There is no such folder: check its path, that it is no link, and that it is mounted where "
        "the portal's web and io processes run."
    )


def _key(path: str) -> str:
    return path.encode(errors="replace").decode()[:MOST_ITEM_KEY_CHARS]


def _is_text(path: str) -> bool:
    return path.isprintable()


def _refuse_name() -> bytes:
    raise Unreadable(
        f"The file's path is longer than {MOST_NAME_CHARS} characters, or not printable text in "
        "UTF-8: rename it."
    )
