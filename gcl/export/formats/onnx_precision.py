"""fp16 and int8 beside the fp32 ONNX files, and what each of them loses on a run's own dev tasks."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcl.data.batches.batch import SideBatch
from gcl.errors import ConfigError, nearest
from gcl.export.formats.onnx_session import FOLDER, INPUTS, LoadedOnnx, read_config, write_config
from gcl.export.formats.onnx_trace import export_tower
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import compare
from gcl.schema import Modality, SideName

PRECISIONS = ("fp32", "fp16", "int8")
QUALITY = "quality.json"
_CALIBRATION_ROWS = 8  # pictures run at once while their activations are looked at
_NOTES = {
    "fp16": "onnx/*.fp16.onnx compute in half precision, for GPUs; inputs and outputs are those of fp32. On a CPU give "
    "onnxruntime the graph optimization level ORT_ENABLE_EXTENDED: its highest one fails on such graphs.",
    "int8": "onnx/*.int8.onnx have weights of 8 bits, for CPUs: towers of matrix products quantise activations as they "
    "come, towers of convolutions by the ranges that pictures of the catalog gave them.",
}


def check_precisions(precisions: Sequence[str]) -> None:
    """Raises ConfigError for an unknown one, and where fp32, by which the others are measured, is left out."""
    for name in precisions:
        if name not in PRECISIONS:
            raise ConfigError(f"onnx: there is no precision {name!r}.{nearest(name, PRECISIONS)}")
    if "fp32" not in precisions:
        raise ConfigError(f"onnx=[{','.join(precisions)}]: fp32 belongs to it, the others are measured by it.")


def add_precisions(
    encoder: DualEncoder, folder: Path, precisions: Sequence[str], *, pictures: Sequence[bytes] = ()
) -> list[str]:
    """Writes onnx/<tower>.<precision>.onnx beside the fp32 files of folder/onnx; returns notes for the card.

    pictures: some encoded images of the catalog (64 are plenty): int8 convolutions need the ranges of activations.
    Raises ConfigError for an unknown precision, and for int8 of a convolutional tower without pictures.
    """
    check_precisions(precisions)
    config, out, notes = read_config(folder), folder / FOLDER, []
    for precision in precisions:
        if precision == "fp32":
            continue
        files = {}
        for name, file in config["files"]["fp32"].items():
            files[name] = f"{name}.{precision}.onnx"
            if precision == "fp16":
                export_tower(encoder, Modality(name), out / files[name], dtype=torch.float16)
            else:
                pixels = [encoder.preprocess.image(data).numpy() for data in pictures] if name == "image" else []
                _to_int8(out / file, out / files[name], pixels)
        config["files"][precision] = files
        notes.append(_NOTES[precision])
    write_config(out, config)
    return notes


def _to_int8(source: Path, target: Path, pixels: Sequence[np.ndarray]) -> None:
    """Weights in 8 bits. Convolutions get fixed ranges: where onnxruntime finds them anew each time, little is left."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().addHandler(logging.NullHandler())  # or its first line gives the root logger a handler
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(source, load_external_data=False).graph.node)
    with tempfile.TemporaryDirectory() as scratch:
        ready = Path(scratch) / "ready.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        if convolutions <= 1:  # a transformer's patches
            kinds = ["MatMul", "Gemm", "Gather"]
            quantize_dynamic(str(ready), str(target), op_types_to_quantize=kinds, weight_type=QuantType.QUInt8)
            return
        if not len(pixels):
            raise ConfigError(
                "onnx=[int8]: this image tower is made of convolutions, whose ranges are measured on pictures of the "
                "catalog, and the catalog has none. Leave int8 out."
            )
        quantize_static(
            str(ready), str(target), _Pictures(np.stack(pixels)), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"], weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )  # fmt: skip


class _Pictures:
    """Batches for onnxruntime's calibration, which asks until it gets None."""

    def __init__(self, pixels: np.ndarray) -> None:
        parts = range(0, len(pixels), _CALIBRATION_ROWS)
        self._parts = iter([pixels[start : start + _CALIBRATION_ROWS] for start in parts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        part = next(self._parts, None)
        return None if part is None else {INPUTS[Modality.image]: part}


class OnnxEncoder(nn.Module):
    """An ONNX export in the place of a DualEncoder: what `gcl.retrieval.evaluate` embeds a task with."""

    def __init__(self, loaded: LoadedOnnx, like: DualEncoder) -> None:
        super().__init__()
        self.loaded, self.schema, self.width = loaded, like.schema, like.width
        self.preprocess = like.preprocess
        self._place = nn.Parameter(torch.zeros(1), requires_grad=False)  # says "cpu" to whoever asks for the device

    def embed_fields(self, batch: SideBatch, side: SideName) -> Tensor:
        """batch of B records -> unit vectors [B, F, D], zeros where a field is absent."""
        fields = self.schema.side(side)
        out = np.zeros((len(batch.present), len(fields), self.width), dtype=np.float32)
        for column, (name, field) in enumerate(fields.items()):
            rows = batch.present[:, column].numpy()
            if rows.any():
                out[rows, column] = self._encode(field.modality, batch.fields[name].numpy()[rows])
        return torch.from_numpy(out)

    def _encode(self, modality: Modality, value: np.ndarray) -> np.ndarray:
        distinct, inverse = (
            np.unique(value, axis=0, return_inverse=True) if modality is Modality.text else (value, None)
        )
        vectors = self.loaded.run(modality, np.ascontiguousarray(distinct))
        return vectors if inverse is None else vectors[inverse.reshape(-1)]


def measure_precisions(
    folder: Path,
    encoder: DualEncoder,
    measure: Callable[[nn.Module], Mapping[str, TaskResult]],
    *,
    metric: str = "ndcg@10",
) -> dict[str, Any]:
    """What each precision loses, per dev task: {metric, tasks: {task: {precision: {mean, change, low, high, p}}}}.

    measure: an encoder -> {task: TaskResult} on the dev half, without cached features (they would be the model's own).
    change is measured against the model itself (torch, fp32), paired by query; low and high: its 95 % interval.
    Also written to onnx/quality.json.
    """
    reference = measure(encoder)
    tasks: dict[str, dict[str, Any]] = {
        task: {"torch": {"mean": result.means[metric], "queries": result.queries}} for task, result in reference.items()
    }
    for precision in read_config(folder)["files"]:
        for task, result in measure(OnnxEncoder(LoadedOnnx(folder, precision), encoder)).items():
            found = compare(reference[task].values[metric], result.values[metric])
            tasks[task][precision] = {
                "mean": found.after, "change": found.change, "low": found.low, "high": found.high, "p": found.p,
                "top_10_equal": float(np.mean((reference[task].row[:, :10] == result.row[:, :10]).all(axis=1))),
            }  # fmt: skip
    quality = {"metric": metric, "part": "dev", "compared_with": "torch, fp32", "tasks": tasks}
    (folder / FOLDER / QUALITY).write_text(json.dumps(quality, indent=2) + "\n", encoding="utf-8")
    return quality


def quality_table(quality: Mapping[str, Any]) -> list[str]:
    """Markdown for the card."""
    metric = quality["metric"]
    lines = [
        f"| task (dev) | precision | {metric} | change (95 % interval) | same top 10 |",
        "|---|---|---:|---:|---:|",
    ]
    for task, rows in quality["tasks"].items():
        for precision, row in rows.items():
            change = "" if precision == "torch" else f"{row['change']:+.4f} ({row['low']:+.4f} … {row['high']:+.4f})"
            same = "" if precision == "torch" else f"{row['top_10_equal']:.1%}"
            lines.append(f"| {task} | {precision} | {row['mean']:.4f} | {change} | {same} |")
    return lines
