"""torch_batch with packed weights, and with answers that have a structure."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inference.engines.base import GenerationRequest, Sampling, Structure
from inference.engines.torch_batch.engine import TorchBatchEngine
from inference.quantization.loading import load_quantized
from inference.quantization.writing import Plan, quantize_artefact
from tests.inference.engines.call_forms import check_calls, held
from tests.inference.engines.device import DEVICE
from tests.inference.engines.support import Sink
from tests.inference.engines.tiny_models import CONTEXT, END, save_tiny
from tests.inference.quantization.models import TEXT, write_artefact

OPTIONS = {"device": DEVICE.type, "dtype": "float32", "slots": 4, "cache_mb": 2, "threads": 1}
PROMPTS = [[5, 9, 200, 31], [77] * 19, [8, 120]]
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
)


class Serving:
    """An engine in this process."""

    def __init__(self, artefact: Path) -> None:
        self.sink = Sink()
        self.engine = TorchBatchEngine(
            artefact_dir=artefact,
            context_length=CONTEXT,
            options=OPTIONS,
            emit=self.sink,
        )
        self.engine.load()

    def start(self, name: str, prompt: list[int], **sampling: object) -> None:
        asked = Sampling(**{"max_tokens": 8, "temperature": 0.0} | sampling)  # type: ignore[arg-type]
        self.engine.submit(GenerationRequest(name, prompt, (), asked))


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama", eos=(END,))


@pytest.fixture
def plain(artefact: Path) -> Iterator[Serving]:
    serving = Serving(artefact)
    yield serving
    serving.engine.close()


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_generate_with_packed_weights_gives_what_their_model_gives(
    tmp_path: Path, method: str
) -> None:
    source = tmp_path / "source"
    write_artefact(source, "llama")
    plan = Plan(method, 32, TEXT, "packed", 16)
    made = quantize_artefact(source, tmp_path, plan, lambda _line: None)
    model = load_quantized(tmp_path / made.id, device=DEVICE, dtype=torch.float32)
    serving = Serving(tmp_path / made.id)
    try:
        for number, prompt in enumerate(PROMPTS):
            serving.start(str(number), prompt, min_tokens=8, logprobs=0)
        for number, prompt in enumerate(PROMPTS):
            assert serving.sink.done(str(number)).completion_tokens == 8
            ids = torch.tensor([prompt], device=DEVICE)
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=8,
                max_new_tokens=8,
                pad_token_id=0,
                eos_token_id=1,
            )
            chosen = [
                entry.token
                for event in serving.sink.of(str(number))
                for entry in getattr(event, "logprobs", ())
            ]
            table = serving.engine._table
            assert chosen == [table[token] for token in whole[0, len(prompt) :].tolist()]
    finally:
        serving.engine.close()


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_answer_with_a_structure_satisfies_it_beside_free_ones(
    plain: Serving, temperature: float
) -> None:
    structure = Structure("json_schema", SCHEMA)
    plain.start("free", PROMPTS[0])
    plain.start(
        "held", PROMPTS[1], max_tokens=60, temperature=temperature, seed=7, structure=structure
    )
    assert plain.sink.done("held").reason == "stop"
    answer = json.loads(plain.sink.text("held"))
    assert list(answer) == ["ok"]
    assert isinstance(answer["ok"], bool)
    assert plain.sink.done("free").completion_tokens > 0


def test_answer_that_must_call_does_so_in_the_form_of_its_model(plain: Serving) -> None:
    structure = Structure("calls", calls=held("hermes", forced=True, one=True))
    plain.start("call", PROMPTS[0], max_tokens=200, temperature=0.0, structure=structure)
    assert plain.sink.done("call").reason == "stop"
    assert check_calls("hermes", plain.sink.text("call")) == 1
