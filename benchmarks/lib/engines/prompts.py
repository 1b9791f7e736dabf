"""The prompts that every contender answers."""

from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

PROMPT_TOKENS: Final = 40
_TEXT: Final = (
    "The warehouse opens at seven. Lorries wait in the yard until their papers are checked, and "
    "whoever has perishable goods is called first. At the gate a clerk writes down the number "
    "plate, the weight and the name of the sender. In winter the ramps are salted before dawn; in "
    "summer the cold rooms are read every hour and the readings are kept for a year. "
)


def prompts(artefact_dir: Path, count: int) -> list[list[int]]:
    """So many prompts of ``PROMPT_TOKENS`` token ids; no two begin alike, so no cache helps."""
    tokenizer = _tokenizer(artefact_dir)
    words = (_TEXT * 2).split()
    found = []
    for number in range(count):
        shift = number % (len(words) // 2)
        text = f"{number}. " + " ".join(words[shift:] + words[:shift])
        found.append(tokenizer.encode(text, add_special_tokens=False).ids[:PROMPT_TOKENS])
    return found


def prompt_texts(artefact_dir: Path, count: int) -> list[str]:
    """The same prompts as text."""
    tokenizer = _tokenizer(artefact_dir)
    return [tokenizer.decode(ids) for ids in prompts(artefact_dir, count)]


def _tokenizer(artefact_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(artefact_dir / "tokenizer.json"))
