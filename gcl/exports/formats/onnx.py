"""ONNX: one file per tower, onnx/text.onnx and onnx/image.onnx, from a model's raw input to unit vectors.

Inside the graph: pixel statistics, tower, projection, normalisation. Outside: decoding and resizing an image to uint8
[n, 3, H, W], and the tokenizer; onnx/config.json describes both, so that loading builds no torch model. uint8 instead
of float pixels because it is a quarter of the traffic to a server and nobody can apply the statistics twice.

A tower becomes a file in five steps (`export_tower`):

1. The tower is copied to the CPU and wrapped: raw input -> unit vectors (`OnnxTower`).
2. torch.onnx traces it for any batch size and, where the tower ignores padding, any length of texts.
3. What the tracer noted of this machine (source lines, paths) is removed.
4. The graph is saved, with its weights in a file of their own if they exceed what protobuf can hold.
5. onnxruntime runs the file on seven different inputs; its vectors must be torch's.

fp16 is traced from the model in half precision; int8 is made of the fp32 file by onnxruntime's quantisation.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl.data.batches.batch import Features, SideBatch
from gcl.errors import ConfigError
from gcl.exports.folder import reached, write_json
from gcl.exports.formats.onnx_session import (
    CONFIG,
    FOLDER,
    INPUTS,
    OUTPUTS,
    TOKENIZER,
    VERSION,
    LoadedOnnx,
    open_graph,
    read_config,
)
from gcl.exports.formats.tokenizer import write_tokenizer
from gcl.exports.formats.weights import origin_of
from gcl.exports.settings import Precision
from gcl.model.dual_encoder import DualEncoder, present_values
from gcl.model.fusion import fuse_images
from gcl.model.preprocess import Preprocess
from gcl.model.towers import Tower, tower
from gcl.schema import Modality, SideName

OPSET = 20
LEAST_COSINE = {torch.float32: 0.9999, torch.float16: 0.99}
ONE_FILE = 1 << 30  # bytes of weights; beyond, they go into <file>.data: a protobuf message ends at 2 GiB
_CALIBRATION_ROWS = 8  # images run at once while the ranges of activations are measured
_NOTES = {
    Precision.fp16: "onnx/*.fp16.onnx compute in half precision, for GPUs; inputs and outputs are those of fp32. On a "
    "CPU give onnxruntime the graph optimization level ORT_ENABLE_EXTENDED: its highest one fails on such graphs.",
    Precision.int8: "onnx/*.int8.onnx have 8-bit weights, for CPUs: transformer towers quantise activations as they "
    "come, convolutional towers by the ranges measured on images of the catalog.",
}


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
    write_json(out / CONFIG, config)
    image = "onnx/image.onnx resized RGB pixels (uint8; mean and deviation are applied inside), "
    return [
        f"ONNX opset {OPSET}, any batch size: onnx/text.onnx takes token ids (int64), {image if len(files) > 1 else ''}"
        "and gives unit vectors. onnx/config.json describes tokenizer and resizing."
    ]


class OnnxTower(nn.Module):
    """Tokens int64 [n, L] or pixels uint8 [n, 3, H, W] -> unit vectors float32 [n, D], computed in `dtype`."""

    gain: Tensor
    offset: Tensor

    def __init__(self, encoder: DualEncoder, modality: Modality, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        # A copy: the tracer needs plain memory order on the CPU, and the run's model stays as it is.
        self.model = copy.deepcopy(encoder.model).to("cpu", dtype).to(memory_format=torch.contiguous_format)
        self.modality, self.dtype = modality, dtype
        part = tower(self.model, modality)
        assert part is not None, f"the model has no {modality.value} tower"
        self.part: Tower = part
        self.register_buffer("gain", encoder._gain.detach().cpu().clone())
        self.register_buffer("offset", encoder._offset.detach().cpu().clone())

    def forward(self, value: Tensor) -> Tensor:
        if self.modality is Modality.image:
            value = (value.float() * self.gain + self.offset).to(self.dtype)
        return F.normalize(self.part.head(self.part.trunk(value)).float(), dim=-1)


def export_tower(encoder: DualEncoder, modality: Modality, path: Path, *, dtype: torch.dtype = torch.float32) -> bool:
    """Writes one file; True if it takes texts shorter than the context.

    Raises ValueError where torch.onnx cannot follow the tower, or where onnxruntime computes something else.
    """
    wrapped = OnnxTower(encoder, modality, dtype).eval()
    values = _example(encoder.preprocess, modality)
    trim = wrapped.part.trim if modality is Modality.text else None
    dynamic = torch.export.Dim.DYNAMIC
    try:
        if trim is None:
            program = _trace(wrapped, values[:2], {0: dynamic})
        else:
            try:
                program = _trace(wrapped, values[:2], {0: dynamic, 1: dynamic})
            except Exception:  # a tower that ignores padding, but whose code needs the length
                trim = None
                program = _trace(wrapped, values[:2], {0: dynamic})
    except Exception as error:  # the exporter raises a dozen kinds; all mean that it cannot follow the tower
        raise ValueError(
            f"ONNX: the {modality.value} tower of {origin_of(encoder).name} cannot be exported, torch.onnx cannot "
            f"follow it: {_reason(error)} Other formats work: formats=[open_clip]."
        ) from error
    _forget_origin(program.model)
    size = sum(p.numel() * p.element_size() for p in wrapped.part.parameters())
    program.save(path, external_data=size > ONE_FILE)
    reference = wrapped if dtype is torch.float32 else OnnxTower(encoder, modality).eval()
    short = [] if trim is None else [trim(values[:3])]
    _compare(reference, path, modality, [values, values[:1], *short], LEAST_COSINE[dtype])
    return trim is not None


def _trace(wrapped: OnnxTower, example: Tensor, shape: dict[int, Any]) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            wrapped, (example,), dynamo=True, opset_version=OPSET, dynamic_shapes=(shape,), verbose=False,
            input_names=[INPUTS[wrapped.modality]], output_names=[OUTPUTS[wrapped.modality]],
        )  # fmt: skip


def _example(preprocess: Preprocess, modality: Modality) -> Tensor:
    """Seven inputs, all different."""
    if modality is Modality.text:
        return preprocess.text(["red shoes", "BLUE mug", "", "a chair of oak, 3 legs", "x", "鞋子", "long " * 200])
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (7, 3, *preprocess.size), dtype=torch.uint8, generator=generator)


def _compare(wrapped: OnnxTower, path: Path, modality: Modality, batches: Sequence[Tensor], least: float) -> None:
    graph = open_graph(path)
    for value in batches:
        with torch.no_grad():
            expected = wrapped(value)
        output = torch.from_numpy(graph.run(None, {INPUTS[modality]: value.numpy()})[0])
        cosine = float((expected * output).sum(dim=-1).min())
        if not cosine >= least:
            raise ValueError(
                f"ONNX: {path.name} gives other vectors than the {modality.value} tower for a batch of {len(value)}: "
                f"cosine {cosine:.6f}, at least {least} is expected. Use another format, and report this model."
            )


def _forget_origin(model: Any) -> None:
    """Drops the tracer's notes on every node: lines of source with paths of this machine."""
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
        for value in (*graph.inputs, *graph.outputs):
            value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()


def _reason(error: BaseException) -> str:
    """The innermost cause's first line: the exporter wraps it in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}".rstrip(".") + "."


def add_precisions(
    encoder: DualEncoder, folder: Path, precisions: Sequence[str], *, images: Sequence[bytes] = ()
) -> list[str]:
    """Writes onnx/<tower>.<precision>.onnx next to the fp32 files of folder/onnx; returns notes for the card.

    images: some encoded images of the catalog (64 are plenty): int8 convolutions need the ranges of activations.
    Raises ConfigError for int8 of a convolutional tower without images.
    """
    config, out, notes = read_config(folder), folder / FOLDER, []
    for precision in map(Precision, precisions):
        if precision is Precision.fp32:
            continue
        files = {name: f"{name}.{precision.value}.onnx" for name in config["files"]["fp32"]}
        for name, file in files.items():
            if precision is Precision.fp16:
                export_tower(encoder, Modality(name), out / file, dtype=torch.float16)
            else:
                pixels = [encoder.preprocess.image(data).numpy() for data in images] if name == "image" else []
                _to_int8(out / config["files"]["fp32"][name], out / file, pixels)
        config["files"][precision.value] = files
        notes.append(_NOTES[precision])
    write_json(out / CONFIG, config)
    return notes


def _to_int8(source: Path, target: Path, pixels: Sequence[np.ndarray]) -> None:
    """8-bit weights. Convolutions get fixed ranges: where onnxruntime determines them per call, quality collapses."""
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
                "onnx=[int8]: this image tower is convolutional; the ranges of its activations are measured on images "
                "of the catalog, and the catalog has none. Leave int8 out."
            )
        quantize_static(
            str(ready), str(target), _Calibration(np.stack(pixels)), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"], weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )  # fmt: skip


class _Calibration:
    """Batches for onnxruntime's calibration, which asks until it gets None."""

    def __init__(self, pixels: np.ndarray) -> None:
        starts = range(0, len(pixels), _CALIBRATION_ROWS)
        self._batches = iter([pixels[start : start + _CALIBRATION_ROWS] for start in starts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUTS[Modality.image]: batch}


class OnnxEncoder(nn.Module):
    """An ONNX export in the place of a DualEncoder: `gcl.retrieval.evaluate` embeds a task with it."""

    def __init__(self, loaded: LoadedOnnx, like: DualEncoder) -> None:
        super().__init__()
        self.loaded, self.schema, self.width = loaded, like.schema, like.width
        self.preprocess, self.by_query = like.preprocess, like.by_query
        self._place = nn.Parameter(torch.zeros(1), requires_grad=False)  # tells callers that the device is the CPU

    def embed_fields(self, batch: SideBatch, side: SideName) -> Tensor:
        """batch of B records -> unit vectors [B, F, D], zeros where a field is absent."""
        fields = self.schema.side(side)
        out = np.zeros((len(batch.present), len(fields), self.width), dtype=np.float32)
        for column, (name, field) in enumerate(fields.items()):
            rows, value = present_values(batch, name, column)
            assert not isinstance(value, Features), "cached features are the torch model's own"
            if len(rows):
                embedding = torch.from_numpy(self._encode(field.modality, value.numpy()))
                rows, embedding = fuse_images(embedding, rows)
                out[rows.numpy(), column] = embedding.numpy()
        return torch.from_numpy(out)

    def _encode(self, modality: Modality, value: np.ndarray) -> np.ndarray:
        if modality is Modality.image:
            return self.loaded.run(modality, np.ascontiguousarray(value))
        distinct, inverse = np.unique(value, axis=0, return_inverse=True)  # equal texts are encoded once
        return self.loaded.run(modality, np.ascontiguousarray(distinct))[inverse.reshape(-1)]


def snippet(encoder: DualEncoder, place: str) -> str:
    """Python source for the card."""
    return usage(encoder, place, "onnx_session.LoadedOnnx", "onnxruntime")


def usage(encoder: DualEncoder, place: str, loaded: str, needs: str) -> str:
    """Python source that loads the folder by a LoadedGraphs of this package (module.class), which needs a library."""
    fetch, folder = reached(place)
    module, _, name = loaded.rpartition(".")
    images = encoder.tower(Modality.image) is not None
    before, pillow, then = ("import io\n", "from PIL import Image\n", _IMAGE) if images else ("", "", _TEXTS_ALONE)
    return f"""\
{before}from pathlib import Path

{fetch}{pillow}
from gcl.exports.formats.{module} import {name}  # needs {needs}; no torch model is built

model = {name}(Path({folder}))
text = model.texts(["red running shoes", "blue mug"])
{then}"""


_IMAGE = """\
file = io.BytesIO()
Image.new("RGB", (640, 480), "red").save(file, "JPEG")  # yours: open("shoe.jpg", "rb").read()
image = model.images([file.getvalue()])
print(text.shape, (text @ image.T).round(3))
"""
_TEXTS_ALONE = "print(text.shape, (text @ text.T).round(3))\n"
