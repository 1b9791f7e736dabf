"""Ways to generate with transformers, with OpenVINO alone, with llama.cpp and with our engines.

All take the token that is most likely and go on past an end of text, so that all do equal work.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

Prompts = Sequence[list[int]]

CACHE_MB: Final = 1024
SLOTS: Final = 64
CONTEXT_LENGTH: Final = 2048
_ROOM: Final = {"slots": SLOTS, "cache_mb": CACHE_MB}


class Contender(Protocol):
    """Something that generates; made and used on one thread of its own process."""

    def run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        """Answer every prompt with so many tokens, so many at once; returns tokens generated."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class _Transformers:
    """A causal language model of transformers.

    Args:
        dtype: number format; ``auto`` is the one of the folder's weights.
    """

    def __init__(self, folder: Path, dtype: str = "auto") -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch: Any = torch
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def generate(self, batch: Prompts, tokens: int) -> int:
        ids = self.torch.tensor(list(batch))
        with self.torch.inference_mode():
            made = self.model.generate(
                ids,
                attention_mask=self.torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=0,
            )
        return int((made.shape[1] - ids.shape[1]) * made.shape[0])

    def close(self) -> None:
        """Nothing runs."""


class Sequential(_Transformers):
    """``generate`` for one prompt after another, as a task a request does it."""

    # The rate does not depend on how many wait.
    _MOST: Final = 3

    def run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        return sum(self.generate([prompt], tokens) for prompt in prompts[: self._MOST])


class Static(_Transformers):
    """``generate`` for batches that begin and end together."""

    def run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        starts = range(0, len(prompts), concurrency)
        return sum(self.generate(prompts[n : n + concurrency], tokens) for n in starts)


class TransformersContinuous(_Transformers):
    """transformers' own continuous batching."""

    def __init__(self, folder: Path, dtype: str = "auto") -> None:
        super().__init__(folder, dtype)
        from transformers import GenerationConfig

        # No token ends an answer.
        config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        self.manager = self.model.init_continuous_batching(generation_config=config)
        self.manager.start()

    def run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        left = list(prompts)
        running = made = 0
        while left or running:
            while left and running < concurrency:
                self.manager.add_request(left.pop(), max_new_tokens=tokens)
                running += 1
            result = self.manager.get_result(timeout=60)
            if result is None:
                raise SystemExit("transformers' continuous batching gave no result in a minute.")
            if result.is_finished():
                running -= 1
                made += len(result.generated_tokens)
        return made

    def close(self) -> None:
        self.manager.stop(block=True)


class RawOpenVINO:
    """OpenVINO GenAI's pipeline with nothing of ours around it."""

    def __init__(self, folder: Path) -> None:
        from inference.engines import openvino as ours  # First: it switches telemetry off.

        self._genai: Any = ours.ov_genai
        self._ov: Any = ours.ov
        self._np: Any = ours.np
        manifest = ours.load_manifest(folder)
        assert manifest.kv is not None
        scheduler = self._genai.SchedulerConfig()
        scheduler.max_num_seqs = SLOTS
        scheduler.num_kv_blocks = CACHE_MB * 2**20 // ours.block_bytes(manifest.kv)
        scheduler.max_num_batched_tokens = 256
        scheduler.dynamic_split_fuse = True
        weights = folder / "model.gguf"
        self._pipeline = self._genai.ContinuousBatchingPipeline(weights, scheduler, "CPU", {})
        self._next = 0

    def run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        config = self._genai.GenerationConfig(
            max_new_tokens=tokens, do_sample=False, ignore_eos=True
        )
        left, running, made = list(prompts), [], 0
        while left or running:
            while left and len(running) < concurrency:
                self._next += 1
                ids = self._ov.Tensor(self._np.asarray([left.pop()], dtype=self._np.int64))
                running.append(self._pipeline.add_request(self._next, ids, config))
            self._pipeline.step()
            for handle in list(running):
                if handle.can_read():
                    made += sum(len(output.generated_ids) for output in handle.read().values())
                if handle.get_status() != self._genai.GenerationStatus.RUNNING:
                    running.remove(handle)
        return made

    def close(self) -> None:
        """Nothing runs."""


class OurEngine:
    """One of our engines.

    Args:
        make: an engine, not loaded yet, that sends its events to what it is given.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._engine = make(self._emit)
        self._changed = threading.Condition()
        self._left: list[list[int]] = []
        self._running = 0
        self._made = 0
        self._fault = ""
        self._number = 0
        self._tokens = 0
        self._engine.load()

    def run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        with self._changed:
            self._left, self._made, self._tokens = list(prompts), 0, tokens
            # Taken at once: the first may have ended before the last is submitted.
            first = [self._left.pop() for _ in range(min(concurrency, len(prompts)))]
            self._running = len(first)
        for prompt in first:
            self._submit(prompt)
        with self._changed:
            self._changed.wait_for(lambda: self._fault or not self._running)
        if self._fault:
            raise SystemExit(f"The engine failed: {self._fault}")
        return self._made

    def _submit(self, prompt: list[int]) -> None:
        from inference.engines.base import GenerationRequest, Message, Sampling

        with self._changed:
            self._number += 1
            name = str(self._number)
        sampling = Sampling(
            max_tokens=self._tokens, min_tokens=self._tokens, temperature=0.0, seed=1
        )
        self._engine.submit(GenerationRequest(name, prompt, (Message("", "-"),), sampling))

    def _emit(self, events: Sequence[Any]) -> None:
        from inference.engines.base import Done, Failed

        for event in events:
            if isinstance(event, Failed):
                self._end(0, event.message)
            elif isinstance(event, Done):
                self._end(event.completion_tokens, "")

    def _end(self, tokens: int, fault: str) -> None:
        with self._changed:
            self._made += tokens
            self._fault = self._fault or fault
            following = self._left.pop() if self._left and not fault else None
            if following is None:
                self._running -= 1
                self._changed.notify_all()
        if following is not None:
            self._submit(following)

    def close(self) -> None:
        self._engine.close()


class LlamaServer:
    """llama.cpp's server at a URL, by its own protocol."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        return asyncio.run(self._run(prompts, tokens, concurrency))

    async def _run(self, prompts: Prompts, tokens: int, concurrency: int) -> int:
        import httpx

        turn = asyncio.Semaphore(concurrency)
        limits = httpx.Limits(max_connections=concurrency)
        async with httpx.AsyncClient(base_url=self._url, timeout=600, limits=limits) as client:

            async def ask(prompt: list[int]) -> int:
                async with turn:
                    body = {
                        "prompt": prompt,
                        "n_predict": tokens,
                        "temperature": 0,
                        "ignore_eos": True,
                        "cache_prompt": False,
                    }
                    answer = (await client.post("/completion", json=body)).raise_for_status()
                    return int(answer.json()["tokens_predicted"])

            return sum(await asyncio.gather(*map(ask, prompts)))

    def close(self) -> None:
        """Whoever started the server ends it."""


def _as_a_worker(name: str, at: str, options: dict[str, Any]) -> OurEngine:
    from inference.engines import create_engine

    return OurEngine(
        lambda emit: create_engine(
            name,
            artefact_dir=Path(at),
            context_length=CONTEXT_LENGTH,
            options=options,
            emit=emit,
        )
    )


MAKERS: Final[dict[str, Callable[[str], Contender]]] = {
    "sequential": lambda at: Sequential(Path(at)),
    "sequential fp32": lambda at: Sequential(Path(at), "float32"),
    "static batches": lambda at: Static(Path(at)),
    "transformers CB": lambda at: TransformersContinuous(Path(at)),
    "transformers CB fp32": lambda at: TransformersContinuous(Path(at), "float32"),
    "torch_batch": lambda at: _as_a_worker("torch_batch", at, _ROOM),
    "torch_batch int8": lambda at: _as_a_worker("torch_batch", at, _ROOM),
    "raw OpenVINO": lambda at: RawOpenVINO(Path(at)),
    "openvino": lambda at: _as_a_worker("openvino", at, _ROOM),
    "llama.cpp Q8_0": LlamaServer,
}
