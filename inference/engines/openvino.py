"""OpenVINO GenAI's continuous batching: the engine of machines without an accelerator.

``openvino`` reports its own import to a statistics service unless told otherwise. Declaring
``openvino_telemetry`` absent before the first import makes it use the inert stand-in that it ships
(``openvino.tools.ovc.telemetry_stub``), so nothing is written to the home folder or sent.
"""

import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import msgspec  # noqa: E402
import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402
import openvino_genai as ov_genai  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from inference.artefacts import KvGeometry, load_manifest  # noqa: E402
from inference.artefacts.openvino_ir import BIN as IR_BIN  # noqa: E402
from inference.engines.base import (  # noqa: E402
    Done,
    Emit,
    EngineOptions,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
    Sampling,
    StopReason,
    Structure,
    Token,
    TokenLogprob,
)
from inference.engines.grammar import Grammars, StructureMask  # noqa: E402
from inference.engines.options import parse_options  # noqa: E402
from inference.engines.schemas import checked_schema, schema_of  # noqa: E402
from inference.engines.stepping import RequestRefused, StepEngine  # noqa: E402
from inference.engines.string_bounds import without_long_bounds  # noqa: E402
from inference.engines.structural_tags import structural_tag  # noqa: E402
from inference.engines.text import Detokenizer, Piece, TokenBytes, taken  # noqa: E402
from portal.core.errors import Invalid  # noqa: E402

_BLOCK_TOKENS = 32  # of OpenVINO's paged attention on CPU
_SCALE_BYTES = 8  # scale and zero point of a quantized group
_BATCHED_TOKENS = 256  # a step's most; long prompts are split, so that others keep generating
_BOUNDED_CHARACTERS = 128  # of texts in a schema, that OpenVINO holds an answer to itself
_FAILURES_OF_A_REQUEST = (RuntimeError, ValueError, TypeError)


class OpenVINOOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the OpenVINO engine.

    Args:
        cache_mb: most memory of the key-value cache, in MiB.
        slots: requests that run at once.
        threads: CPU threads for inference; None leaves it to OpenVINO.
    """

    cache_mb: Annotated[int, msgspec.Meta(ge=16)] = 1024
    slots: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None


def block_bytes(geometry: KvGeometry) -> int:
    """Bytes of one cache block: 8-bit keys scaled by channel, 8-bit values by token."""
    keys = geometry.head_dim * (_BLOCK_TOKENS + _SCALE_BYTES)
    values = _BLOCK_TOKENS * (geometry.head_dim + _SCALE_BYTES)
    return geometry.layers * geometry.kv_heads * (keys + values)


class _Run:
    """One request inside the pipeline."""

    __slots__ = (
        "blocks", "generated", "handle", "logprobs", "prompt_tokens", "table", "text", "watch",
    )  # fmt: skip

    def __init__(
        self,
        handle: ov_genai.py_openvino_genai.GenerationHandle,
        table: TokenBytes,
        request: GenerationRequest,
        blocks: int,
        watch: StructureMask | None,
    ) -> None:
        self.handle = handle
        self.watch = watch
        self.table = table
        self.text = Detokenizer(table, request.sampling.stop, continues=_is_raw(request))
        self.prompt_tokens = len(request.prompt_ids)
        self.blocks = blocks
        self.generated = 0
        # Told together with the text that covers their tokens.
        told = request.sampling.logprobs is not None
        self.logprobs: list[TokenLogprob] | None = [] if told else None

    def within(self, token_ids: Sequence[int]) -> int:
        """How many of the next tokens keep the answer within what is watched."""
        if self.watch is not None:
            for number, token_id in enumerate(token_ids):
                try:
                    self.watch.accept(token_id)
                except RequestRefused:
                    return number
        return len(token_ids)


def _is_raw(request: GenerationRequest) -> bool:
    """Whether the prompt is a text that is continued, which no template touched."""
    return len(request.messages) == 1 and not request.messages[0].role


def _checked(structure: Structure) -> Structure:
    """A structure that can be compiled: else it would end the pipeline for all requests."""
    try:
        if structure.calls is None:
            schema = checked_schema(schema_of(structure), "response_format")
            return Structure("json_schema", schema)
        for tag in structure.calls.tags:
            checked_schema(tag.schema, "tools")
    except Invalid as fault:
        raise RequestRefused(fault.message) from fault
    return structure


def _structured(structure: Structure) -> ov_genai.StructuredOutputConfig:
    structured = ov_genai.StructuredOutputConfig()
    if structure.calls is None:
        structured.json_schema = structure.schema
    else:
        tags = msgspec.json.encode(structural_tag(structure.calls)).decode()
        structured.structural_tags_config = tags
    return structured


class OpenVINOEngine(StepEngine):
    """Serves a GGUF file, or a folder with OpenVINO's own model format, on CPU.

    A request is started only when the cache has room for its prompt and all of ``max_tokens``:
    the pipeline gives up on every request it holds when one outgrows the cache.
    """

    def __init__(
        self, *, artefact_dir: Path, context_length: int, options: EngineOptions, emit: Emit
    ) -> None:
        self._options = parse_options(OpenVINOOptions, options, engine="openvino")
        super().__init__(slots=self._options.slots, context_length=context_length, emit=emit)
        self._artefact_dir = artefact_dir
        self._manifest = load_manifest(artefact_dir)
        if self._manifest.kv is None or self._manifest.format not in ("gguf", "openvino"):
            raise Invalid(f"The artefact {self._manifest.name} holds no weights for OpenVINO.")
        self._blocks = self._options.cache_mb * 2**20 // block_bytes(self._manifest.kv)
        self._free_blocks = self._blocks
        self._runs: dict[str, _Run] = {}
        self._next_id = 0
        self._table: TokenBytes
        self._pipeline: ov_genai.ContinuousBatchingPipeline | None = None
        self._memory_bytes = 0

    def stats(self) -> EngineStats:
        """See ``Engine.stats``; of the cache, what running requests may take counts as taken."""
        return replace(
            super().stats(),
            memory_bytes=self._memory_bytes,
            cache_tokens=self._blocks * _BLOCK_TOKENS,
            cached_tokens=(self._blocks - self._free_blocks) * _BLOCK_TOKENS,
        )

    def _open(self) -> None:
        path = self._artefact_dir / "tokenizer.json"
        self._table = TokenBytes(Tokenizer.from_file(str(path)))
        scheduler = ov_genai.SchedulerConfig()
        scheduler.max_num_seqs = self._slots
        scheduler.num_kv_blocks = self._blocks
        scheduler.max_num_batched_tokens = max(_BATCHED_TOKENS, self._slots)
        scheduler.dynamic_split_fuse = True
        properties = {}
        if self._options.threads is not None:
            properties["INFERENCE_NUM_THREADS"] = self._options.threads
        try:
            self._pipeline = ov_genai.ContinuousBatchingPipeline(
                self._weights(), scheduler, "CPU", properties
            )
        except RuntimeError as fault:
            raise Invalid(f"OpenVINO cannot load {self._manifest.name}: {fault}") from fault
        self._warm_up(self._pipeline)
        cache = self._pipeline.get_metrics().cache_size_in_bytes
        self._memory_bytes = self._weight_bytes() + cache

    def _weights(self) -> Path:
        gguf = self._artefact_dir / "model.gguf"
        return gguf if gguf.exists() else self._artefact_dir

    def _weight_bytes(self) -> int:
        """Size of the weights' files: OpenVINO keeps them as they are, or maps them."""
        files = self._manifest.files
        return sum(files[name].size for name in ("model.gguf", IR_BIN) if name in files)

    def _warm_up(self, pipeline: ov_genai.ContinuousBatchingPipeline) -> None:
        # Two tokens: the kernels of prompt and of generation are both compiled at first use.
        config = ov_genai.GenerationConfig(max_new_tokens=2, do_sample=False, ignore_eos=True)
        handle = self._add(pipeline, [0, 1, 2, 3], config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        if not handle.can_read():
            raise Invalid(f"OpenVINO generated nothing with {self._manifest.name}.")

    def _add(
        self,
        pipeline: ov_genai.ContinuousBatchingPipeline,
        prompt_ids: Sequence[int],
        config: ov_genai.GenerationConfig,
    ) -> ov_genai.py_openvino_genai.GenerationHandle:
        self._next_id += 1
        prompt = ov.Tensor(np.asarray([prompt_ids], dtype=np.int64))
        return pipeline.add_request(self._next_id, prompt, config)

    def _needed_blocks(self, request: GenerationRequest) -> int:
        # One token more: the pipeline allocates for the next before it knows that there is none.
        tokens = len(request.prompt_ids) + request.sampling.max_tokens + 1
        return -(-tokens // _BLOCK_TOKENS)

    def _has_room(self, request: GenerationRequest) -> bool:
        needed = self._needed_blocks(request)
        # What can never fit is let through, to be refused.
        return needed <= self._free_blocks or needed > self._blocks

    def _start(self, request: GenerationRequest) -> None:
        assert self._pipeline is not None
        needed = self._needed_blocks(request)
        if needed > self._blocks:
            raise RequestRefused(
                f"The engine's cache holds {self._blocks * _BLOCK_TOKENS} tokens, fewer than "
                "prompt and max_tokens together.",
                code="context_length_exceeded",
            )
        vocabulary = self._manifest.vocab_size
        if not all(0 <= token_id < vocabulary for token_id in request.prompt_ids):
            raise RequestRefused(
                f"The prompt has a token id outside 0..{vocabulary - 1}.", code="invalid_prompt"
            )
        try:
            config = self._config(request.sampling)
            watch = self._hold(config, request.sampling.structure)
            handle = self._add(self._pipeline, request.prompt_ids, config)
        except _FAILURES_OF_A_REQUEST as fault:
            raise RequestRefused(f"OpenVINO refused the request: {fault}") from fault
        table = self._table.for_tools(request.tools)
        self._runs[request.id] = _Run(handle, table, request, needed, watch)
        self._free_blocks -= needed

    def _config(self, sampling: Sampling) -> ov_genai.GenerationConfig:
        eos = self._manifest.eos_token_ids
        config = ov_genai.GenerationConfig(max_new_tokens=sampling.max_tokens)
        config.stop_token_ids = set(eos)
        if eos:
            config.set_eos_token_id(eos[0])
        config.do_sample = sampling.temperature > 0 and sampling.top_p > 0
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
            config.rng_seed = seed % 2**63
        self._extend(config, sampling)
        return config

    def _extend(self, config: ov_genai.GenerationConfig, sampling: Sampling) -> None:
        if sampling.top_k and config.do_sample:
            config.top_k = sampling.top_k
        if sampling.min_tokens:
            config.min_new_tokens = min(sampling.min_tokens, sampling.max_tokens)
        if sampling.logprobs is not None:
            config.logprobs = 1  # It knows of no more than the token that was chosen.

    def _hold(
        self, config: ov_genai.GenerationConfig, structure: Structure | None
    ) -> StructureMask | None:
        """Holds an answer to its structure; gives what watches over the rest of it, if any."""
        if structure is None:
            return None
        exact = _checked(structure)
        held = without_long_bounds(exact, _BOUNDED_CHARACTERS)
        config.structured_output_config = _structured(held)
        return None if held is exact else self._grammars.mask(exact)

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self._artefact_dir)

    def _is_busy(self) -> bool:
        return self._pipeline is not None and self._pipeline.has_non_finished_requests()

    def _step(self) -> Sequence[Event]:
        assert self._pipeline is not None
        self._pipeline.step()
        events: list[Event] = []
        for request_id, run in list(self._runs.items()):
            self._read(request_id, run, events)
        return events

    def _read(self, request_id: str, run: _Run, events: list[Event]) -> None:
        if not run.handle.can_read():
            status = run.handle.get_status()
            if status != ov_genai.GenerationStatus.RUNNING:
                self._forget(request_id)
                message = f"OpenVINO ended the request with status {status.name}."
                events.append(Failed(request_id, "request_refused", message))
            return
        (output,) = run.handle.read().values()
        within = run.within(output.generated_ids)
        token_ids = output.generated_ids[:within]
        run.generated += within
        if run.logprobs is not None:
            told = zip(token_ids, output.generated_log_probs[:within], strict=True)
            run.logprobs += (TokenLogprob(run.table[i], logprob) for i, logprob in told)
        piece = run.text.push(token_ids)
        # An answer that outgrows its structure is cut, as one that needs more tokens is.
        outgrown = within < len(output.generated_ids) and not piece.stopped
        reason = "length" if outgrown else self._reason(output.finish_reason, piece)
        if reason is not None and not piece.stopped:
            rest = run.text.finish()
            piece = Piece(piece.text + rest.text, piece.tokens + rest.tokens, rest.stop)
            reason = "stop" if rest.stopped else reason
        if piece.text or piece.tokens:
            logprobs = taken(run.logprobs, piece.tokens) if run.logprobs else ()
            events.append(Token(request_id, piece.text, piece.tokens, logprobs))
        if reason is not None:
            self._stop(request_id)
            events.append(Done(request_id, reason, run.prompt_tokens, run.generated, piece.stop))

    @staticmethod
    def _reason(
        finish: ov_genai.py_openvino_genai.GenerationFinishReason, piece: Piece
    ) -> StopReason | None:
        if piece.stopped or finish == ov_genai.GenerationFinishReason.STOP:
            return "stop"
        return "length" if finish == ov_genai.GenerationFinishReason.LENGTH else None

    def _stop(self, request_id: str) -> None:
        run = self._runs.get(request_id)
        if run is not None:
            run.handle.cancel()
            self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        self._free_blocks += self._runs.pop(request_id).blocks

    def _release(self) -> None:
        self._runs.clear()
        self._pipeline = None
