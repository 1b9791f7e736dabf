"""NVIDIA Triton's generate extension, for models of its vLLM and TensorRT-LLM backends.

Sources: ``docs/protocol/extension_generate.md`` of Triton's server, ``src/model.py`` of its vLLM
backend, ``docs/llmapi.md`` and ``all_models/inflight_batcher_llm/`` of its TensorRT-LLM backend.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec

from inference.engines.base import Emit, EngineOptions, GenerationRequest, StopReason
from inference.engines.options import parse_options
from inference.engines.remote import Chunk, RemoteEngine, RemoteOptions
from inference.engines.remote.engine import read_tokenizer
from inference.engines.remote.faults import failed, of_error, refused
from inference.engines.remote.http import Server
from inference.engines.remote.metrics import Load
from inference.engines.remote.prompt import TextPrompts


class TritonOptions(RemoteOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of Triton, beside those of every adapter.

    Its metrics have a port of their own, 8002 by default: name them in ``metrics_url``.

    Args:
        model: the model in Triton's repository: ``ensemble``, ``tensorrt_llm_bls``, ``vllm_model``.
        backend: what serves it, for the names of its inputs.
    """

    model: Annotated[str, msgspec.Meta(min_length=1)]
    backend: Literal["vllm", "tensorrtllm"] = "vllm"


class TritonEngine(RemoteEngine):
    """One model of a Triton server; see ``TritonOptions``."""

    def __init__(
        self,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
    ) -> None:
        self._options = parse_options(TritonOptions, options, engine="triton")
        super().__init__(
            options=self._options,
            artefact_dir=artefact_dir,
            context_length=context_length,
            emit=emit,
        )
        self._server: Server | None = None

    async def _open(self) -> None:
        self._prompts = TextPrompts(read_tokenizer(self._artefact_dir))
        self._server = Server(self._options)

    async def _shut(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        assert self._server is not None
        make = _vllm if self._options.backend == "vllm" else _tensorrtllm
        body = {"text_input": self._prompts.text(request), "stream": True} | make(request)
        told: StopReason | None = None
        path = f"/v2/models/{quote(self._options.model, safe='')}/generate_stream"
        async with self._server.events(path, body) as events:
            async for data in events:
                chunk = _read(data)
                told = told or chunk.reason
                yield chunk
        if told is None and self._options.backend == "tensorrtllm":
            # Its end is the stream's end, which a cut one has not: HTTP chunks are counted.
            yield Chunk(ended=True)

    async def _is_healthy(self) -> bool:
        assert self._server is not None
        found = await self._server.get("/v2/health/ready")
        return found is not None and found.is_success

    async def _read_load(self) -> Load | None:
        assert self._server is not None
        return await self._server.load()


class _Event(msgspec.Struct):
    text_output: str = ""
    finish_reason: str | None = None
    num_output_tokens: int | None = None
    num_input_tokens: int | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


def _read(data: str) -> Chunk:
    try:
        event = _decode(data)
    except msgspec.DecodeError:
        raise failed("The serving engine's stream is malformed.") from None
    if event.error:
        raise of_error(event.error)
    reason: StopReason | None = None
    if event.finish_reason in ("stop", "length"):
        reason = "length" if event.finish_reason == "length" else "stop"
    return Chunk(
        text=event.text_output,
        tokens=event.num_output_tokens,
        reason=reason,
        prompt_tokens=event.num_input_tokens,
    )


def _common(request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    if sampling.logprobs is not None:
        raise refused("This deployment's server tells no log probabilities.")
    greedy = sampling.temperature == 0 or sampling.top_p == 0
    common: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": 0.0 if greedy else sampling.temperature,
        "top_p": 1.0 if greedy else sampling.top_p,
    }
    if sampling.top_k:
        common["top_k"] = sampling.top_k
    return common


def _vllm(request: GenerationRequest) -> dict[str, Any]:
    """Sampling parameters are a JSON text of vLLM's own ``SamplingParams``."""
    sampling = request.sampling
    if sampling.structure is not None:
        raise refused("This deployment's server takes no response format.")
    parameters = _common(request) | {"stop": list(sampling.stop)}
    if sampling.seed is not None:
        parameters["seed"] = sampling.seed
    if sampling.min_tokens:
        parameters["min_tokens"] = sampling.min_tokens
    return {
        "sampling_parameters": msgspec.json.encode(parameters).decode(),
        "exclude_input_in_output": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }


def _tensorrtllm(request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    if sampling.structure is not None:
        raise refused("This deployment's server takes no response format.")
    body = _common(request)
    if sampling.stop:
        body["stop_words"] = list(sampling.stop)
    if sampling.seed is not None:
        body["random_seed"] = sampling.seed
    if sampling.min_tokens:
        body["min_length"] = sampling.min_tokens
    if body["temperature"] == 0:
        # The backend wants a positive temperature, and takes the likeliest for one candidate.
        body |= {"temperature": 1.0, "top_k": 1}
    return body
