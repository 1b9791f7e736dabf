"""The engine torch_batch, with tiny models whose every token transformers' generate confirms."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.artefacts import import_byte_level
from inference.engines import create_engine
from inference.engines.base import Done, GenerationRequest, Sampling, Structure, Token
from inference.engines.torch_batch.engine import TorchBatchEngine
from inference.engines.torch_batch.sampling import TokenMask
from portal.core.errors import PortalError
from tests.inference.engines.support import Sink
from tests.inference.engines.tiny_models import (
    CONTEXT,
    END,
    FAMILIES,
    greedy,
    save_tiny,
    tiny_model,
)
from tests.inference.engines.torch_served import (
    MOST_TOKENS,
    OPTIONS,
    PROMPTS,
    TABLE,
    Served,
    expected,
)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @functools.cache
    def made(family: str) -> Path:
        return save_tiny(tmp_path_factory.mktemp(family), family, eos=())

    return made


@pytest.fixture
def serve(artefacts: Callable[[str], Path]) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def build(family: str = "deepseek_v3", **options: Any) -> Served:
        made.append(Served(artefacts(family), **options))
        return made[-1]

    yield build
    for served in made:
        served.engine.close()
        stats = served.engine.stats()
        assert (stats.running, stats.waiting, stats.failure) == (0, 0, None)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(
    request: pytest.FixtureRequest, artefacts: Callable[[str], Path]
) -> Iterator[tuple[str, Served]]:
    served = Served(artefacts(request.param), prefix_cache_mb=1)
    yield request.param, served
    served.engine.close()


_names = iter(range(10**9))
_calls = st.lists(
    st.tuples(
        st.integers(0, len(PROMPTS) - 1),
        st.integers(1, MOST_TOKENS),
        st.integers(0, 20),  # events to wait for before it is submitted
        st.one_of(st.none(), st.integers(0, 40)),  # and before it is cancelled
        st.sampled_from(("", "a", "b")),
    ),
    min_size=1,
    max_size=9,
)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(calls=_calls)
def test_generate_greedily_in_any_batch_gives_what_generate_gives(
    family: tuple[str, Served], calls: list[tuple[int, int, int, int | None, str]]
) -> None:
    name_of_family, served = family
    names = [str(next(_names)) for _ in calls]
    begun = len(served.events)
    submitted: list[str] = []

    def reached(events: int) -> bool:
        idle = all(served.ends(name) for name in submitted)
        return idle or len(served.events) - begun >= events

    for name, (prompt, tokens, at, _, scope) in zip(names, calls, strict=True):
        served.wait(functools.partial(reached, at))
        served.start(name, PROMPTS[prompt], max_tokens=tokens, scope=scope)
        submitted.append(name)
    for name, (_, _, _, cancel_at, _) in zip(names, calls, strict=True):
        if cancel_at is not None:
            served.wait(functools.partial(reached, cancel_at))
            served.engine.cancel(name)
    for name, (prompt, tokens, _, cancel_at, _) in zip(names, calls, strict=True):
        done = served.done(name)
        got, want = served.bytes_of(name), expected(name_of_family, prompt)
        assert len(served.ends(name)) == 1
        assert done.completion_tokens == served.tokens(name) == len(got)
        if done.reason == "cancelled":
            assert cancel_at is not None
            assert got == want[: len(got)]
        else:
            assert done == Done(name, "length", len(PROMPTS[prompt]), tokens)
            assert got == want[:tokens]
    stats = served.engine.stats()
    assert (stats.running, stats.waiting, stats.cached_tokens) == (0, 0, 0)


@pytest.mark.parametrize("sampling", [{}, {"top_k": 20}, {"top_p": 0.7}, {"temperature": 2.0}])
def test_seed_gives_the_same_tokens_alone_and_among_others(
    serve: Callable[..., Served], sampling: dict[str, Any]
) -> None:
    served = serve()
    drawn = {"temperature": 1.0, "max_tokens": 80, "seed": 11} | sampling
    alone = served.answer("alone", PROMPTS[3], **drawn)
    for n in range(4):
        served.start(f"other{n}", PROMPTS[n], temperature=1.0, max_tokens=20 + 30 * n)
    among = served.answer("among", PROMPTS[3], **drawn)
    assert alone == among
    assert served.answer("twice", PROMPTS[3], **(drawn | {"seed": 12})) != alone
    fresh = [served.answer(f"f{n}", PROMPTS[3], **(drawn | {"seed": None})) for n in range(2)]
    assert fresh[0] != fresh[1]
    assert served.engine.drain(60)


def test_long_prompt_does_not_stall_the_others(serve: Callable[..., Served]) -> None:
    served = serve(prefill_tokens=8)
    served.start("a", PROMPTS[0], max_tokens=400)
    served.wait(lambda: served.tokens("a") > 0)
    before = served.tokens("a")
    served.start("b", [5] * 80, max_tokens=1)
    served.done("b")
    first = next(n for n, event in enumerate(served.events) if event.request_id == "b")
    meanwhile = sum(event.tokens for event in served.events[:first] if isinstance(event, Token))
    # The prompt takes ten pieces, and after each of them the other gets its token.
    assert meanwhile - before >= 9
    served.engine.cancel("a")


def test_stop_string_across_tokens_ends_before_it(serve: Callable[..., Served]) -> None:
    served = serve("llama")
    whole = b"".join(expected("llama", 2)).decode("utf-8", "replace")
    served.start("a", PROMPTS[2], max_tokens=MOST_TOKENS, stop=("nowhere", whole[3:6]))
    done = served.done("a")
    assert served.text("a") == whole[: whole.index(whole[3:6])]
    assert (done.reason, done.stop) == ("stop", 1)
    assert done.completion_tokens == served.tokens("a") == len(served.bytes_of("a"))


def test_end_of_text_stops_unless_too_few_tokens_came(tmp_path: Path) -> None:
    answer = greedy(tiny_model("qwen2"), PROMPTS[2], 12)
    end = answer[4]
    served = Served(save_tiny(tmp_path, "qwen2", eos=(END, end)))
    at = answer.index(end) + 1
    served.start("a", PROMPTS[2], max_tokens=12)
    assert served.done("a") == Done("a", "stop", len(PROMPTS[2]), at)
    served.start("b", PROMPTS[2], max_tokens=40, min_tokens=at + 3)
    assert served.done("b").completion_tokens >= at + 3
    assert served.bytes_of("b")[: at - 1] == served.bytes_of("a")[:-1]
    served.engine.close()


def test_logprobs_are_the_models_own_whatever_the_sampling(serve: Callable[..., Served]) -> None:
    served = serve("qwen2")
    served.start("a", PROMPTS[4], max_tokens=6, temperature=0.3, top_k=1, min_tokens=2, logprobs=3)
    served.start("b", PROMPTS[5], max_tokens=6, logprobs=None)
    served.done("a")
    entries = [e for t in served.of("a") if isinstance(t, Token) for e in t.logprobs]
    answer = greedy(tiny_model("qwen2"), PROMPTS[4], 6)
    ids = torch.tensor([PROMPTS[4] + answer])
    with torch.inference_mode():
        own = tiny_model("qwen2")(ids).logits[0, len(PROMPTS[4]) - 1 : -1].log_softmax(-1)
    assert len(entries) == 6
    for entry, token_id, row in zip(entries, answer, own, strict=True):
        assert entry.logprob == pytest.approx(row[token_id].item(), abs=1e-3)
        top = row.topk(3).values.tolist()
        assert [likely.logprob for likely in entry.top] == pytest.approx(top, abs=1e-3)
        assert entry.top[0].token == entry.token
    served.done("b")
    assert not any(t.logprobs for t in served.of("b") if isinstance(t, Token))


def _count_tokens(served: Served) -> list[int]:
    """Numbers of tokens of the forwards from now on, with copies in narrower rows."""
    widths: list[int] = []
    runner = served.engine._runner
    assert runner is not None
    runner._model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]),
        with_kwargs=True,
    )
    return widths


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_prompt_known_in_the_scope_is_not_computed_again(
    serve: Callable[..., Served], name: str
) -> None:
    served = serve(name)
    widths = _count_tokens(served)
    first = served.answer("a", PROMPTS[7], scope="tenant")
    assert sum(widths) == 75 + 7
    widths.clear()
    assert served.answer("b", PROMPTS[7], scope="tenant") == first
    assert sum(widths) == 1 + 7
    widths.clear()
    longer = PROMPTS[7] + PROMPTS[2]
    known = served.answer("c", longer, scope="tenant")
    assert sum(widths) == len(PROMPTS[2]) + 7
    assert known == [TABLE[i] for i in greedy(tiny_model(name), longer, 8)]


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("", ""), ("a", ""), ("", "a")])
def test_prompt_of_another_scope_is_computed_again(
    serve: Callable[..., Served], first: str, second: str
) -> None:
    served = serve()
    served.answer("x", PROMPTS[7], scope=first)
    widths = _count_tokens(served)
    served.answer("y", PROMPTS[7], scope=second)
    assert sum(widths) == 75 + 7


@pytest.mark.parametrize(
    ("prompt", "sampling", "code"),
    [
        ([5] * 500, {"max_tokens": 13}, "context_length_exceeded"),
        ([5] * 300, {"max_tokens": 30}, "context_length_exceeded"),
        ([258], {}, "invalid_prompt"),
        ([-1], {}, "invalid_prompt"),
        ([], {}, "invalid_prompt"),
        ([5], {"structure": Structure("json_schema", '{"type": "nothing"}')}, "request_refused"),
    ],
)
def test_refuse_unservable_without_harming_the_next(
    serve: Callable[..., Served], prompt: list[int], sampling: dict[str, Any], code: str
) -> None:
    served = serve("wide")
    served.start("bad", prompt, **sampling)
    served.start("good", PROMPTS[2], max_tokens=2)
    assert served.failed("bad").code == code
    assert served.done("good").completion_tokens == 2


def test_more_than_the_cache_holds_waits_and_all_finish(serve: Callable[..., Served]) -> None:
    served = serve("wide")
    stats = served.engine.stats()
    assert stats.cache_tokens == 256
    assert stats.memory_bytes > 2 * 2**20
    for n in range(6):
        served.start(str(n), PROMPTS[n], max_tokens=100 if n % 2 else 20)
    for n in range(6):
        assert served.done(str(n)).completion_tokens == (100 if n % 2 else 20)
    assert served.engine.stats().cached_tokens == 0


class Poison:
    """Allows everything, and raises where it is told to."""

    def __init__(self, where: str) -> None:
        self._where = where

    def mask(self, logits: torch.Tensor) -> None:
        if self._where == "mask":
            raise ValueError("no such state")
        if self._where == "everything":
            logits.fill_(-torch.inf)
        if self._where == "all but one":
            logits[:70] = -torch.inf
            logits[71:] = -torch.inf

    def accept(self, token_id: int) -> None:
        if self._where == "accept":
            raise ValueError("no such state")


class Masked(TorchBatchEngine):
    """Masks the requests whose ids say how."""

    def _mask(self, request: GenerationRequest) -> TokenMask | None:
        return None if request.id.startswith("good") else Poison(request.id)


@pytest.mark.parametrize("where", ["mask", "accept", "everything"])
def test_fault_in_one_requests_mask_fails_it_alone(
    serve: Callable[..., Served], where: str
) -> None:
    served = serve(kind=Masked)
    served.start("good1", PROMPTS[1])
    served.start(where, PROMPTS[2])
    served.start("good2", PROMPTS[3])
    assert served.failed(where).code == "engine_failed"
    for name, prompt in (("good1", 1), ("good2", 3)):
        served.done(name)
        assert served.bytes_of(name) == expected("deepseek_v3", prompt)[:8]


def test_mask_restricts_its_own_request_alone(serve: Callable[..., Served]) -> None:
    served = serve(kind=Masked)
    served.start("good", PROMPTS[1])
    only = served.answer("all but one", PROMPTS[2], temperature=1.0)
    assert only == [TABLE[70]] * 8
    served.done("good")
    assert served.bytes_of("good") == expected("deepseek_v3", 1)[:8]


def test_numbers_of_one_request_that_are_not_finite_fail_it_alone(
    serve: Callable[..., Served],
) -> None:
    served = serve("llama")
    runner = served.engine._runner
    assert runner is not None

    def poison(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.where(args[0][..., None] == 7, torch.nan, output)

    handle = runner._model.get_input_embeddings().register_forward_hook(poison)
    served.start("good", PROMPTS[1], max_tokens=MOST_TOKENS)
    served.start("bad", [9, 7, 9])
    assert served.failed("bad").code == "engine_failed"
    served.done("good")
    handle.remove()
    # Nothing of it stays in the rows that others get.
    for n in range(5):
        served.start(f"next{n}", PROMPTS[n], max_tokens=MOST_TOKENS)
    for n in range(5):
        served.done(f"next{n}")
        assert served.bytes_of(f"next{n}") == expected("llama", n)
    assert served.bytes_of("good") == expected("llama", 1)


@pytest.mark.parametrize("fault", ["OutOfMemoryError", "CPU"])
def test_step_short_of_memory_is_repeated(serve: Callable[..., Served], fault: str) -> None:
    served = serve()
    _fail_forwards(served, fault, {3})
    assert served.answer("a", PROMPTS[4]) == expected("deepseek_v3", 4)[:8]


def test_step_twice_short_of_memory_fails_the_last_request_alone(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    _fail_forwards(served, "OutOfMemoryError", rows=3)
    for n in range(3):
        served.start(str(n), PROMPTS[n], max_tokens=MOST_TOKENS)
    assert served.failed("2").code == "engine_failed"
    for n in range(2):
        served.done(str(n))
        assert served.bytes_of(str(n)) == expected("deepseek_v3", n)
    assert served.answer("after", PROMPTS[2]) == expected("deepseek_v3", 2)[:8]


def _fail_forwards(
    served: Served, fault: str, calls: set[int] | None = None, rows: int | None = None
) -> None:
    runner = served.engine._runner
    assert runner is not None
    count = 0

    def fail(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count in (calls or ()) or kwargs["input_ids"].shape[0] == rows:
            if fault == "CPU":
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes.")
            raise torch.OutOfMemoryError("CUDA out of memory.")

    runner._model.register_forward_pre_hook(fail, with_kwargs=True)


def test_auto_serves_safetensors_in_its_own_process(artefacts: Callable[[str], Path]) -> None:
    sink = Sink()
    engine = create_engine(
        "auto",
        artefact_dir=artefacts("deepseek_v3"),
        context_length=CONTEXT,
        # On another machine it would be vLLM.
        options={**OPTIONS, "tensor_parallel": 2},
        emit=sink,
    )
    engine.load()
    sampling = Sampling(max_tokens=8, temperature=0.0, logprobs=0)
    engine.submit(GenerationRequest("a", PROMPTS[3], (), sampling))
    assert sink.done("a") == Done("a", "length", len(PROMPTS[3]), 8)
    tokens = [e.token for t in sink.of("a") if isinstance(t, Token) for e in t.logprobs]
    assert tokens == expected("deepseek_v3", 3)[:8]
    stats = engine.stats()
    assert stats.memory_bytes > 0
    assert stats.cache_tokens > 0
    engine.close()


def test_load_of_what_it_cannot_serve_is_refused(
    tmp_path: Path, artefacts: Callable[[str], Path]
) -> None:
    made = import_byte_level(tmp_path, context_length=64)
    with pytest.raises(PortalError, match="no safetensors"):
        Served(tmp_path / made.id)
    if not torch.cuda.is_available():
        with pytest.raises(PortalError, match="accelerator"):
            Served(artefacts("llama"), device="cuda")
    with pytest.raises(PortalError, match="cannot be loaded"):
        broken = save_tiny(tmp_path / "broken", "llama")
        (broken / "model.safetensors").write_bytes(b"nothing")
        Served(broken)


@pytest.mark.parametrize(
    ("family", "words"), [("sliding", "SlidingWindow"), ("dynamic_rope", "dynamic")]
)
def test_load_of_a_model_whose_requests_depend_on_each_other_is_refused(
    tmp_path: Path, family: str, words: str
) -> None:
    with pytest.raises(PortalError, match=words):
        Served(save_tiny(tmp_path, family))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_bfloat16_mostly_agrees_with_32_bits(
    artefacts: Callable[[str], Path],
    family: str,
    record_property: Callable[[str, object], None],
) -> None:
    served = Served(artefacts(family), dtype="bfloat16")
    agreeing = total = 0
    for n in range(len(PROMPTS)):
        got = served.answer(str(n), PROMPTS[n], max_tokens=1)
        agreeing += got == expected(family, n)[:1]
        total += 1
    served.engine.close()
    record_property("bfloat16_divergence", 1 - agreeing / total)
    assert agreeing >= total / 2
