"""Text Generation Inference by its own protocol, through huggingface_hub's client.

TGI is in maintenance; its authors recommend vLLM, SGLang and llama.cpp. Its Messages API, which
needs no text prompts, is served by ``openai_http`` with ``family`` ``tgi``.
"""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from huggingface_hub import AsyncInferenceClient, TextGenerationStreamOutput
from huggingface_hub.errors import (
    GenerationError,
    HfHubHTTPError,
    InferenceTimeoutError,
    OverloadedError,
    TextGenerationError,
    ValidationError,
)

from inference.engines.base import (
    Emit,
    EngineOptions,
    GenerationRequest,
    Likely,
    StopReason,
    TokenLogprob,
)
from inference.engines.options import parse_options
from inference.engines.remote import Chunk, RemoteEngine, RemoteOptions, UpstreamFault
from inference.engines.remote.engine import read_tokenizer
from inference.engines.remote.faults import failed, of_status, refused
from inference.engines.remote.http import Server
from inference.engines.remote.metrics import Load
from inference.engines.remote.options import server_key
from inference.engines.remote.prompt import TextPrompts

_REASONS: dict[str, StopReason] = {
    "length": "length",
    "eos_token": "stop",
    "stop_sequence": "stop",
}


class TGIOptions(RemoteOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of TGI are those of every adapter; certificates are the client's own."""


class TGIEngine(RemoteEngine):
    """One TGI server; see ``TGIOptions``."""

    def __init__(
        self,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
    ) -> None:
        self._options = parse_options(TGIOptions, options, engine="tgi")
        super().__init__(
            options=self._options,
            artefact_dir=artefact_dir,
            context_length=context_length,
            emit=emit,
        )
        self._server: Server | None = None

    async def _open(self) -> None:
        key = server_key(self._options.key_name)
        # Even without a key: the client would send a Hugging Face token found on the machine.
        self._headers = {"authorization": f"Bearer {key}" if key else ""}
        self._prompts = TextPrompts(read_tokenizer(self._artefact_dir))
        self._server = Server(self._options)

    async def _shut(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        prompt, parameters = self._prompts.text(request), _parameters(request)
        # A client keeps every stream open until it is closed itself: one each.
        client = AsyncInferenceClient(
            self._options.url.rstrip("/"),
            token="overruled",  # noqa: S106 - by the headers
            headers=self._headers,
        )
        try:
            async with client:
                outputs = await client.text_generation(
                    prompt, stream=True, details=True, return_full_text=False, **parameters
                )
                async for output in outputs:
                    yield _chunk(output)
        except TextGenerationError as fault:
            raise _refusal(fault) from None
        except (httpx2.HTTPError, HfHubHTTPError, InferenceTimeoutError) as fault:
            raise _fault(fault) from None
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise failed("The serving engine's stream is malformed.") from None

    async def _is_healthy(self) -> bool:
        assert self._server is not None
        found = await self._server.get("/health")
        return found is not None and found.is_success

    async def _read_load(self) -> Load | None:
        assert self._server is not None
        return await self._server.load()


def _parameters(request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    if sampling.min_tokens:
        raise refused("This deployment's server has no parameter min_tokens.")
    greedy = sampling.temperature == 0 or sampling.top_p == 0
    parameters: dict[str, Any] = {
        "max_new_tokens": sampling.max_tokens,
        "do_sample": not greedy,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "top_n_tokens": sampling.logprobs or None,
    }
    if not greedy:
        parameters |= {
            "temperature": sampling.temperature,
            # TGI refuses a top_p of 1, which changes nothing.
            "top_p": sampling.top_p if sampling.top_p < 1 else None,
            "top_k": sampling.top_k or None,
        }
    if sampling.structure is not None:
        if sampling.structure.calls is not None:
            raise refused("TGI can't be held to calls of tools here.")
        schema = sampling.structure.schema
        value = msgspec.json.decode(schema) if schema else {"type": "object"}
        parameters["grammar"] = {"type": "json", "value": value}
    return parameters


def _chunk(output: TextGenerationStreamOutput) -> Chunk:
    token, details = output.token, output.details
    return Chunk(
        text="" if token.special else token.text,
        tokens=1,
        logprobs=(
            TokenLogprob(
                token.text.encode(),
                token.logprob or 0.0,
                tuple(Likely(top.text.encode(), top.logprob) for top in output.top_tokens or ()),
            ),
        ),
        reason=None if details is None else _REASONS.get(details.finish_reason, "stop"),
        prompt_tokens=None if details is None else details.input_length,
        completion_tokens=None if details is None else details.generated_tokens,
    )


def _fault(fault: Exception) -> UpstreamFault:
    if isinstance(fault, HfHubHTTPError) and fault.response is not None:
        response = fault.response
        # A refusal of a stream was not read, and its words are lost.
        return of_status(
            response.status_code, b"", retry_after=response.headers.get("retry-after", "")
        )
    if isinstance(fault, httpx2.ConnectError | httpx2.ConnectTimeout):
        return failed("The serving engine can't be reached.", away=True)
    return failed("The connection to the serving engine was lost.")


def _refusal(fault: TextGenerationError) -> UpstreamFault:
    if isinstance(fault, OverloadedError):
        return of_status(429, b"")
    if isinstance(fault, ValidationError):
        body = msgspec.json.encode({"error": str(fault)})
        return of_status(422, body)
    if isinstance(fault, GenerationError):
        return failed("The serving engine failed while it generated.")
    return failed("The serving engine reported an error in its stream.")
