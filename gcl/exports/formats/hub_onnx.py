"""The ONNX layout that libraries of the Hub know: onnx/text_model.onnx and vision_model.onnx next to tokenizer.json.

They are the graphs of the format onnx with other beginnings, so that what their readers make is what the run reads:

- Images are `pixel_values`, normalised by the reader, instead of bytes: the nodes that do so are left out.
- Texts: readers pad to the longest text of a call or not at all, and transformers.js cuts a text without leaving its
  end token. The graph puts the end token where a text was cut, and pads to the context where the tower reads padding.

Every precision of the format onnx is there, under the suffix that transformers.js has for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.folder import write_json
from gcl.exports.formats.onnx import ONE_FILE
from gcl.exports.formats.onnx_session import FOLDER, INPUTS, OUTPUTS, read_config
from gcl.exports.formats.tokenizer import Reader, native_tokenizer
from gcl.exports.settings import Precision
from gcl.model.dual_encoder import DualEncoder
from gcl.model.text_only import TextOnly
from gcl.model.transformers.describe import describe
from gcl.schema import Modality

NAMES = {Modality.text: "text_model", Modality.image: "vision_model"}
SUFFIX = {Precision.fp32: "", Precision.fp16: "_fp16", Precision.int8: "_quantized"}
PIXELS = "pixel_values"


def reader_of(encoder: DualEncoder) -> Reader:
    """The class that reads the ids, or "text" for a text encoder alone."""
    return "text" if isinstance(encoder.model, TextOnly) else describe(encoder.model).kind


def output_of(kind: str, modality: Modality) -> str:
    """The output's name in the classes of this kind (siglip, clip)."""
    return "pooler_output" if kind == "siglip" else OUTPUTS[modality]


def export_hub_onnx(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes the layout from the files of the format onnx; returns notes for the card."""
    config, out = read_config(folder), folder / FOLDER
    kind = reader_of(encoder)
    tokenizer = native_tokenizer(encoder.preprocess.tokens, kind)
    length = None if config["text"]["padding"] is not None else config["text"]["shape"][1]
    large: dict[str, bool] = {}
    for name, files in config["files"].items():
        for modality in map(Modality, files):
            graph = _read(out / files[modality.value])
            if modality is Modality.image:
                _take_normalised(graph.graph)
            else:
                end = None if kind == "text" else tokenizer.eos_token_id
                _take_cut_and_short(graph.graph, end=end, padding=tokenizer.pad_token_id, length=length)
            _rename_output(graph.graph, output_of(kind, modality))
            target = f"{NAMES[modality]}{SUFFIX[Precision(name)]}.onnx"
            if _save(graph, out / target):
                large[target] = True
    path = folder / "config.json"
    if large and path.is_file():  # transformers.js looks for <file>_data only where it is told to
        content = json.loads(path.read_text("utf-8"))
        write_json(path, {**content, "transformers.js_config": {"use_external_data_format": large}})
    image = f", onnx/vision_model.onnx normalised pixels ({PIXELS})" if "image" in config["files"]["fp32"] else ""
    return [f"onnx/text_model.onnx takes the ids of tokenizer.json, padded or not{image}; both give unit vectors."]


def _read(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def _save(model: Any, path: Path) -> bool:
    """True if the weights got a file of their own, <name>.onnx_data."""
    import onnx

    if model.ByteSize() < ONE_FILE:
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return False
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}_data")
    return True


def _take_normalised(graph: Any) -> None:
    """Cast, Mul and Add behind the input make normalised pixels of bytes: their result becomes the input."""
    from onnx import TensorProto

    given, last = INPUTS[Modality.image], INPUTS[Modality.image]
    for kind in ("Cast", "Mul", "Add"):
        node = next(node for node in graph.node if node.op_type == kind and last in node.input)
        last = node.output[0]
        graph.node.remove(node)
    for node in graph.node:
        _swap(node, {given: PIXELS, last: PIXELS})
    graph.input[0].name = PIXELS
    graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    used = {name for node in graph.node for name in node.input}
    for constant in [constant for constant in graph.initializer if constant.name not in used]:
        graph.initializer.remove(constant)


def _take_cut_and_short(graph: Any, *, end: int | None, padding: int, length: int | None) -> None:
    """end: what the last id of a row is made, unless it is padding. length: what rows are padded to on the right."""
    from onnx import helper, numpy_helper

    given, ids, nodes = INPUTS[Modality.text], INPUTS[Modality.text], []

    def constant(name: str, *values: int) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), f"gcl_{name}"))
        return f"gcl_{name}"

    def add(kind: str, inputs: list[str], name: str, **options: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"gcl_{name}"], f"gcl_{name}", **options))
        return f"gcl_{name}"

    axis, back, pad = constant("axis", 1), constant("back", -1), constant("padding", padding)
    if end is not None:
        last = add("Slice", [ids, back, constant("beyond", np.iinfo(np.int64).max), axis], "last")
        last = add("Where", [add("Equal", [last, pad], "is_padding"), last, constant("end", end)], "end_or_padding")
        before = add("Slice", [ids, constant("begin", 0), back, axis], "before_last")
        ids = add("Concat", [before, last], "ended", axis=1)
    if length is not None:
        has = add("Shape", [ids], "length", start=1, end=2)
        lacks = add("Sub", [constant("context", length), has], "lacks")
        pads = add("Concat", [constant("zero", 0), lacks], "pads", axis=0)  # before the first column, behind the last
        ids = add("Pad", [ids, pads, add("Squeeze", [pad], "pad_id"), axis], "padded")
        ids = add("Reshape", [ids, constant("shape", -1, length)], "whole")
        graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    for node in graph.node:
        _swap(node, {given: ids})
    graph.node.extend(nodes)
    for node in reversed(nodes):  # in front: nodes stand in the order in which they run
        graph.node.remove(node)
        graph.node.insert(0, node)


def _rename_output(graph: Any, name: str) -> None:
    before, graph.output[0].name = graph.output[0].name, name
    for node in graph.node:
        _swap(node, {before: name})
        for place, output in enumerate(node.output):
            node.output[place] = name if output == before else output


def _swap(node: Any, names: dict[str, str]) -> None:
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)
