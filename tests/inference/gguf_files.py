"""Writes tiny GGUF files with the format's reference library."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel

from inference.artefacts.sentencepiece import Piece

CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
THINK = "<think>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_gguf(
    path: Path,
    *,
    pre: str = "gpt-2",
    model: str = "gpt2",
    template: str | None = TEMPLATE,
    merges: tuple[str, ...] = ("h e", "l l", "he ll", "hell o", "Ġ hello", "1 2"),
) -> Path:
    """A one-layer file with a byte vocabulary, a few merges, three control tokens, one plain."""
    merged = ["".join(merge.split(" ")) for merge in merges]
    plain = [*sorted(ByteLevel.alphabet()), *merged]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_file_type(0)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*CONTROL, THINK, *plain])
    writer.add_token_types([3] * len(CONTROL) + [4] + [1] * len(plain))
    writer.add_token_merges(list(merges))
    writer.add_eos_token_id(1)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_sentencepiece_gguf(path: Path, pieces: Sequence[Piece], *, template: str) -> Path:
    """A one-layer file with a vocabulary as Llama 2's, <s> and </s> being tokens 1 and 2."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.text for piece in pieces])
    writer.add_token_scores([piece.score for piece in pieces])
    writer.add_token_types([piece.kind for piece in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
