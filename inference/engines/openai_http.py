"""Servers that speak OpenAI's API: vLLM, SGLang, llama.cpp's server, TGI, and others.

Prompts are sent as token ids to ``/v1/completions`` where the server takes them: they are the ones
that were counted, and a caller's text in them can't become a control token. A server that has only
``/v1/chat/completions`` renders the prompt itself.

A model that embeds or ranks is asked for that; so is Text Embeddings Inference, by its own API.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal

import msgspec

from inference.artefacts import EmbeddingFacts, load_manifest
from inference.engines.base import Emit, EngineOptions, GenerationRequest
from inference.engines.embedding_wire import TAKES_IDS, TEI, read_info
from inference.engines.openai_wire import Reader, body_of
from inference.engines.options import parse_options
from inference.engines.remote import Chunk, RemoteEngine, RemoteOptions
from inference.engines.remote.engine import PROOF, read_tokenizer
from inference.engines.remote.faults import failed, refused
from inference.engines.remote.http import Server
from inference.engines.remote.inputs import MOST_INPUTS, InputServer, proof_of_inputs
from inference.engines.remote.metrics import Load
from portal.core.errors import Invalid

Family = Literal["openai", "vllm", "sglang", "llamacpp", "tgi", "tei"]
Api = Literal["completions", "chat"]

_NOT_THERE = (404, 405)


class OpenAIOptions(RemoteOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of servers with OpenAI's API, beside those of every adapter.

    Args:
        family: which server it is: what it takes beside OpenAI's own parameters, and how.
        model: the model's name at the server; empty takes the first that it lists.
        api: ``completions`` sends token ids, ``chat`` messages; None is ``chat`` for TGI, which
            takes no token ids, and ``completions`` for all others. What is embedded goes as token
            ids or as text likewise; None is text for ``openai`` and ``tei``.
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
        if self._options.family in ("tgi", TEI) and self._options.api == "completions":
            raise Invalid(
                f"{self._options.family.upper()} takes no token ids: use its api 'chat'.",
                param="options",
            )
        self._api: Api = self._options.api or ("chat" if tgi else "completions")
        self._key = key
        self._model = self._options.model
        self._server: Server | None = None
        self._facts: EmbeddingFacts | None = None
        self._inputs: InputServer | None = None

    async def _open(self) -> None:
        facts, family = load_manifest(self._artefact_dir).embedding, self._options.family
        if facts is None and family == TEI:
            raise Invalid("TEI embeds and ranks: it can't serve a model that generates text.")
        if facts is not None and family == "tgi":
            raise Invalid("TGI generates text: it can't serve a model that embeds or ranks.")
        self._facts = facts
        self._server = Server(self._options, key=self._key)

    async def _shut(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        if self._facts is not None:
            raise refused("This model makes embeddings or ranks: it generates no text.")
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

    async def _embed(self, request: GenerationRequest) -> Chunk:
        if self._facts is None:
            raise refused("This model generates text: it makes no embeddings.")
        if self._inputs is None:
            self._inputs = await self._input_server(self._facts)
        salt = request.cache_scope or secrets.token_hex(16)
        return await self._inputs.answer(request, salt, self._ask_numbers)

    async def _ask_numbers(self, path: str, body: dict[str, Any]) -> bytes:
        async def once() -> bytes:
            try:
                async with asyncio.timeout(self._options.first_token_seconds):
                    return await self._there().ask(path, body)
            except TimeoutError:
                raise failed("The serving engine sent no answer in time.") from None

        return await self._patiently(once)

    async def _input_server(self, facts: EmbeddingFacts) -> InputServer:
        options, most = self._options, MOST_INPUTS
        if options.family == TEI:
            most = await self._most_of_tei(facts)
        elif not self._model:
            self._model = await self._first_model()
        by_ids = options.api == "completions" or (
            options.api is None and options.family in TAKES_IDS
        )
        tokenizer = read_tokenizer(self._artefact_dir) if by_ids else None
        if tokenizer is not None:
            tokenizer.no_truncation()
            tokenizer.no_padding()
            # What a caller writes is text, whatever control token it spells.
            tokenizer.encode_special_tokens = True
        return InputServer(
            options.family, self._model, facts, tokenizer, self._context_length, most
        )

    async def _most_of_tei(self, facts: EmbeddingFacts) -> int:
        """How many inputs a call may have; refuses a server that does not fit the artefact."""
        found = await self._there().get("/info")
        if found is None or not found.is_success:
            raise failed("The serving engine can't be reached.", away=True)
        info = read_info(found.content)
        if info.model_type and facts.pairs != ("reranker" in info.model_type):
            ours = "ranks" if facts.pairs else "makes embeddings"
            raise refused(f"The server's model does something else: this artefact's {ours}.")
        if info.max_input_length < self._context_length:
            raise refused(
                f"The server takes inputs of {info.max_input_length} tokens at most: give the "
                f"deployment that context length, in the place of {self._context_length}."
            )
        return info.max_client_batch_size

    def _proving_request(self) -> GenerationRequest:
        if self._facts is None:
            return super()._proving_request()
        return proof_of_inputs(PROOF, pairs=self._facts.pairs)

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
