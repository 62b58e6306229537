"""One tower of a model -> one ONNX file, checked against torch as soon as it is written."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl.export.formats.onnx_session import INPUTS, OUTPUTS, open_graph
from gcl.model.dual_encoder import DualEncoder
from gcl.model.preprocess import Preprocess
from gcl.model.towers import tower
from gcl.schema import Modality

OPSET = 20
LEAST_COSINE = {torch.float32: 0.9999, torch.float16: 0.99}
_ONE_FILE = 1 << 30  # bytes of weights; beyond, they go into <file>.data: a protobuf message ends at 2 GiB


class OnnxTower(nn.Module):
    """Tokens int64 [n, L] or pixels uint8 [n, 3, H, W] -> unit vectors float32 [n, D], computed in `dtype`."""

    def __init__(self, encoder: DualEncoder, modality: Modality, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        # A copy: the tracer wants plain memory order on the CPU, and the run's model stays as it is.
        self.model = copy.deepcopy(encoder.model).to("cpu", dtype, memory_format=torch.contiguous_format)
        self.modality, self.dtype = modality, dtype
        self.part = tower(self.model, modality)
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
    part = OnnxTower(encoder, modality, dtype).eval()
    values = _example(encoder.preprocess, modality)
    any_length = modality is Modality.text and part.part.ignores_padding
    dynamic = torch.export.Dim.DYNAMIC
    shapes = [{0: dynamic, 1: dynamic}, {0: dynamic}] if any_length else [{0: dynamic}]
    while shapes:
        shape = shapes.pop(0)
        try:
            program = _trace(part, values[:2], shape)
        except Exception as error:  # the exporter raises a dozen kinds; all mean that it cannot follow the tower
            if shapes:
                continue  # a tower that ignores padding, but whose code needs the length
            raise ValueError(
                f"ONNX: the {modality.value} tower of {encoder.origin.name} cannot be exported, torch.onnx cannot "
                f"follow it: {_reason(error)} Other formats work: formats=[open_clip]."
            ) from error
        break
    any_length = any_length and len(shape) == 2
    _forget_origin(program.model)
    size = sum(p.numel() * p.element_size() for p in part.part.parameters())
    program.save(path, external_data=size > _ONE_FILE)
    reference = part if dtype is torch.float32 else OnnxTower(encoder, modality).eval()
    short = [part.part.trim(values[:3])] if any_length else []
    _compare(reference, path, modality, [values, values[:1], *short], LEAST_COSINE[dtype])
    return any_length


def _trace(part: OnnxTower, example: Tensor, shape: dict[int, Any]) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            part, (example,), dynamo=True, opset_version=OPSET, dynamic_shapes=(shape,), verbose=False,
            input_names=[INPUTS[part.modality]], output_names=[OUTPUTS[part.modality]],
        )  # fmt: skip


def _example(preprocess: Preprocess, modality: Modality) -> Tensor:
    """Seven inputs, all different."""
    if modality is Modality.text:
        return preprocess.text(["red shoes", "BLUE mug", "", "a chair of oak, 3 legs", "x", "鞋子", "long " * 200])
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (7, 3, *preprocess.size), dtype=torch.uint8, generator=generator)


def _compare(part: OnnxTower, path: Path, modality: Modality, batches: Sequence[Tensor], least: float) -> None:
    graph = open_graph(path)
    for value in batches:
        with torch.no_grad():
            expected = part(value)
        found = torch.from_numpy(graph.run(None, {INPUTS[modality]: value.numpy()})[0])
        cosine = float((expected * found).sum(dim=-1).min())
        if not cosine >= least:
            raise ValueError(
                f"ONNX: {path.name} gives other vectors than the {modality.value} tower for a batch of {len(value)}: "
                f"cosine {cosine:.6f}, at least {least} is expected. Use another format, and report this model."
            )


def _forget_origin(model: Any) -> None:
    """Drops what the tracer notes beside every node: lines of source with paths of this machine."""
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
        for value in (*graph.inputs, *graph.outputs):
            value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()


def _reason(error: Exception) -> str:
    """The innermost cause's first line: the exporter wraps it in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}".rstrip(".") + "."
