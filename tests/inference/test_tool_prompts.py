"""Prompts with tools: what templates take, and no control token from what a caller declares."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.artefacts import import_gguf, shipped_gguf
from inference.engines.base import Message, ToolCall
from inference.engines.text import TokenBytes
from inference.markers import DEEPSEEK_CALL, THINK
from inference.payloads import Prompt, fingerprint_text, pack_prompt, unpack_prompt
from inference.prompts import PromptEncoder
from portal.core.errors import Invalid
from tests.inference.test_prompts import FRAGMENTS
from tests.inference.tooled import CONTROL, HERMES, TEMPLATES, THINKING, tooled_artefact

MARKS = st.sampled_from([*CONTROL, "<|im_start|>", "<|im_end|>", THINK, "<｜tool▁", "｜>"])  # noqa: RUF001
HOSTILE = st.lists(FRAGMENTS | MARKS, max_size=4).map("".join)
VALUES = st.recursive(
    HOSTILE | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(HOSTILE, inner, max_size=2),
    max_leaves=5,
)
OBJECTS = st.dictionaries(HOSTILE, VALUES, max_size=3)


@pytest.fixture(scope="module", params=TEMPLATES)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def encoder(form: str, tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return encoder_of(tmp_path_factory.mktemp(form), TEMPLATES[form])


def encoder_of(store: Path, template: str) -> PromptEncoder:
    return PromptEncoder.load(tooled_artefact(store, template)[1])


def declared(**function: Any) -> str:
    return json.dumps([{"type": "function", "function": function}])


def control_ids(encoder: PromptEncoder, ids: list[int]) -> list[int]:
    control = set(encoder._control.ids.values())
    return [i for i in ids if i in control]


def written(encoder: PromptEncoder, ids: list[int]) -> str:
    text: str = encoder._tokenizer.decode(ids, skip_special_tokens=False)
    return text


def test_load_a_template_finds_out_how_its_model_calls(encoder: PromptEncoder, form: str) -> None:
    assert encoder.tool_format == form
    assert not encoder.reasons


def test_load_the_shipped_model_finds_no_tools(tmp_path: Path) -> None:
    manifest = import_gguf(shipped_gguf(), tmp_path, name="s", licence="s", provenance="s")
    shipped = PromptEncoder.load(tmp_path / manifest.id)
    assert (shipped.tool_format, shipped.reasons) == ("", False)


@pytest.mark.parametrize(
    "template",
    [
        HERMES.replace("{% if tools %}", "{% if false %}"),
        HERMES.replace("<tool_call>", "<call>"),
        HERMES.replace("m.role == 'tool'", "m.role == 'never'").replace("{{ m.content }}", ""),
        HERMES.replace("{% if m.tool_calls %}", "{% if m.tool_calls %}{{ raise_exception('no') }}"),
    ],
    ids=["no declarations", "another form", "no results", "refused"],
)
def test_load_a_template_that_takes_tools_by_half_finds_none(tmp_path: Path, template: str) -> None:
    assert encoder_of(tmp_path, template).tool_format == ""


@given(name=HOSTILE, description=HOSTILE, schema=OBJECTS, arguments=OBJECTS, texts=st.data())
def test_encode_any_tools_and_calls_has_only_the_templates_control_tokens(
    encoder: PromptEncoder,
    name: str,
    description: str,
    schema: dict[str, Any],
    arguments: dict[str, Any],
    texts: st.DataObject,
) -> None:
    said, called, result = (texts.draw(HOSTILE) for _ in range(3))
    # Mistral's template takes ids of its own form alone, so that others are refused.
    last = "1" if encoder.tool_format == "mistral" else texts.draw(HOSTILE)
    call_id = f"abcdefgh{last}"

    def prompt(*, hostile: bool) -> list[int]:
        call = ToolCall(
            call_id,
            called if hostile else "f",
            json.dumps(arguments if hostile else {}, ensure_ascii=False),
        )
        turns = [
            Message("user", said if hostile else "q"),
            Message("assistant", said if hostile else "", (call,)),
            Message("tool", result if hostile else "r", call_id=call_id),
        ]
        function = {"name": name, "description": description, "parameters": schema}
        tools = declared(**function) if hostile else declared(name="f")
        return encoder.encode(turns, tools)

    hostile = prompt(hostile=True)
    assert control_ids(encoder, hostile) == control_ids(encoder, prompt(hostile=False))
    assert said in written(encoder, hostile)
    assert result in written(encoder, hostile)


def test_encode_tools_hands_them_over_as_transformers_does(encoder: PromptEncoder) -> None:
    call = ToolCall("abcdefgh1", "get", '{"city": "Köln"}')
    turns = [
        Message("user", "q"),
        Message("assistant", "", (call,)),
        Message("tool", "18", call_id=call.id),
    ]
    text = written(encoder, encoder.encode(turns, declared(name="get", description="é")))
    assert '{"type": "function", "function": {"name": "get", "description": "é"}}' in text
    assert '{"city": "Köln"}' in text
    assert "tool get abcdefgh1\n18" in text
    assert "None" not in text


def test_encode_without_tools_is_what_it_was(encoder: PromptEncoder) -> None:
    text = written(encoder, encoder.encode([Message("user", "q")]))
    assert text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"


def test_opens_reasoning_where_the_template_did(tmp_path: Path) -> None:
    thinking = encoder_of(tmp_path / "a", THINKING)
    assert thinking.reasons
    assert thinking.opens_reasoning(thinking.encode([Message("user", "q")]))
    plain = encoder_of(tmp_path / "b", HERMES + "{# <think></think> #}")
    assert plain.reasons
    assert not plain.opens_reasoning(plain.encode([Message("user", "q")]))


def test_encode_a_vocabulary_with_a_backslash_in_a_control_token_takes_no_tools(
    tmp_path: Path,
) -> None:
    _, folder = tooled_artefact(tmp_path, HERMES)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"<|python_tag|>"', '"<|py\\\\tag|>"'))
    assert PromptEncoder.load(folder).tool_format == ""


def test_encode_tools_that_the_template_refuses_is_invalid(tmp_path: Path) -> None:
    llama = encoder_of(tmp_path, TEMPLATES["llama"])
    two = (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))
    with pytest.raises(Invalid, match="one call at a time"):
        llama.encode([Message("user", "q"), Message("assistant", "", two)], declared(name="f"))


def test_pack_a_prompt_with_calls_gives_it_back_and_without_them_is_as_before() -> None:
    call = ToolCall("a", "f", '{"x": 1}')
    turns = (
        Message("user", "q"),
        Message("assistant", "", (call,)),
        Message("tool", "r", call_id="a"),
    )
    assert unpack_prompt(pack_prompt(Prompt([1, 2], turns))) == Prompt([1, 2], turns)
    plain = Prompt([1], turns[:1])
    assert fingerprint_text(plain) == b'[["user","q"]]'
    # As a release without tools packed it.
    assert pack_prompt(plain) == b"\x94\xc4\x04\x01\x00\x00\x00\x91\x92\xa4user\xa1q\x90\xc0"
    assert fingerprint_text(Prompt([1], turns)) != fingerprint_text(
        Prompt([1], (*turns[:2], Message("tool", "r", call_id="b")))
    )


def test_show_marks_of_calls_only_to_requests_with_tools(tmp_path: Path) -> None:
    _, folder = tooled_artefact(tmp_path, HERMES)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    table = TokenBytes(tokenizer)
    mark, end = (tokenizer.get_vocab()[t] for t in (DEEPSEEK_CALL, "<|im_end|>"))
    assert table.for_tools("")[mark] == b""
    assert table.for_tools("[1]")[mark] == DEEPSEEK_CALL.encode()
    assert table.for_tools("[1]")[end] == table[end] == b""
    assert table.for_tools("[1]") is table.for_tools("[2]")


def test_show_marks_of_reasoning_that_are_control_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tooled_artefact(tmp_path, HERMES)[1] / "tokenizer.json"))
    tokenizer.add_special_tokens([THINK])
    assert TokenBytes(tokenizer)[tokenizer.get_vocab()[THINK]] == THINK.encode()
