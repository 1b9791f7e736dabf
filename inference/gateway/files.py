"""``/v1/files``: uploads, listings, downloads, deletion."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec
from starlette.routing import Route

from inference.batches.content import CHUNK_BYTES
from inference.gateway.answers import start
from inference.gateway.calls import (
    CREATE_FILE,
    DELETE_FILE,
    DOWNLOAD_FILE,
    LIST_FILES,
    READ_FILE,
    Origin,
)
from inference.gateway.core import Gateway
from inference.gateway.endpoint import ByMethod, Done, Recorded, answer_json
from inference.gateway.filestore import Upload
from inference.gateway.keys import KeyFacts
from inference.gateway.requests import Arrival, Receive, Scope, Send
from inference.gateway.wire import files as wire
from inference.gateway.wire.multipart import Form, malformed
from inference.gateway.wire.objects import FILE, file_name, listing, parse_name, parse_page
from inference.gateway.wire.style import OPENAI

_MOST_LISTED: Final = 10_000
# What a form takes beside its file.
_FORM_BYTES: Final = 64 * 1024
_BINARY: Final = b"application/octet-stream"


class CreateFile(Recorded):
    method = "POST"
    action = CREATE_FILE

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        form = Form(arrived.headers.get(b"content-type", b""))
        limit = self._gateway.max_file_bytes
        declared = arrived.headers.get(b"content-length", b"")
        if declared.isdigit() and (len(declared) > 15 or int(declared) > limit + _FORM_BYTES):
            raise wire.file_too_large(limit)
        upload = Upload(self._gateway.files, key)
        await upload.begin()
        try:
            facts = await self._store(upload, form, receive)
        except BaseException:
            await upload.abandon()
            raise
        body = msgspec.json.encode(wire.file_object(facts))
        detail = {"file": file_name(facts.id), "bytes": facts.size, "purpose": facts.purpose}
        return Done(answer_json(body), detail)

    async def _store(self, upload: Upload, form: Form, receive: Receive) -> wire.FileFacts:
        limit = self._gateway.max_file_bytes
        held = bytearray()
        async for piece in _pieces(receive, limit + _FORM_BYTES):
            for content in form.feed(piece):
                held += content
            wire.check_purpose(form.fields)
            if upload.size + len(held) > limit:
                raise wire.file_too_large(limit)
            while len(held) >= CHUNK_BYTES:
                await upload.add(bytes(held[:CHUNK_BYTES]))
                del held[:CHUNK_BYTES]
        if not form.ended:
            raise malformed("it ends before its closing boundary")
        if form.filename is None:
            raise wire.missing("file")
        seconds = wire.upload_seconds(form.fields) or self._gateway.file_seconds
        if held:
            await upload.add(bytes(held))
        if not upload.size:
            raise wire.empty_file()
        return await upload.finish(form.filename, seconds)


async def _pieces(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        Invalid: it is longer than ``limit`` bytes.
        ConnectionResetError: the caller went away.
    """
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the caller went away while sending a file")
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise wire.file_too_large(limit)
        more = message.get("more_body", False)
        yield piece


class ListFiles(Recorded):
    method = "GET"
    action = LIST_FILES

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        page = parse_page(
            scope["query_string"],
            FILE,
            default=_MOST_LISTED,
            most=_MOST_LISTED,
            filters={"purpose"},
        )
        found, more = await self._gateway.files.page(key, page)
        return Done(answer_json(listing([wire.file_object(f) for f in found], more=more)))


class ReadFile(Recorded):
    method = "GET"
    action = READ_FILE

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        file_id = parse_name(FILE, scope["path_params"]["file"])
        facts = await self._gateway.files.find(key, file_id)
        detail = {"file": file_name(file_id)}
        return Done(answer_json(msgspec.json.encode(wire.file_object(facts))), detail)


class DeleteFile(Recorded):
    method = "DELETE"
    action = DELETE_FILE

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        file_id = parse_name(FILE, scope["path_params"]["file"])
        await self._gateway.files.delete(key, file_id)
        detail = {"file": file_name(file_id)}
        return Done(answer_json(msgspec.json.encode(wire.deleted_object(file_id))), detail)


class DownloadFile(Recorded):
    method = "GET"
    action = DOWNLOAD_FILE

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        file_id = parse_name(FILE, scope["path_params"]["file"])
        files = self._gateway.files
        facts = await files.find(key, file_id)

        async def answer(send: Send, origin: Origin) -> None:
            await start(send, OPENAI, origin, 200, _BINARY, wire.content_headers(facts))
            for number in range(facts.chunks):
                # One that can't be read breaks the answer off, short of its declared length.
                body = await files.chunk(key, facts, number)
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        return Done(answer, {"file": file_name(file_id), "bytes": facts.size})


def file_routes(gateway: Gateway) -> list[Route]:
    """The routes of files."""
    return [
        Route("/v1/files", ByMethod(gateway, CreateFile, ListFiles), methods=None),
        Route("/v1/files/{file}", ByMethod(gateway, ReadFile, DeleteFile), methods=None),
        Route("/v1/files/{file}/content", DownloadFile(gateway), methods=None),
    ]
