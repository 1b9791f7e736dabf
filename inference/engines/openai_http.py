"""Servers that speak OpenAI's API: vLLM, SGLang, llama.cpp's server, TGI, and others.

Prompts are sent as token ids to ``/v1/completions`` where the server takes them: they are the ones
that were counted, and a caller's text in them can't become a control token. A server that has only
``/v1/chat/completions`` renders the prompt itself.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

import msgspec

from inference.engines.base import Emit, EngineOptions, GenerationRequest
from inference.engines.openai_wire import Reader, body_of
from inference.engines.options import parse_options
from inference.engines.remote import Chunk, RemoteEngine, RemoteOptions
from inference.engines.remote.faults import failed
from inference.engines.remote.http import Server
from inference.engines.remote.metrics import Load
from portal.core.errors import Invalid

Family = Literal["openai", "vllm", "sglang", "llamacpp", "tgi"]
Api = Literal["completions", "chat"]

_NOT_THERE = (404, 405)


class OpenAIOptions(RemoteOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of servers with OpenAI's API, beside those of every adapter.

    Args:
        family: which server it is: what it takes beside OpenAI's own parameters, and how.
        model: the model's name at the server; empty takes the first that it lists.
        api: ``completions`` sends token ids, ``chat`` messages; None is ``chat`` for TGI, which
            takes no token ids, and ``completions`` for all others.
        share_cache: whether a llama.cpp server may use one tenant's computed prompt for another.
    """

    family: Family = "openai"
    model: str = ""
    api: Api | None = None
    share_cache: bool = False


class OpenAIEngine(RemoteEngine):
    """One model of one server; see ``OpenAIOptions``."""

    def __init__(
        self,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
        key: str | None = None,
    ) -> None:
        self._options = parse_options(OpenAIOptions, options, engine="openai_http")
        super().__init__(
            options=self._options,
            artefact_dir=artefact_dir,
            context_length=context_length,
            emit=emit,
        )
        tgi = self._options.family == "tgi"
        if tgi and self._options.api == "completions":
            raise Invalid("TGI takes no token ids: use its api 'chat'.", param="options")
        self._api: Api = self._options.api or ("chat" if tgi else "completions")
        self._key = key
        self._model = self._options.model
        self._server: Server | None = None

    async def _open(self) -> None:
        self._server = Server(self._options, key=self._key)

    async def _shut(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        server = self._there()
        if not self._model:
            self._model = await self._first_model()
        body = body_of(
            request,
            family=self._options.family,
            chat=self._api == "chat",
            model=self._model,
            share_cache=self._options.share_cache,
        )
        reader = Reader()
        path = "/v1/chat/completions" if self._api == "chat" else "/v1/completions"
        async with server.events(path, body) as events:
            async for data in events:
                if data == "[DONE]":
                    return
                yield reader.read(data)

    async def _is_healthy(self) -> bool:
        # Not every server has the path; one that answers is there.
        found = await self._there().get("/health")
        return found is not None and (found.is_success or found.status_code in _NOT_THERE)

    async def _read_load(self) -> Load | None:
        return await self._there().load()

    async def _abort(self, request_id: str) -> None:
        if self._options.family == "sglang":
            await self._there().post("/abort_request", {"rid": request_id})

    async def _first_model(self) -> str:
        found = await self._there().get("/v1/models")
        if found is None:
            raise failed("The serving engine can't be reached.", away=True)
        try:
            return _Models.read(found.content).data[0].id
        except (msgspec.DecodeError, IndexError):
            raise failed("The serving engine lists no model; name it in the options.") from None

    def _there(self) -> Server:
        assert self._server is not None
        return self._server


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]

    @classmethod
    def read(cls, content: bytes) -> "_Models":
        return msgspec.json.decode(content, type=cls)
