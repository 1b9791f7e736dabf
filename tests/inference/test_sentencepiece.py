"""SentencePiece's vocabularies: text comes back whole, and never becomes a control token."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from inference.artefacts import import_gguf, load_manifest
from inference.artefacts.sentencepiece import build, read_model
from inference.artefacts.vocabulary import refuse_reachable_control, without_reachable_control
from inference.engines.base import Message
from inference.engines.text import Detokenizer, TokenBytes
from inference.prompts import PromptEncoder
from portal.core.errors import Invalid
from tests.inference.gguf_files import write_sentencepiece_gguf
from tests.inference.model_folders import pieces, tokenizer_model

CONTROL = 3  # <unk>, <s>, </s>
CHAT = (
    "{% for m in messages %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{{ eos_token }}{% endfor %}"
)
# "▁" itself is how these vocabularies write a space: it can't come back.
TEXT = st.lists(
    st.one_of(
        st.sampled_from(["<s>", "</s>", "<unk>", "<0x0A>", "<", "s>", " ", "  ", "\n", "hello"]),
        st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=4),
    ),
    max_size=8,
).map("".join)
TOKENIZER = build(pieces())
TABLE = TokenBytes(TOKENIZER)


def shown(table: TokenBytes, ids: list[int], *, continues: bool = False) -> str:
    detokenizer = Detokenizer(table, continues=continues)
    pushed = [detokenizer.push([token_id]) for token_id in ids]
    rest = detokenizer.finish()
    assert sum(piece.tokens for piece in pushed) + rest.tokens == len(ids)
    return "".join(piece.text for piece in pushed) + rest.text


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    folder = tmp_path_factory.mktemp("sentencepiece")
    vocabulary = pieces(user_defined=())
    source = write_sentencepiece_gguf(folder / "tiny.gguf", vocabulary, template=CHAT)
    manifest = import_gguf(source, folder / "store", name="t", licence="MIT", provenance="t")
    return PromptEncoder.load(folder / "store" / manifest.id)


@given(TEXT)
def test_decode_what_was_encoded_gives_it_back(encoder: PromptEncoder, text: str) -> None:
    ids = encoder.encode_raw([Message("", text)])
    assert [i for i in ids if i < CONTROL] == []
    assert shown(TABLE, ids) == text
    assert len(text) <= encoder.max_chars(len(ids))


@given(st.lists(TEXT, min_size=1, max_size=3))
def test_encode_messages_has_only_the_templates_control_tokens(
    encoder: PromptEncoder, texts: list[str]
) -> None:
    ids = encoder.encode([Message("user", text) for text in texts])
    assert [i for i in ids if i < CONTROL] == [1, 2] * len(texts)
    expected = "".join(f" [INST] {text} [/INST]" for text in texts)
    assert shown(TABLE, ids, continues=True) == expected


@pytest.mark.parametrize("user_defined", [(), ("[INST]",)])
def test_encode_equals_transformers(tmp_path: Path, user_defined: tuple[str, ...]) -> None:
    from transformers import PreTrainedTokenizerFast

    vocabulary = pieces(user_defined=user_defined)
    source = write_sentencepiece_gguf(tmp_path / "tiny.gguf", vocabulary, template=CHAT)
    store = tmp_path / "store"
    artefact = import_gguf(source, store, name="t", licence="MIT", provenance="t")
    encoder = PromptEncoder.load(store / artefact.id)
    reference = PreTrainedTokenizerFast(
        tokenizer_object=build(vocabulary), bos_token="<s>", eos_token="</s>", chat_template=CHAT
    )
    for text in ("hello world", " hello", "a\n\nthe  é 漢", "x"):
        turns = [{"role": "user", "content": text}] * 2
        ids = reference.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert encoder.encode([Message(turn["role"], turn["content"]) for turn in turns]) == ids


def test_encode_with_prefix_of_the_first_text_only_equals_transformers(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = build(pieces(), space_prefix=False)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    source = write_sentencepiece_gguf(tmp_path / "tiny.gguf", pieces(), template=CHAT)
    store = tmp_path / "store"
    artefact = store / import_gguf(source, store, name="t", licence="l", provenance="p").id
    manifest = load_manifest(artefact)
    reference = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_str()), bos_token="<s>", eos_token="</s>"
    )
    for template in (CHAT, "hello {{ bos_token }}hello {{ messages[0].content }}"):
        encoder = PromptEncoder(manifest, Tokenizer.from_str(tokenizer.to_str()), template)
        ids = reference.apply_chat_template(
            [{"role": "user", "content": "hello"}], chat_template=template, return_dict=False
        )
        assert encoder.encode([Message("user", "hello")]) == ids


def test_detokenize_an_answer_has_no_space_before_it_but_a_continuation_has() -> None:
    vocabulary = TOKENIZER.get_vocab()
    ids = [vocabulary["▁hello"], vocabulary["▁world"]]
    assert shown(TABLE, ids) == "hello world"
    assert shown(TABLE, ids, continues=True) == " hello world"
    assert shown(TABLE, [2, *ids]) == "hello world"


def test_detokenize_byte_tokens_shows_whole_characters() -> None:
    euro = [3 + byte for byte in "€".encode()]
    detokenizer = Detokenizer(TABLE)
    assert [detokenizer.push([i]).text for i in euro] == ["", "", "€"]
    assert shown(TABLE, euro[:2]) == "�"


@settings(deadline=None)
@given(st.data())
def test_read_any_bytes_as_tokenizer_model_is_refused_or_read(data: st.DataObject) -> None:
    whole = tokenizer_model(pieces()[250:280])
    at = data.draw(st.integers(0, len(whole) - 1))
    content = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.just(whole[:at]),
            st.binary(max_size=3).map(lambda noise: whole[:at] + noise + whole[at + 1 :]),
        )
    )
    with suppress(Invalid):
        read_model(content)


def test_merges_into_control_and_byte_tokens_are_taken_out() -> None:
    data = json.loads(TOKENIZER.to_str())
    data["model"]["merges"] += [["<s", ">"], ["<0x", "0A>"], ["<", "/s>"]]
    hostile = Tokenizer.from_str(json.dumps(data))
    with pytest.raises(Invalid, match="control token '</?s>'"):
        refuse_reachable_control(hostile)
    safe = without_reachable_control(hostile)
    refuse_reachable_control(safe)
    assert (
        json.loads(safe.to_str())["model"]["merges"]
        == json.loads(TOKENIZER.to_str())["model"]["merges"]
    )
    assert without_reachable_control(safe) is safe


def test_load_a_tokenizer_that_makes_control_tokens_is_refused(tmp_path: Path) -> None:
    source = write_sentencepiece_gguf(tmp_path / "tiny.gguf", pieces(), template=CHAT)
    store = tmp_path / "store"
    artefact = store / import_gguf(source, store, name="t", licence="l", provenance="p").id
    data = json.loads((artefact / "tokenizer.json").read_text())
    data["model"]["merges"] += [["<", "s>"]]
    (artefact / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(Invalid, match="control token '<s>'"):
        PromptEncoder.load(artefact)
