"""The engine ``torch_batch``: who runs, who waits, and what each step computes.

A step generates one token of every running request, and then computes a bounded piece of the
prompts that wait: a long prompt delays the others by one piece a token, not by all of it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog
import torch
from tokenizers import Tokenizer

from inference.artefacts import load_manifest
from inference.engines.base import (
    Emit,
    EngineOptions,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
)
from inference.engines.grammar import Grammars
from inference.engines.options import parse_options
from inference.engines.stepping import RequestRefused, StepEngine, log_failure
from inference.engines.text import TokenBytes
from inference.engines.torch_batch.leading import open_group
from inference.engines.torch_batch.loading import load_model, pick_device
from inference.engines.torch_batch.options import TorchBatchOptions
from inference.engines.torch_batch.prefixes import PrefixStore
from inference.engines.torch_batch.rows import Rows
from inference.engines.torch_batch.runner import (
    ModelRunner,
    StepInputs,
    cache_bytes_of,
    is_out_of_memory,
)
from inference.engines.torch_batch.runs import Run
from inference.engines.torch_batch.sampling import (
    NOTHING,
    PlaceLogprobs,
    SamplingPlan,
    TokenMask,
)
from inference.engines.torch_batch.splitting import check_split
from portal.core.errors import Invalid

log = structlog.get_logger(__name__)

_PREFILL_TOKENS = {"cpu": 256, "cuda": 2048}


class TorchBatchEngine(StepEngine):
    """Generates with a causal language model of transformers; see ``TorchBatchOptions``.

    A request is started only when the cache has room for its prompt and all of ``max_tokens``.
    With a seed, and with numbers of 32 bits, a request gets the same tokens alone and among
    others; fewer bits round differently in batches of different sizes.
    """

    def __init__(
        self, *, artefact_dir: Path, context_length: int, options: EngineOptions, emit: Emit
    ) -> None:
        self._options = parse_options(TorchBatchOptions, options, engine="torch_batch")
        super().__init__(slots=self._options.slots, context_length=context_length, emit=emit)
        self._artefact_dir = artefact_dir
        self._manifest = load_manifest(artefact_dir)
        if self._manifest.format != "safetensors":
            raise Invalid(f"The artefact {self._manifest.name} holds no safetensors weights.")
        self._runs: dict[str, Run] = {}
        self._queue: deque[Run] = deque()  # started, and without a row yet
        self._plan: SamplingPlan | None = None  # of the requests that generate
        self._table: TokenBytes
        self._eos: tuple[int, ...]
        self._prefill_tokens: int
        self._runner: ModelRunner | None = None
        self._grammars: Grammars | None = None  # made for the first request with a structure
        self._rows: Rows
        self._prefixes: PrefixStore

    def _open(self) -> None:
        options = self._options
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        device = pick_device(options.device)
        self._table = TokenBytes(Tokenizer.from_file(str(self._artefact_dir / "tokenizer.json")))
        self._prefill_tokens = options.prefill_tokens or _PREFILL_TOKENS[device.type]
        runner = self._open_runner(device)
        try:
            self._warm_up(runner)
        except BaseException:
            runner.close()
            raise
        self._eos = tuple(i for i in self._manifest.eos_token_ids if i < runner.vocabulary)
        self._prefixes = PrefixStore(
            options.prefix_cache_mb * 2**20 // runner.token_bytes,
            save=runner.save,
            drop=runner.drop,
        )
        self._rows = Rows(runner)
        self._runner = runner

    def _open_runner(self, device: torch.device) -> ModelRunner:
        options = self._options
        if options.tensor_parallel > 1:
            check_split(
                self._artefact_dir,
                name=self._manifest.name,
                ranks=options.tensor_parallel,
                device=device,
            )
            return open_group(
                self._artefact_dir,
                options=options,
                device=device,
                context_length=self._context_length,
                on_loss=self._wake,
            )
        return ModelRunner(
            load_model(self._artefact_dir, device=device, dtype=options.dtype),
            slots=options.slots,
            context_length=self._context_length,
            cache_bytes=cache_bytes_of(options, device),
        )

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _is_busy(self) -> bool:
        # A step finds out what has become of it.
        return self._runner is not None and self._runner.lost

    def _warm_up(self, runner: ModelRunner) -> None:
        # A prompt and a token: the kernels of both are made ready at first use.
        for tokens, positions in (([0, 0, 0], [0, 1, 2]), ([0], [3])):
            logits = runner.forward(StepInputs(0, np.array([tokens]), np.array([positions])))
        runner.clear(0)
        if not bool(logits.isfinite().all()):
            raise Invalid(f"{self._manifest.name} computes no finite numbers; try another dtype.")

    def stats(self) -> EngineStats:
        """See ``Engine.stats``."""
        stats, runner = super().stats(), self._runner
        if runner is None:
            return stats
        return replace(
            stats,
            memory_bytes=runner.memory_bytes,
            cache_tokens=runner.budget.tokens,
            cached_tokens=runner.used_tokens,
        )

    # Admission.

    def _has_room(self, request: GenerationRequest) -> bool:
        assert self._runner is not None
        budget, need = self._runner.budget, len(request.prompt_ids) + request.sampling.max_tokens
        # What can never fit is let through, to be refused.
        return need > budget.longest or budget.fits([need, *self._needs()])

    def _needs(self) -> list[int]:
        return [run.need for run in self._runs.values()]

    def _start(self, request: GenerationRequest) -> None:
        assert self._runner is not None
        budget, need = self._runner.budget, len(request.prompt_ids) + request.sampling.max_tokens
        if need > budget.longest:
            raise RequestRefused(
                f"The engine's cache holds {budget.longest} tokens of a request, fewer than "
                "prompt and max_tokens together.",
                code="context_length_exceeded",
            )
        vocabulary = self._runner.vocabulary
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= vocabulary:
            raise RequestRefused(
                f"The prompt has a token id outside 0..{vocabulary - 1}.", code="invalid_prompt"
            )
        run = Run(
            request,
            table=self._table.for_tools(request.tools),
            eos=self._eos,
            mask=self._mask(request),
        )
        self._runs[request.id] = run
        self._queue.append(run)
        self._make_room(self._runner)

    def _mask(self, request: GenerationRequest) -> TokenMask | None:
        """What restricts the tokens of a request."""
        structure = request.sampling.structure
        if structure is None:
            return None
        if self._grammars is None:
            assert self._runner is not None
            self._grammars = Grammars(self._artefact_dir, vocab_size=self._runner.vocabulary)
        return self._grammars.mask(structure)

    def _make_room(self, runner: ModelRunner) -> None:
        """Reshape the cache where it is too short, or has too few rows, for what has started."""
        longest = max(self._needs())
        if longest > runner.length or len(self._runs) > runner.rows:
            runner.reshape(runner.budget.length_for(longest))

    # Steps.

    def _step(self) -> Sequence[Event]:
        assert self._runner is not None
        events: list[Event] = []
        if self._rows.generating:
            self._decode(self._runner, events)
        if self._queue or self._rows.prefilling:
            self._prefill(self._runner, events)
        self._runner.check()
        return events

    def _decode(self, runner: ModelRunner, events: list[Event]) -> None:
        runs = self._rows.decoding
        last = np.fromiter((run.tokens[-1] for run in runs), np.int64, len(runs))
        ends = np.fromiter((run.cached for run in runs), np.int64, len(runs))
        logits = self._forward(runner, runs, StepInputs(0, last[:, None], ends[:, None]), events)
        if logits is None:
            return
        for run in runs:
            run.cached += 1
        if self._plan is None:
            self._plan = self._plan_of(runs, runner)
        self._choose(runs, self._plan, logits, events)

    def _prefill(self, runner: ModelRunner, events: list[Event]) -> None:
        group, width = self._group(runner)
        tokens = np.empty((len(group), width), np.int64)
        positions = np.empty((len(group), width), np.int64)
        for place, run in enumerate(group):
            end = min(run.cached + width, run.prompt_tokens)
            # Shorter ones begin with copies of their first token.
            positions[place] = np.maximum(np.arange(end - width, end), run.cached)
            tokens[place] = [run.tokens[position] for position in positions[place].tolist()]
        inputs = StepInputs(self._rows.generating, tokens, positions)
        logits = self._forward(runner, group, inputs, events)
        if logits is None:
            return
        for run in group:
            run.cached = min(run.cached + width, run.prompt_tokens)
        if group[0].uncached:
            return
        for run in group:
            self._remember(run)
        self._rows.promote(len(group))
        self._plan = None
        self._choose(group, self._plan_of(group, runner), logits, events)

    def _group(self, runner: ModelRunner) -> tuple[list[Run], int]:
        """The runs whose prompts are computed in this step, and how many tokens of each.

        The first gets a piece; others join it whole, if they fit beside it. So all of a group end
        together, or it is one.
        """
        group: list[Run] = []
        width = 0
        while len(self._rows.prefilling) > len(group) or self._queue:
            if len(self._rows.prefilling) == len(group):
                self._place(self._queue.popleft(), runner)
            run = self._rows.prefilling[len(group)]
            wider = max(width, run.uncached)
            if group and (len(group) + 1) * wider > self._prefill_tokens:
                break
            group.append(run)
            width = min(wider, self._prefill_tokens)
        return group, width

    def _place(self, run: Run, runner: ModelRunner) -> None:
        """Give a run its row, filled with what is known of its prompt."""
        row = self._rows.append(run)
        scope = run.request.cache_scope
        # The last token is computed in any case: what follows it is asked for.
        handle, known = self._prefixes.find(scope, run.tokens[: run.prompt_tokens - 1])
        if known:
            runner.restore(row, handle, known)
            run.cached = known

    def _remember(self, run: Run) -> None:
        row = self._rows.row_of(run)
        self._prefixes.add(run.request.cache_scope, run.tokens[: run.cached], row)

    def _forward(
        self, runner: ModelRunner, runs: Sequence[Run], inputs: StepInputs, events: list[Event]
    ) -> torch.Tensor | None:
        """Logits of a step. Where memory does not suffice, the last of its runs fails."""
        logits = self._try(lambda: runner.forward(inputs))
        if logits is None:
            self._prefixes.clear()
            runner.give_back()
            logits = self._try(lambda: runner.forward(inputs))
        if logits is None:
            message = "The engine has too little memory for this request."
            self._fail(runs[-1], message, events)
        return logits

    @staticmethod
    def _try(forward: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        try:
            return forward()
        except RuntimeError as fault:
            if not is_out_of_memory(fault):
                raise
            log.warning("engine.out_of_memory", fault=str(fault))
            return None

    # Tokens.

    def _plan_of(self, runs: Sequence[Run], runner: ModelRunner) -> SamplingPlan:
        return SamplingPlan([run.request.sampling for run in runs], self._eos, runner.device)

    @torch.inference_mode()
    def _choose(
        self, runs: Sequence[Run], plan: SamplingPlan, logits: torch.Tensor, events: list[Event]
    ) -> None:
        ids, told, faults = plan.choose(
            logits,
            generated=[run.generated for run in runs],
            draws=[run.draws for run in runs],
            masks=[run.mask for run in runs],
        )
        for row, (run, token_id) in enumerate(zip(runs, ids, strict=True)):
            if row in faults:
                self._fail_by(run, faults[row], events)
            elif token_id == NOTHING:
                message = "The model computed nothing to choose the next token from."
                self._fail(run, message, events)
            else:
                self._take(run, token_id, told.get(row), events)

    def _take(
        self, run: Run, token_id: int, told: PlaceLogprobs | None, events: list[Event]
    ) -> None:
        mine: list[Event] = []
        try:
            ended = run.take(token_id, told, mine)
        except Exception as fault:  # noqa: BLE001 - fails this request, and no other
            self._fail_by(run, fault, events)
            return
        events += mine
        if ended:
            self._remember(run)
            self._forget(run)

    def _fail_by(self, run: Run, fault: Exception, events: list[Event]) -> None:
        log_failure(fault)
        self._fail(run, "The engine could not choose a token of this request.", events)

    def _fail(self, run: Run, message: str, events: list[Event]) -> None:
        self._forget(run)
        events.append(Failed(run.request.id, "engine_failed", message))

    def _stop(self, request_id: str) -> None:
        self._forget(self._runs[request_id])

    def _forget(self, run: Run) -> None:
        del self._runs[run.request.id]
        if run in self._rows:
            self._rows.remove(run)
            self._plan = None
        else:
            self._queue.remove(run)

    def _release(self) -> None:
        self._runs.clear()
        self._queue.clear()
        self._plan = None
        if self._runner is not None:
            self._runner.close()
        self._runner = None
        del self._rows, self._prefixes
