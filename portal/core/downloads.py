"""Files that leave the control plane in pieces."""

from collections.abc import AsyncIterator
from typing import IO, Final

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

_PIECE: Final = 64 * 1024


class Download(StreamingHttpResponse):
    """An open file, sent piece by piece under a name and closed at the end.

    An ordinary file response is read whole before its first byte leaves an ASGI server.
    """

    def __init__(self, file: IO[bytes], *, name: str, content_type: str) -> None:
        super().__init__(
            file,
            content_type=content_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
        self._file = file

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await sync_to_async(self._file.read)(_PIECE):
            yield piece
