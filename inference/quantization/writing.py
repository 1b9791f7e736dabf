"""Makes artefacts with packed weights of artefacts without, and measures them while doing so."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from inference.artefacts import FileEntry, Manifest, verify
from inference.artefacts.manifest import file_entry
from inference.artefacts.publishing import link, publish
from inference.quantization.description import (
    DESCRIPTION,
    LAYOUT,
    Description,
    Kind,
    ModuleScheme,
    Quality,
)
from inference.quantization.fp8_checkpoints import FP8_METHODS
from inference.quantization.packing import Packed, quantize
from inference.quantization.published import load_published, publishers_format
from inference.quantization.quality import Progress, agreement, read, text_digest, windows
from inference.quantization.shards import write_tensors
from inference.quantization.skeleton import quantizable, replace_modules
from portal.core.errors import Invalid

GROUP_SIZES = {"int8": 32, "int4": 32}
"""Methods, and the columns that share a scale if nothing else is asked for."""
_WINDOW = 512
_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".gguf", ".bin", ".pt")
_MOST_GROUP = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for.

    Args:
        method: a key of ``GROUP_SIZES``.
        group_size: columns that share a scale, an even number from 16 to 1024.
        text: what quality is measured on.
        name: of the new artefact; the source's with the method if empty.
        most_tokens: of the text; 0 reads all of it.
    """

    method: str
    group_size: int
    text: str
    name: str = ""
    most_tokens: int = 0

    def scheme(self, kind: Kind) -> ModuleScheme:
        """How a module is packed. Embedding and head keep 8 bits: they are the most sensitive."""
        bits = 4 if self.method == "int4" and kind in ("linear", "experts") else 8
        return ModuleScheme(kind, bits, self.group_size)


def quantize_artefact(source: Path, store: Path, plan: Plan, progress: Progress) -> Manifest:
    """Writes the quantized artefact into the store; the same plan again changes nothing.

    Raises:
        NotFound, Invalid: the source is damaged, not safetensors, or quantized already.
    """
    manifest = check_source(source, plan)
    identity = [LAYOUT, manifest.digest, plan.method, plan.group_size, plan.name, plan.most_tokens]
    content = msgspec.json.encode([*identity, text_digest(plan.text)])

    artefact_id = hashlib.sha256(content).hexdigest()[:16]

    def fill(folder: Path) -> Manifest:
        progress("load the weights as fp32")
        model = load_reference(source)
        pieces = pieces_of(source, model, plan)
        description, size = _write(model, folder, manifest, plan, pieces, progress)
        progress(f"wrote {size / 2**20:,.1f} MiB")
        made = describe(source, folder, manifest, description, plan.name)
        return msgspec.structs.replace(made, id=artefact_id)

    return publish(store, artefact_id, fill)


def repack_artefact(source: Path, store: Path, progress: Progress) -> Manifest:
    """Writes what a publisher quantized with GPTQ or AWQ in our layout, with the same weights.

    Nothing is measured: the weights before quantization are the publisher's.

    Raises:
        NotFound, Invalid: the source is damaged, or of another format.
    """
    manifest = verify(source)
    settings = publishers_format(source) or {}
    method = settings.get("quant_method")
    if method in FP8_METHODS or DESCRIPTION in manifest.files:
        raise Invalid(f"The artefact {manifest.name} is loaded as it is; there is nothing to do.")
    content = f"repack\n{LAYOUT}\n{manifest.digest}"
    artefact_id = hashlib.sha256(content.encode()).hexdigest()[:16]

    def fill(folder: Path) -> Manifest:
        progress(f"repack {manifest.name}")
        own = AutoConfig.from_pretrained(source, local_files_only=True).dtype or torch.float16
        model, schemes = load_published(source, device=torch.device("cpu"), dtype=own)
        size = write_tensors(folder, state(model))
        progress(f"wrote {size / 2**20:,.1f} MiB")
        group_size = max((scheme.group_size for scheme in schemes.values()), default=0)
        description = Description(
            LAYOUT, str(method), group_size, "publisher", manifest.digest, schemes
        )
        made = describe(source, folder, manifest, description, "")
        return msgspec.structs.replace(made, id=artefact_id)

    return publish(store, artefact_id, fill)


def check_source(source: Path, plan: Plan) -> Manifest:
    """The manifest of an artefact that a plan can be carried out with.

    Raises:
        NotFound, Invalid: as ``quantize_artefact``.
    """
    if plan.method not in GROUP_SIZES:
        raise Invalid(f"'method' must be one of {', '.join(GROUP_SIZES)}.", param="method")
    if plan.group_size % 2 or not 16 <= plan.group_size <= _MOST_GROUP:
        raise Invalid(
            f"'group_size' must be an even number from 16 to {_MOST_GROUP}.", param="group_size"
        )
    manifest = verify(source)
    if manifest.format != "safetensors":
        raise Invalid(f"The artefact {manifest.name} is {manifest.format}, not safetensors.")
    if DESCRIPTION in manifest.files or publishers_format(source) is not None:
        raise Invalid(f"The artefact {manifest.name} is quantized already.")
    return manifest


def load_reference(source: Path) -> PreTrainedModel:
    """The model in fp32.

    Raises:
        Invalid: transformers cannot load it.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, local_files_only=True
        )
    except (ValueError, OSError, KeyError) as fault:
        raise Invalid(f"The model in {source} cannot be loaded: {fault}") from None
    model.eval()
    return model


def pieces_of(source: Path, model: PreTrainedModel, plan: Plan) -> list[Tensor]:
    """A plan's text in pieces that the model reads one by one.

    Raises:
        Invalid: it is too short.
    """
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    ids = tokenizer.encode(plan.text, add_special_tokens=False).ids
    config = model.config.get_text_config()
    length = min(_WINDOW, getattr(config, "max_position_embeddings", _WINDOW))
    return windows(ids[: plan.most_tokens or None], length=length)


def _write(
    model: PreTrainedModel,
    folder: Path,
    source: Manifest,
    plan: Plan,
    pieces: list[Tensor],
    progress: Progress,
) -> tuple[Description, int]:
    """Measures, packs module by module, measures again and writes; gives bytes of weights."""
    before = fp32_bytes(model)
    reference = read(model, pieces, prefixed(progress, "fp32"))
    schemes = pack(model, plan.scheme, progress)
    answers = read(model, pieces, prefixed(progress, plan.method))
    size = write_tensors(folder, state(model))
    quality = Quality(
        size_ratio=size / before,
        perplexity=answers.perplexity,
        reference_perplexity=reference.perplexity,
        top1_agreement=agreement(reference, answers),
        tokens=len(answers.likeliest),
        text_sha256=text_digest(plan.text),
    )
    description = Description(
        LAYOUT, plan.method, plan.group_size, "platform", source.digest, schemes, quality
    )
    return description, size


def prefixed(progress: Progress, name: str) -> Progress:
    """Says a name before each line."""
    return lambda words: progress(f"{name}: {words}")


def fp32_bytes(model: PreTrainedModel) -> int:
    """What a model's weights take in fp32; shared ones count once."""
    return 4 * sum(parameter.numel() for parameter in model.parameters())


def pack(
    model: PreTrainedModel, scheme_of: Callable[[Kind], ModuleScheme], progress: Progress
) -> dict[str, ModuleScheme]:
    """Replaces each module that can be quantized; gives how they are packed."""
    found = {name: scheme_of(kind) for name, kind in quantizable(model)}
    # What is tied follows the embedding, whose weights it shares.
    ordered = sorted(found, key=lambda name: found[name].kind == "tied")
    for number, name in enumerate(ordered, 1):
        scheme = found[name]
        packed = dict(_packed(model, name, scheme))
        replace_modules(model, {name: scheme}, packed)
        if number % 50 == 0 or number == len(ordered):
            progress(f"packed {number} of {len(ordered)} modules")
    return found


def _packed(
    model: PreTrainedModel, name: str, scheme: ModuleScheme
) -> Iterable[tuple[str, Packed]]:
    module = model.get_submodule(name)
    if scheme.kind == "tied":
        return
    weights = {"packed": "weight"}
    if scheme.kind == "experts":
        weights = {part: part for part in ("gate_up_proj", "down_proj")}
    for part, attribute in weights.items():
        weight = getattr(module, attribute).detach()
        if not bool(torch.isfinite(weight).all()):
            raise Invalid(f"The weights of {name} hold infinities or no numbers.")
        yield f"{name}.{part}", quantize(weight, bits=scheme.bits, group_size=scheme.group_size)


def state(model: PreTrainedModel) -> Iterable[tuple[str, Tensor]]:
    """Tensors as they are written; those that modules share come once, under their first name."""
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def describe(
    source: Path, folder: Path, manifest: Manifest, description: Description, name: str
) -> Manifest:
    """Adds what else an artefact has to a folder of weights; gives its manifest but for the id."""
    (folder / DESCRIPTION).write_bytes(
        msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"
    )
    for file in manifest.files:
        if "/" not in file and not file.endswith(_WEIGHT_SUFFIXES):
            link(source / file, folder / file)
    _forget_publishers_format(folder / "config.json")
    files = {path.name: file_entry(path) for path in sorted(folder.iterdir())}
    return msgspec.structs.replace(
        manifest,
        id="",
        digest=_digest(files),
        name=name or f"{manifest.name}-{description.method}",
        quantization=description.label,
        files=files,
    )


def _forget_publishers_format(config: Path) -> None:
    """Another library's description of packed weights would be believed where ours stands."""
    content = msgspec.json.decode(config.read_bytes())
    if content.pop("quantization_config", None) is not None:
        config.unlink()  # it may be a hard link to the source's
        config.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))


def _digest(files: dict[str, FileEntry]) -> str:
    """SHA-256 of the weights; of several files, of their digests in the order of their names."""
    digests = [entry.sha256 for name, entry in files.items() if name.endswith(".safetensors")]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
