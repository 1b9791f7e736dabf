"""Detokenising and stop strings, whatever way the text is cut."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.artefacts.tokenizer import byte_level_tokenizer
from inference.engines.text import Detokenizer, StopFilter, TokenBytes

TOKENIZER: Tokenizer = byte_level_tokenizer()
TABLE = TokenBytes(TOKENIZER)


def ids_of(text: str) -> list[int]:
    return [i for i in TOKENIZER.encode(text).ids if i > 1]


def run(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[str, int, int]:
    """Text, tokens, and the place of the stop string that was met, or -1."""
    detokenizer = Detokenizer(TABLE, stop)
    text, tokens = "", 0
    for token_id in ids:
        piece = detokenizer.push([token_id])
        assert piece.text or not piece.tokens or piece.stopped
        assert "\ufffd" not in piece.text or "\ufffd" in bytes(
            b for i in ids for b in TABLE[i]
        ).decode("utf-8", "replace")
        text += piece.text
        tokens += piece.tokens
        if piece.stopped:
            return text, tokens, piece.stop
    rest = detokenizer.finish()
    return text + rest.text, tokens + rest.tokens, rest.stop


# Marks of the vocabulary's own, which Hypothesis finds in the code, are no text to it.
@given(st.text().filter(lambda text: "<|" not in text))
def test_push_any_text_byte_by_byte_gives_it_back(text: str) -> None:
    ids = ids_of(text)
    assert run(ids) == (text, len(ids), -1)


@given(st.lists(st.integers(min_value=0, max_value=257)))
def test_push_any_tokens_equals_decoding_them_at_once(ids: list[int]) -> None:
    expected = b"".join(TABLE[i] for i in ids).decode("utf-8", "replace")
    assert run(ids) == (expected, len(ids), -1)


@given(st.text(alphabet="ab€", max_size=40), st.lists(st.text("ab€", min_size=1, max_size=4)))
def test_push_with_stops_cuts_at_the_first(text: str, stops: list[str]) -> None:
    ids = ids_of(text)
    shown, tokens, stop = run(ids, tuple(stops))
    at = [text.find(stop) for stop in stops if stop in text]
    assert (stop >= 0) == bool(at)
    if not at:
        assert (shown, tokens) == (text, len(ids))
        return
    # Generation ends with the token that completes the stop string that is complete first.
    complete = min(text.find(stop) + len(stop) for stop in stops if stop in text)
    assert tokens == len(text[:complete].encode())
    assert text.startswith(shown + stops[stop])
    assert not any(stop in shown for stop in stops)


def test_filter_holds_back_no_more_than_a_possible_stop() -> None:
    stop = StopFilter(["<end>"])
    assert stop.push("hello <e", 3).text == "hello "
    assert stop.push("x", 1).text == "<ex"


def test_filter_counts_tokens_with_their_text() -> None:
    stop = StopFilter(["zz"])
    first = stop.push("az", 1)
    assert (first.text, first.tokens) == ("a", 0)
    second = stop.push("b", 1)
    assert (second.text, second.tokens) == ("zb", 2)
