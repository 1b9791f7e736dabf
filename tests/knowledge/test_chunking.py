"""Passages: nothing of a text is lost, none is too long, and each takes up the last one's end."""

from hypothesis import given
from hypothesis import strategies as st

from knowledge.chunking import OVERLAP, UNITS, passages, units
from knowledge.words import words_of

_TEXTS = st.lists(
    st.sampled_from(
        ["发票必须在月底之前提交。", "A short one. ", "税", "x" * 700, "\n\n", "What? "]
    ),
    max_size=120,
).map("".join)


@given(_TEXTS)
def test_cut_any_text_keeps_every_word_and_the_bound(text: str) -> None:
    found = list(passages(text))
    assert all(0 < units(passage) <= UNITS for passage in found)
    kept = "".join(found)
    assert all(sentence in kept for sentence in ("税", "A short one.") if sentence in text)
    assert text.count("税") <= kept.count("税")


def test_cut_a_text_of_sentences_overlaps_by_whole_sentences() -> None:
    first, second, *_ = passages("".join(f"Sentence number {n} of them. " for n in range(200)))
    shared = first[first.rindex("Sentence") :]
    assert second.startswith("Sentence")
    assert shared in second[: int(OVERLAP / 0.3)]


def test_cut_paragraphs_keeps_short_ones_together() -> None:
    assert list(passages("One.\n\n\nTwo.")) == ["One.\n\nTwo."]


def test_segment_chinese_makes_pairs_and_english_makes_words() -> None:
    words = words_of("The XJ-900 报销流程 在 \uff21BC")
    assert words.plain == "the xj 900 abc"
    assert words.pairs == ("报销", "销流", "流程")
    assert words.singles == ("在",)
