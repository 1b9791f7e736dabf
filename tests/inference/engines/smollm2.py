"""The shipped model in other formats: eight-bit GGUF, and OpenVINO's own."""

import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, quants

from inference.artefacts import import_gguf, shipped_gguf

CONFIG = {
    "model_type": "llama",
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_q8_0(path: Path) -> Path:
    """The shipped model with all its quantized weights in Q8_0."""
    reader = GGUFReader(shipped_gguf())
    writer = GGUFWriter(path, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        inner = field.types[1] if len(field.types) > 1 else None
        value = field.contents()
        if key == "general.file_type":
            value = LlamaFileType.MOSTLY_Q8_0.value
        writer.add_key_value(key, value, field.types[0], inner)
    for tensor in reader.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if kind not in (GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0):
            plain = quants.dequantize(np.asarray(data), kind)
            kind = GGMLQuantizationType.Q8_0
            data = quants.quantize(plain, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_ir_folder(folder: Path, gguf: Path) -> Path:
    """A folder in OpenVINO's own format, as its converter leaves one, of a GGUF file's model."""
    # Before anything else of OpenVINO: it keeps that from phoning home.
    import inference.engines.openvino  # noqa: F401

    import openvino_genai as ov_genai  # isort: skip

    manifest = import_gguf(
        gguf, folder.parent / "of-gguf", name="s", licence="Apache-2.0", provenance="test"
    )
    artefact = folder.parent / "of-gguf" / manifest.id
    scheduler = ov_genai.SchedulerConfig()
    scheduler.num_kv_blocks = 8
    ov_genai.ContinuousBatchingPipeline(
        artefact / "model.gguf", scheduler, "CPU", {"enable_save_ov_model": True}
    )
    folder.mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (artefact / name).rename(folder / name)
    for name in ("tokenizer.json", "chat_template.jinja"):
        (folder / name).write_bytes((artefact / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder
