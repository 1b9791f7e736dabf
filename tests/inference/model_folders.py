"""Writes tiny model folders as Hugging Face lays them out, and tiny SentencePiece vocabularies."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.artefacts.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Piece
from inference.artefacts.tokenizer import byte_level_tokenizer

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 256,
    "vocab_size": 258,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "torch_dtype": "bfloat16",
    "eos_token_id": 1,
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
README = "---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n"


def write_safetensors(path: Path, tensors: Sequence[str], *, values: int = 4) -> Path:
    """A file with float32 vectors of zeros."""
    size = 4 * values
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for n, name in enumerate(tensors):
        place = [n * size, (n + 1) * size]
        header[name] = {"dtype": "F32", "shape": [values], "data_offsets": place}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size * len(tensors)))
    return path


def write_folder(folder: Path, *, shards: Mapping[str, Sequence[str]] | None = None) -> Path:
    """A folder with everything that a model needs; two shards if none are named."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0}))
    (folder / "tokenizer.json").write_text(byte_level_tokenizer().to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "README.md").write_text(README)
    if shards is None:
        shards = {
            "model-00001-of-00002.safetensors": ["a", "b"],
            "model-00002-of-00002.safetensors": ["c"],
        }
    for name, tensors in shards.items():
        write_safetensors(folder / name, tensors)
    places = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


_TEXTS = (
    "▁", *"abcdehlorstw<>/|[]0xAINS1é", "▁h", "el", "lo", "ello", "▁hello", "▁w", "or", "ld",
    "▁world", "▁▁", "▁▁▁▁", "s>", "<s", "/s>", "0x", "<0x", "0A", "0A>", "th", "the", "▁the",
)  # fmt: skip


def pieces(*, user_defined: Sequence[str] = ("[INST]",)) -> list[Piece]:
    """A vocabulary like Llama 2's, with parts of which its control tokens could be made."""
    found = [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)]
    found += [Piece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    found += [Piece(text, -float(n), NORMAL) for n, text in enumerate(dict.fromkeys(_TEXTS))]
    return [*found, *(Piece(text, 0.0, USER_DEFINED) for text in user_defined)]


def tokenizer_model(vocabulary: Sequence[Piece], *, model_type: int = 2) -> bytes:
    """A ``tokenizer.model``: pieces, and a trainer that says how they are put together."""
    content = b"".join(
        _message(
            1,
            _message(1, piece.text.encode())
            + b"\x15"
            + struct.pack("<f", piece.score)
            + b"\x18"
            + _varint(piece.kind),
        )
        for piece in vocabulary
    )
    return content + _message(2, b"\x18" + _varint(model_type))


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
