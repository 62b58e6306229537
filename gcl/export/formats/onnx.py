"""ONNX: one file per tower, onnx/text.onnx and onnx/image.onnx, from a model's raw input to unit vectors.

Inside the graph: pixel statistics, tower, projection, normalisation. Outside: decoding and resizing a picture to uint8
[n, 3, H, W], and the tokenizer; onnx/config.json describes both, so that loading builds no torch model. uint8 instead
of float pixels because it is a quarter of the traffic to a server and nobody can apply the statistics twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gcl.export.formats.base import Format
from gcl.export.formats.onnx_session import FOLDER, INPUTS, OUTPUTS, TOKENIZER, VERSION, LoadedOnnx, write_config
from gcl.export.formats.onnx_tokenizer import write_tokenizer
from gcl.export.formats.onnx_trace import OPSET, export_tower
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Modality


def export_onnx(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes folder/onnx; returns notes for the card.

    Raises ValueError where torch.onnx cannot follow a tower, or where onnxruntime computes something else.
    """
    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    preprocess = encoder.preprocess
    text = write_tokenizer(preprocess.tokens, out / TOKENIZER)
    files, shorter = {}, False
    for modality in Modality:
        if encoder.tower(modality) is None:
            continue
        files[modality.value] = f"{modality.value}.onnx"
        any_length = export_tower(encoder, modality, out / files[modality.value])
        shorter = any_length if modality is Modality.text else shorter
    log_scale, bias = encoder.scale_bias
    config: dict[str, Any] = {
        "version": VERSION,
        "opset": OPSET,
        "width": encoder.width,
        "normalized": True,
        "files": {"fp32": files},
        "text": {
            "input": INPUTS[Modality.text], "shape": ["batch", "length" if shorter else text["context_length"]],
            "dtype": "int64", "output": OUTPUTS[Modality.text], "tokenizer": text,
            "padding": int(preprocess.text([""])[0, -1]) if shorter else None,
        },
        "logit_scale": float(np.exp(log_scale)),
        "logit_bias": bias,
    }  # fmt: skip
    if "image" in files:
        height, width = preprocess.size
        config["image"] = {
            "input": INPUTS[Modality.image], "shape": ["batch", 3, height, width], "dtype": "uint8",
            "output": OUTPUTS[Modality.image], "color": "RGB", "resize": preprocess.resize,
            "interpolation": preprocess.interpolation, "fill": preprocess.fill, "orientation": "EXIF applied first",
            "statistics_inside": {"mean": list(preprocess.mean), "std": list(preprocess.std)},
        }  # fmt: skip
    write_config(out, config)
    return [
        f"ONNX opset {OPSET}, any batch size: onnx/text.onnx takes token ids (int64), "
        + (
            "onnx/image.onnx resized RGB pixels (uint8; mean and deviation are applied inside), "
            if len(files) > 1
            else ""
        )
        + "and gives unit vectors. onnx/config.json describes tokenizer and resizing."
    ]


def _snippet(encoder: DualEncoder, place: str) -> str:
    fetch = "" if Path(place).is_dir() else "from huggingface_hub import snapshot_download\n"
    folder = f'"{place}"' if Path(place).is_dir() else f'snapshot_download("{place}")'
    image = encoder.tower(Modality.image) is not None
    lines = [
        "import io",
        "from pathlib import Path",
        "",
        *([fetch.rstrip(), ""] if fetch else []),
        *(["from PIL import Image", ""] if image else []),
        "from gcl.export.formats.onnx_session import LoadedOnnx  # needs onnxruntime; no torch model is built",
        "",
        f"model = LoadedOnnx(Path({folder}))",
        'text = model.texts(["red running shoes", "blue mug"])',
    ]
    if image:
        lines += [
            "file = io.BytesIO()",
            'Image.new("RGB", (640, 480), "red").save(file, "JPEG")  # yours: open("shoe.jpg", "rb").read()',
            "image = model.images([file.getvalue()])",
            "print(text.shape, (text @ image.T).round(3))",
        ]
    else:
        lines += ["print(text.shape, (text @ text.T).round(3))"]
    return "\n".join(lines if image else lines[1:]) + "\n"


ONNX = Format(
    name="onnx",
    write=export_onnx,
    load=LoadedOnnx,
    snippet=_snippet,
    refuses=lambda encoder: None,
    requires=("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
)
