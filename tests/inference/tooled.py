"""Artefacts for the fake engine whose templates take tools: one of each format."""

import hashlib
from pathlib import Path

import msgspec
from tokenizers import AddedToken

from inference.artefacts.manifest import Manifest, file_entry
from inference.artefacts.tokenizer import byte_level_tokenizer
from inference.markers import (
    DEEPSEEK_CALL,
    DEEPSEEK_CALL_END,
    DEEPSEEK_CALLS,
    DEEPSEEK_CALLS_END,
    DEEPSEEK_SEPARATOR,
    LLAMA_CALL,
    MISTRAL_CALLS,
)

_DECLARED = (
    "{% if tools %}<|im_start|>system\nTools:\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}"
)
_PLAIN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"


def _template(calls: str, opening: str = "") -> str:
    return (
        f"{_DECLARED}{{% for m in messages %}}{{% if m.tool_calls %}}<|im_start|>assistant\n"
        f"{{{{ m.content or '' }}}}{calls}<|im_end|>\n{{% elif m.role == 'tool' %}}"
        "<|im_start|>tool {{ m.name }} {{ m.tool_call_id }}\n{{ m.content }}<|im_end|>\n"
        f"{{% else %}}{_PLAIN}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{opening}{{% endif %}}"
    )


HERMES = _template(
    "{% for c in m.tool_calls %}\n<tool_call>\n"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}"
)
# Reasoning is opened by the template, and what was thought before is left out.
THINKING = HERMES.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n"
                          "{% endif %}{# </think> #}")  # fmt: skip
LLAMA = _template(
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}"
    "{% set c = m.tool_calls[0].function %}"
    '{"name": {{ c.name | tojson }}, "parameters": {{ c.arguments | tojson }}}'
)
MISTRAL = _template(
    f"{MISTRAL_CALLS} [{{% for c in m.tool_calls %}}{{% if c.id | length != 9 %}}"
    "{{ raise_exception('nine characters') }}{% endif %}"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}, '
    '"id": {{ c.id | tojson }}}{% if not loop.last %}, {% endif %}{% endfor %}]'
)
# Arguments are put together as text, as DeepSeek's own template has it.
DEEPSEEK = _template(
    f"{DEEPSEEK_CALLS}{{% for c in m.tool_calls %}}"
    f"{{{{ '{DEEPSEEK_CALL}function{DEEPSEEK_SEPARATOR}' + c.function.name + '\n```json\n' + "
    f"c.function.arguments + '\n```{DEEPSEEK_CALL_END}' }}}}{{% endfor %}}{DEEPSEEK_CALLS_END}"
)
TEMPLATES = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "deepseek": DEEPSEEK}
CONTROL = (
    LLAMA_CALL,
    MISTRAL_CALLS,
    DEEPSEEK_CALLS,
    DEEPSEEK_CALLS_END,
    DEEPSEEK_CALL,
    DEEPSEEK_CALL_END,
    DEEPSEEK_SEPARATOR,
)


def tooled_artefact(
    store: Path, template: str, context_length: int = 4096
) -> tuple[Manifest, Path]:
    """An artefact without weights, a token a byte; marks of calls are control tokens."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens(
        [AddedToken(mark, special=True, normalized=False) for mark in CONTROL]
    )
    content = f"tooled\n{template}\n{tokenizer.to_str()}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    folder = store / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    manifest = Manifest(
        id=digest[:16],
        digest=digest,
        name="tooled",
        format="byte_level",
        architecture="none",
        quantization="none",
        context_length=4096,
        vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=None,
        eos_token_ids=(1,),
        licence="none",
        provenance="generated",
        kv=None,
        files={n: file_entry(folder / n) for n in ("tokenizer.json", "chat_template.jinja")},
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return manifest, folder
