"""Builds ``tokenizer.json`` from the vocabulary inside a GGUF file.

Pre-tokenizers follow the models' own ``tokenizer.json`` files; llama.cpp names them in
``tokenizer.ggml.pre`` (``llama_vocab::impl::load`` in its llama-vocab.cpp).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from inference.artefacts.sentencepiece import Piece, build
from portal.core.errors import Invalid

_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + "|" + _TAIL % r"\p{N}{1,3}"
_QWEN2 = _CONTRACTIONS + "|" + _TAIL % r"\p{N}"
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)
# Ends of a turn or of the text that some files do not list among their end tokens.
_END_TEXTS = frozenset(
    (
        "<|im_end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<｜end▁of▁sentence｜>",  # noqa: RUF001 - DeepSeek's own spelling
    )
)


def _split(*patterns: str) -> PreTokenizer:
    parts: list[PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns
    ]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*parts, byte_level])


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


@dataclass(frozen=True, slots=True)
class _Family:
    pre_tokenizer: PreTokenizer
    nfc: bool = False
    ignore_merges: bool = False


def _families() -> dict[str, _Family]:
    gpt2, qwen2 = _Family(_gpt2()), _Family(_split(_QWEN2), nfc=True)
    return {
        "default": gpt2,
        "gpt-2": gpt2,
        "smollm": _Family(_digits()),
        "llama-bpe": _Family(_split(_LLAMA3), ignore_merges=True),
        "qwen2": qwen2,
        "deepseek-r1-qwen": qwen2,
        "deepseek-v3": _Family(_split(*_DEEPSEEK3)),
    }


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that ``tokenizer.ggml.*`` describes.

    Control tokens become special added tokens, user-defined ones plain added tokens.

    Raises:
        Invalid: another vocabulary than byte-level BPE and SentencePiece's, an unknown
            pre-tokenizer, inconsistent merges.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise Invalid(
            f"The vocabulary type {model!r} is not supported; gpt2 (BPE) and llama "
            "(SentencePiece) are."
        )
    families = _families()
    name = metadata.get("tokenizer.ggml.pre", "default")
    if model == "gpt2" and name not in families:
        known = ", ".join(sorted(families))
        raise Invalid(f"The pre-tokenizer {name!r} is not supported; {known} are.")
    try:
        return _sentencepiece(metadata) if model == "llama" else _build(metadata, families[name])
    except (KeyError, ValueError, TypeError, AttributeError) as fault:
        raise Invalid(f"The vocabulary of the GGUF file is malformed: {fault}") from None
    except Exception as fault:
        # The tokenizers library raises bare Exception; anything else is a fault of ours.
        if type(fault) is not Exception:
            raise
        raise Invalid(f"The vocabulary of the GGUF file is malformed: {fault}") from None


def _sentencepiece(metadata: Mapping[str, Any]) -> Tokenizer:
    pieces = [
        Piece(text, score, kind)
        for text, score, kind in zip(
            metadata["tokenizer.ggml.tokens"],
            metadata["tokenizer.ggml.scores"],
            metadata["tokenizer.ggml.token_type"],
            strict=True,
        )
    ]
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    return build(pieces, space_prefix=bool(prefix))


def _build(metadata: Mapping[str, Any], family: _Family) -> Tokenizer:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    if len(kinds) != len(tokens):
        raise ValueError("token types do not match tokens")
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, ignore_merges=family.ignore_merges)
    )
    if family.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = family.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer


def known_end_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the well-known control tokens that end a turn or a text."""
    added = tokenizer.get_added_tokens_decoder().items()
    return tuple(i for i, token in added if token.special and token.content in _END_TEXTS)


def end_tokens(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids that end a generation: those declared, and the well-known control tokens."""
    declared = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    found = dict.fromkeys(token_id for token_id in declared if token_id is not None)
    kinds = metadata.get("tokenizer.ggml.token_type", ())
    for token_id, token in enumerate(metadata.get("tokenizer.ggml.tokens", ())):
        if kinds[token_id] == _CONTROL and token in _END_TEXTS:
            found[token_id] = None
    return tuple(found)


BYTE_LEVEL_CONTROL = ("<|im_start|>", "<|im_end|>")


def byte_level_tokenizer() -> Tokenizer:
    """One token a byte, and ChatML's two control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: token_id for token_id, token in enumerate((*BYTE_LEVEL_CONTROL, *alphabet))
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in BYTE_LEVEL_CONTROL]
    )
    return tokenizer
