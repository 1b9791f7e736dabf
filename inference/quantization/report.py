"""What quantized weights are worth, as tables for a terminal."""

from collections.abc import Iterable

from inference.artefacts import Manifest
from inference.quantization.comparison import Line
from inference.quantization.description import Description


def quality_table(manifest: Manifest, description: Description) -> str:
    """Size, perplexity and agreement with fp32, a line each."""
    size = sum(e.size for name, e in manifest.files.items() if name.endswith(".safetensors"))
    rows = [
        ("artefact", manifest.id),
        ("quantization", manifest.quantization),
        ("weights", f"{size / 2**20:,.1f} MiB"),
    ]
    quality = description.quality
    if quality is None:
        rows.append(("quality", "not measured"))
    else:
        rows += [
            ("size against fp32", f"{quality.size_ratio:.3f}"),
            ("perplexity", f"{quality.perplexity:.3f} ({quality.perplexity_change:+.2%})"),
            ("perplexity in fp32", f"{quality.reference_perplexity:.3f}"),
            ("top-1 agreement", f"{quality.top1_agreement:.2%}"),
            ("measured on", f"{quality.tokens} tokens, text {quality.text_sha256[:16]}"),
        ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def comparison_table(lines: Iterable[Line]) -> Iterable[str]:
    """Methods beside each other, a line each, as they come."""
    yield f"{'weights':10}{'size':>7}{'perplexity':>12}{'change':>9}{'top-1 agreement':>17}"
    for line in lines:
        yield (
            f"{line.weights:10}{line.size_ratio:7.3f}{line.perplexity:12.3f}"
            f"{line.perplexity_change:+9.2%}{line.top1_agreement:17.2%}"
        )
