"""What a quantized artefact is worth, as a table for a terminal."""

from inference.artefacts import Manifest
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
