"""Imports what a model that is served elsewhere leaves here: tokenizer and chat template.

With them prompts are rendered, guarded and counted before a server sees them. The weights stay
where they are served.
"""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from inference.artefacts.embedding import REMOTE_FORMAT
from inference.artefacts.manifest import Manifest
from inference.artefacts.publishing import ID_LENGTH, prompt_entries, publish, write_prompt_files
from inference.artefacts.vocabulary import read_vocabulary
from portal.core.errors import Invalid, NotFound


def import_tokenizer(
    folder: Path,
    store: Path,
    *,
    name: str,
    licence: str,
    provenance: str,
    template: str | None = None,
    context_length: int | None = None,
) -> Manifest:
    """Import the tokenizer of a Hugging Face model folder; weights in it are not read.

    The folder needs ``tokenizer.json``, and a chat template in ``chat_template.jinja`` or in
    ``tokenizer_config.json``. A second import of the same content changes nothing.

    Args:
        template: chat template; the folder's own if not given.
        context_length: most tokens that the server takes; None is the model's own, of
            ``config.json``.

    Raises:
        NotFound: a file is missing.
        Invalid: a file is malformed, or the vocabulary is not byte-level.
    """
    tokenizer = _tokenizer(folder)
    config, settings = _json(folder, "config.json"), _json(folder, "tokenizer_config.json")
    template = _template(folder, settings) if template is None else template
    length = context_length or config.get("max_position_embeddings")
    if not isinstance(length, int) or length < 1:
        raise Invalid("The model's context length is unknown; name it (--context-length).")
    ends = _end_tokens(folder, tokenizer, config, settings)
    begin = _token_id(tokenizer, settings.get("bos_token"))
    content = f"{REMOTE_FORMAT}\n{length}\n{begin}\n{ends}\n{template}\n{tokenizer.to_str()}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    architectures = config.get("architectures") or ["unknown"]

    def fill(target: Path) -> Manifest:
        write_prompt_files(target, tokenizer, template)
        return Manifest(
            id=digest[:ID_LENGTH],
            digest=digest,
            name=name,
            format=REMOTE_FORMAT,
            architecture=str(architectures[0]),
            quantization="none",
            context_length=length,
            vocab_size=tokenizer.get_vocab_size(),
            bos_token_id=begin,
            eos_token_ids=ends,
            licence=licence,
            provenance=provenance,
            kv=None,
            files=prompt_entries(target),
        )

    return publish(store, digest[:ID_LENGTH], fill)


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no tokenizer.json in {folder}.") from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as fault:
        # The tokenizers library raises bare Exception; anything else is a fault of ours.
        if type(fault) is not Exception:
            raise
        raise Invalid(f"The file tokenizer.json is malformed: {fault}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    read_vocabulary(tokenizer)
    return tokenizer


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode((folder / name).read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as fault:
        raise Invalid(f"The file {name} is malformed: {fault}") from None


def _template(folder: Path, settings: dict[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several by name
        by_name = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = by_name.get("default")
    if not isinstance(found, str):
        raise NotFound(f"There is no chat template in {folder}; give one (--chat-template).")
    return found


def _end_tokens(
    folder: Path, tokenizer: Tokenizer, config: dict[str, Any], settings: dict[str, Any]
) -> tuple[int, ...]:
    generation = _json(folder, "generation_config.json")
    found = generation.get("eos_token_id", config.get("eos_token_id"))
    listed = found if isinstance(found, list) else [found]
    own = _token_id(tokenizer, settings.get("eos_token"))
    size = tokenizer.get_vocab_size()
    ids = [own, *(i for i in listed if isinstance(i, int) and 0 <= i < size)]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def _token_id(tokenizer: Tokenizer, token: Any) -> int | None:
    """The id of a special token, which files write as a text or as an object."""
    text = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(text) if isinstance(text, str) else None
    return found
