"""What the tokens of a vocabulary stand for, and whether text could become a control token.

Two kinds are known: byte-level ones (GPT-2, Llama 3, Qwen, DeepSeek), whose tokens are spelt in
stand-ins of bytes, and those of SentencePiece (Llama 2, Mistral, TinyLlama), whose tokens are text
with "▁" for a space, and which spell what they lack in byte tokens such as ``<0x0A>``.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from portal.core.errors import Invalid

SPACE = "▁"
_LOOKS_SPECIAL = re.compile(r"<(?:\|.+\||｜.+｜)>\Z", re.DOTALL)  # noqa: RUF001 - DeepSeek's spelling
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>\Z")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The bytes of each token, special tokens having none.

    ``drops_leading_space`` says that encoding puts a space before a text, which is not part of it.
    """

    token_bytes: dict[int, bytes]
    drops_leading_space: bool = False


def read_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Raises:
        Invalid: it is of neither kind, or lacks byte tokens.
    """
    decoder = list(_parts(tokenizer.decoder))
    if any(_is_sentencepiece(part) for part in decoder):
        return Vocabulary(_sentencepiece(tokenizer), any(_drops_space(part) for part in decoder))
    return Vocabulary(_byte_level(tokenizer))


def refuse_reachable_control(tokenizer: Tokenizer) -> None:
    """Checks that a control token which a caller writes out is encoded as ordinary text.

    Raises:
        Invalid: naming a token of which that is not true.
    """
    recognises = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    for token_id, token in tokenizer.get_added_tokens_decoder().items():
        if (
            token.special
            and token_id in tokenizer.encode(token.content, add_special_tokens=False).ids
        ):
            raise Invalid(
                f"The tokenizer makes the control token {token.content!r} out of a caller's text, "
                "so the model cannot be served."
            )
    tokenizer.encode_special_tokens = recognises


def without_reachable_control(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, changed so that no plain text becomes a control token; itself if it is safe.

    Files that were converted from SentencePiece's format have merges that make control and byte
    tokens. Others (DeepSeek's) do not mark the tokens of roles and tools as special; what looks
    like one is taken for one, as llama.cpp does (``does_token_look_special`` in its converter).
    """
    added = tokenizer.get_added_tokens_decoder().values()
    unmarked = {t.content for t in added if not t.special and _LOOKS_SPECIAL.match(t.content)}
    special = unmarked | {token.content for token in added if token.special}
    data = json.loads(tokenizer.to_str())
    for entry in data["added_tokens"]:
        entry["special"] = entry["content"] in special
    given = data["model"].get("merges", [])
    merges = given
    if any(_is_sentencepiece(part) for part in _parts(tokenizer.decoder)):
        merges = [merge for merge in given if not _makes(merge, special)]
    if not unmarked and len(merges) == len(given):
        return tokenizer
    if given:
        data["model"]["merges"] = merges
    return Tokenizer.from_str(json.dumps(data))


def without_first_prefix(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for text that is not the first of a prompt.

    Some put a space before the very beginning of a prompt only (``prepend_scheme: first``).
    """
    parts = _parts(tokenizer.pre_tokenizer)
    if not any(part.get("prepend_scheme") == "first" for part in parts):
        return tokenizer
    data = json.loads(tokenizer.to_str())
    pre_tokenizer = data["pre_tokenizer"]
    for part in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
    return Tokenizer.from_str(json.dumps(data))


def _makes(merge: str | list[str], special: set[str]) -> bool:
    made = merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
    return made in special or _BYTE_TOKEN.match(made) is not None


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """A decoder or pre-tokenizer as JSON, a sequence of them one by one."""
    if component is None:
        return
    data = json.loads(component.__getstate__())
    yield from data.get("decoders") or data.get("pretokenizers") or [data]


def _is_sentencepiece(decoder: dict[str, Any]) -> bool:
    return decoder["type"] == "Metaspace" or (
        decoder["type"] == "Replace" and decoder.get("pattern") == {"String": SPACE}
    )


def _drops_space(decoder: dict[str, Any]) -> bool:
    if decoder["type"] == "Metaspace":
        return bool(decoder.get("prepend_scheme") != "never")
    return bool(decoder["type"] == "Strip" and decoder["content"] == " " and decoder["start"] > 0)


def _sentencepiece(tokenizer: Tokenizer) -> dict[int, bytes]:
    added = tokenizer.get_added_tokens_decoder()
    found: dict[int, bytes] = {}
    bytes_told = set()
    for text, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        byte = _BYTE_TOKEN.match(text)
        if token_id in added and added[token_id].special:
            found[token_id] = b""
        elif byte is not None:
            bytes_told.add(byte[1])
            found[token_id] = bytes.fromhex(byte[1])
        else:
            found[token_id] = text.replace(SPACE, " ").encode()
    if len(bytes_told) != 256:
        raise Invalid(
            f"The vocabulary has {len(bytes_told)} of the 256 byte tokens (<0x00> to <0xFF>), so "
            "it cannot spell every text, and is not supported."
        )
    return found


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins of the 256 bytes (``bytes_to_unicode`` in its encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(256 + n): byte for n, byte in enumerate(others)}


def _byte_level(tokenizer: Tokenizer) -> dict[int, bytes]:
    alphabet = byte_alphabet()
    added = tokenizer.get_added_tokens_decoder()
    found: dict[int, bytes] = {}
    for text, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        if token_id in added:
            found[token_id] = b"" if added[token_id].special else text.encode()
            continue
        try:
            found[token_id] = bytes([alphabet[char] for char in text])
        except KeyError:
            raise Invalid(
                f"Token {token_id} of the tokenizer is neither byte-level nor SentencePiece's, so "
                "the vocabulary is not supported."
            ) from None
    return found
