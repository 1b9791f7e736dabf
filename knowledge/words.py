"""Words of a text as they are searched: segmented here, because PostgreSQL can't for Chinese.

``to_tsvector('simple', ...)`` makes one lexeme of a whole Chinese sentence. So runs of Chinese,
Japanese and Korean characters become overlapping pairs (as Lucene's CJK analyser makes them), which
need no dictionary and find every word of two characters or more; everything else is handed to
PostgreSQL word by word, which stems it as English.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

_CJK: Final = (
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_RUNS: Final = re.compile(rf"([{_CJK}]+)|((?:(?![{_CJK}])[^\W_])+)")
_MOST_WORD_CHARS: Final = 100
MOST_QUERY_WORDS: Final = 64


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text.

    Attributes:
        plain: words in alphabets, folded, with blanks between; PostgreSQL stems them.
        pairs: pairs of CJK characters.
        singles: CJK characters that stand alone.
    """

    plain: str
    pairs: tuple[str, ...]
    singles: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.plain or self.pairs or self.singles)


def words_of(text: str, *, most: int | None = None) -> Words:
    """The words of a text, each pair and single once.

    Args:
        most: no more than so many of each kind; a query needs no more.
    """
    plain: list[str] = []
    pairs: dict[str, None] = {}
    singles: dict[str, None] = {}
    for run, word in _RUNS.findall(unicodedata.normalize("NFKC", text).casefold()):
        if word:
            plain.append(word[:_MOST_WORD_CHARS])
        elif len(run) == 1:
            singles[run] = None
        else:
            pairs |= dict.fromkeys(run[n : n + 2] for n in range(len(run) - 1))
    return Words(" ".join(plain[:most]), tuple(pairs)[:most], tuple(singles)[:most])


def count_cjk(text: str) -> int:
    """How many characters are of scripts that are written without blanks between words."""
    return len(text) - len(_CJK_RUN.sub("", text))


_CJK_RUN: Final = re.compile(f"[{_CJK}]+")
