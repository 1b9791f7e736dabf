"""Builds ``tokenizer.json`` from pieces and scores: SentencePiece's BPE, as Llama 2 has it.

They stand in ``tokenizer.model``, a protocol buffer (``ModelProto`` in SentencePiece's
sentencepiece_model.proto), and in GGUF files whose ``tokenizer.ggml.model`` is ``llama``.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from inference.artefacts.vocabulary import SPACE
from portal.core.errors import Invalid

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_BPE = 2  # TrainerSpec.model_type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; its place is its id. Of merges the highest score is first."""

    text: str
    score: float
    kind: int = NORMAL


def build(pieces: Sequence[Piece], *, space_prefix: bool = True) -> Tokenizer:
    """The tokenizer of a vocabulary, byte tokens standing for what it lacks.

    Only normal pieces are made by merges, so that no text becomes a control or byte token.
    """
    vocabulary = {piece.text: token_id for token_id, piece in enumerate(pieces)}
    unknown = next((piece.text for piece in pieces if piece.kind == UNKNOWN), None)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(pieces),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", SPACE)
    prefix = [normalizers.Prepend(SPACE)] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, spaces])
    strip = [decoders.Strip(" ", 1, 0)] if space_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_tokens(
        [
            AddedToken(piece.text, special=piece.kind != USER_DEFINED, normalized=False)
            for piece in pieces
            if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer


def _merges(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, best score first, as transformers converts them."""
    ids = {piece.text: n for n, piece in enumerate(pieces) if piece.kind == NORMAL}
    found = [
        (-pieces[token_id].score, ids[left], ids[right], (left, right))
        for text, token_id in ids.items()
        for left, right in ((text[:n], text[n:]) for n in range(1, len(text)))
        if left in ids and right in ids
    ]
    return [pair for *_, pair in sorted(found)]


def read_model(content: bytes) -> Tokenizer:
    """The tokenizer of a ``tokenizer.model``.

    Raises:
        Invalid: malformed, or no BPE with byte tokens.
    """
    pieces: list[Piece] = []
    model_type: int | bytes = 1
    space_prefix = True
    try:
        for number, value in _fields(content):
            if number == 1:
                pieces.append(_piece(_message(value)))
            elif number == 2:
                model_type = dict(_fields(_message(value))).get(3, 1)
            elif number == 3:
                space_prefix = bool(dict(_fields(_message(value))).get(3, 1))
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as fault:
        raise Invalid(f"tokenizer.model is malformed: {fault}.") from None
    if model_type != _BPE:
        raise Invalid("tokenizer.model is no BPE model; bring the model's tokenizer.json instead.")
    return build(pieces, space_prefix=space_prefix)


def _piece(content: bytes) -> Piece:
    fields = dict(_fields(content))
    (score,) = struct.unpack("<f", _message(fields.get(2, bytes(4))))
    kind = fields.get(3, NORMAL)
    if not isinstance(kind, int):
        raise TypeError("the type of a piece is no number")
    return Piece(_message(fields[1]).decode(), score, kind)


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a field is a number where a message belongs")
    return value


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field has the unknown type {kind}")
        if size > len(content) - at:
            raise ValueError("it is truncated")
        yield number, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
