"""``quantization.json``: what an artefact's packed weights are, and how good they were measured."""

from pathlib import Path
from typing import Literal

import msgspec

from inference.artefacts import load_manifest
from inference.artefacts.manifest import file_entry
from portal.core.errors import Invalid

DESCRIPTION = "quantization.json"
LAYOUT = 1
"""Rises when packed weights are laid out anew; a folder of another layout is refused."""

Kind = Literal["linear", "embedding", "experts", "tied"]


class ModuleScheme(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one module's weights are packed.

    Args:
        kind: ``tied`` is an output layer that shares the weights of the embedding.
        bits: 8 or 4.
        group_size: columns that share a scale.
    """

    kind: Kind
    bits: int
    group_size: int


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantized model beside the same model in fp32, on a text; both computed in fp32.

    Args:
        size_ratio: bytes of weights over the bytes of the same weights in fp32.
        perplexity: of the quantized model.
        reference_perplexity: of the model in fp32.
        top1_agreement: share of places, 0 to 1, where both models' likeliest token is the same.
        tokens: how many places were compared.
        text_sha256: of the text, hex.
    """

    size_ratio: float
    perplexity: float
    reference_perplexity: float
    top1_agreement: float
    tokens: int
    text_sha256: str

    @property
    def perplexity_change(self) -> float:
        """Relative: .01 is one per cent more than the reference."""
        return self.perplexity / self.reference_perplexity - 1


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content.

    Args:
        layout: see ``LAYOUT``.
        method: ``int8``, ``int4``, or ``gptq``, ``awq`` for weights that others quantized.
        group_size: of most modules.
        origin: ``platform`` if the portal quantized the weights itself, else ``publisher``.
        source_digest: of the artefact that was read.
        modules: by name; what is not named is not quantized.
        quality: None where nothing was measured.
    """

    layout: int
    method: str
    group_size: int
    origin: Literal["platform", "publisher"]
    source_digest: str
    modules: dict[str, ModuleScheme]
    quality: Quality | None = None

    @property
    def label(self) -> str:
        """What the manifest calls it, such as ``int8-g32``."""
        return f"{self.method}-g{self.group_size}"


def read_description(folder: Path) -> Description | None:
    """What a folder says about its packed weights; None for one without any.

    Raises:
        NotFound: no artefact there.
        Invalid: damaged, changed since it was written, or of another layout.
    """
    path = folder / DESCRIPTION
    entry = load_manifest(folder).files.get(DESCRIPTION)
    if entry is None and not path.exists():
        return None
    if not path.is_file():
        raise Invalid(f"The artefact's file {path} is missing; quantize it again.")
    if entry is None or file_entry(path) != entry:
        raise Invalid(f"The artefact's file {path} is not what was written; quantize it again.")
    return decode_description(path)


def decode_description(path: Path) -> Description:
    """The content of the file at ``path``.

    Raises:
        Invalid: damaged, or of another layout.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Description)
    except msgspec.DecodeError as fault:
        raise Invalid(f"The artefact's {path} is damaged: {fault}.") from None
    if found.layout != LAYOUT:
        raise Invalid(
            f"The artefact's {path} has layout {found.layout}, this version reads {LAYOUT}; "
            "quantize it again."
        )
    return found
