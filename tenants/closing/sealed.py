"""Files on the disk that only a tenant's data key opens, written and read as streams.

A file is a row of frames: 4 bytes of length, then the frame as ``Cipher`` seals it. Each is bound
to the file, to its place in it and to whether it is the last, so that none can be left out,
moved, or taken from elsewhere, and an end that is cut off is noticed.
"""

import hashlib
import io
from typing import IO, TYPE_CHECKING, Final
from uuid import UUID

from portal.core.crypto import Cipher, InvalidCiphertext

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_FRAME_BYTES: Final = 256 * 1024
_LENGTH_BYTES: Final = 4
# What a frame of the above grows to, with room to spare; more is no frame of ours.
_MOST_BYTES: Final = _FRAME_BYTES + 1024


def _cipher(data_key: bytes, index: int, *, last: bool) -> Cipher:
    place = index.to_bytes(8) + (b"\x01" if last else b"\x00")
    return Cipher(data_key, purpose=b"tenant export v1\x00" + place)


class SealedWriter(io.RawIOBase):
    """Encrypts what is written to it; ``sha256`` and ``size`` are of what was written.

    Only ``finish`` makes a file that can be read to its end.
    """

    def __init__(self, file: IO[bytes], data_key: bytes, file_id: UUID) -> None:
        super().__init__()
        self._file, self._data_key, self._id = file, data_key, file_id
        self._pending = bytearray()
        self._index = 0
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """In hex."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        piece = bytes(data)
        self._digest.update(piece)
        self.size += len(piece)
        self._pending += piece
        while len(self._pending) > _FRAME_BYTES:
            self._seal(bytes(self._pending[:_FRAME_BYTES]), last=False)
            del self._pending[:_FRAME_BYTES]
        return len(piece)

    def finish(self) -> None:
        """Writes the last frame."""
        self._seal(bytes(self._pending), last=True)
        self._pending.clear()

    def _seal(self, plaintext: bytes, *, last: bool) -> None:
        cipher = _cipher(self._data_key, self._index, last=last)
        frame = cipher.encrypt(plaintext, row_id=self._id)
        self._file.write(len(frame).to_bytes(_LENGTH_BYTES) + frame)
        self._index += 1


class SealedReader(io.RawIOBase):
    """Decrypts a file of ``SealedWriter`` from its beginning to its end.

    Raises:
        InvalidCiphertext: on reading what was altered, moved or cut off.
    """

    def __init__(self, file: IO[bytes], data_key: bytes, file_id: UUID) -> None:
        super().__init__()
        self._file, self._data_key, self._id = file, data_key, file_id
        self._index = 0
        self._plain = b""
        self._next = self._frame(first=True)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        while not self._plain and self._next:
            self._open_next()
        piece = self._plain[: len(view)]
        view[: len(piece)] = piece
        self._plain = self._plain[len(piece) :]
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _open_next(self) -> None:
        frame, self._next = self._next, self._frame()
        cipher = _cipher(self._data_key, self._index, last=not self._next)
        self._plain = cipher.decrypt(frame, row_id=self._id)
        self._index += 1

    def _frame(self, *, first: bool = False) -> bytes:
        """The next frame; nothing at the end of the file."""
        head = self._file.read(_LENGTH_BYTES)
        length = int.from_bytes(head)
        if not head and not first:
            return b""
        frame = self._file.read(length) if length <= _MOST_BYTES else b""
        if len(head) != _LENGTH_BYTES or not frame or len(frame) != length:
            raise InvalidCiphertext("The file is cut off or is no export.")
        return frame
