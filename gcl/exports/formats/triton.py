"""Triton: a model repository in triton/. A client calls embed_text and embed_image, which join two models each.

    embed_text    TEXT  -> text_tokens -> input_ids -> text_tower  -> text_embeds
    embed_image   IMAGE -> image_pixels -> pixels   -> image_tower -> image_embeds

Towers are the graphs of the format onnx, run by Triton's onnxruntime; the models before them are Python
(triton_model.py).
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.folder import reached
from gcl.exports.formats import triton_model
from gcl.exports.formats.onnx_session import CONFIG, FOLDER, TOKENIZER, open_graph, read_config
from gcl.exports.formats.registry import unit
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Modality

TRITON, VERSION = "triton", "1"
_MOST_ROWS = 64  # of a batch
_PREPARE = {Modality.text: "text_tokens", Modality.image: "image_pixels"}
_TYPES = {"int64": "TYPE_INT64", "uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_OF_ONNX = {"tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}


def export_triton(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes the model repository from the files of the format onnx; returns notes for the card."""
    config = read_config(folder)
    for name, file in config["files"]["fp32"].items():
        modality, about = Modality(name), config[name]
        given = _tensor(about["input"], _TYPES[about["dtype"]], _dims(about["shape"][1:]))
        vector = _tensor(about["output"], "TYPE_FP32", [config["width"]])
        raw, prepare, tower = _tensor(name.upper(), "TYPE_STRING", [1]), _PREPARE[modality], f"{name}_tower"
        out = _model(folder, tower, f'platform: "onnxruntime_onnx"\ndynamic_batching {{}}\n{_ends(given, vector)}')
        for source in (folder / FOLDER).glob(f"{file}*"):  # the graph, and its weights where they have a file
            shutil.copy(source, out / ("model.onnx" if source.name == file else source.name))
        out = _model(folder, prepare, f'backend: "python"\n{_ends(raw, given)}')
        shutil.copy(triton_model.__file__, out / "model.py")
        (out / FOLDER).mkdir()
        shutil.copy(folder / FOLDER / CONFIG, out / FOLDER / CONFIG)
        if (folder / FOLDER / TOKENIZER).is_dir():
            shutil.copytree(folder / FOLDER / TOKENIZER, out / FOLDER / TOKENIZER)
        steps = _step(prepare, name.upper(), about["input"]), _step(tower, about["input"], about["output"])
        scheduling = f"ensemble_scheduling {{\n  step [\n{steps[0]},\n{steps[1]}\n  ]\n}}"
        out = _model(folder, f"embed_{name}", f'platform: "ensemble"\n{_ends(raw, vector)}{scheduling}\n')
        (out / ".keep").touch()  # Triton wants a folder for every version, and repositories hold no empty ones
    return [
        "triton/ is a model repository: `tritonserver --model-repository=triton`, in an image of Triton with "
        "`pip install gcl-trainer` for text_tokens and image_pixels. Call embed_text with TEXT and embed_image with "
        "IMAGE (bytes of a file), shape [n, 1]."
    ]


def _model(folder: Path, name: str, content: str) -> Path:
    """Writes the config; -> the folder of the model's version."""
    out = folder / TRITON / name / VERSION
    out.mkdir(parents=True)
    head = f'name: "{name}"\nmax_batch_size: {_MOST_ROWS}\n'
    (out.parent / "config.pbtxt").write_text(head + content, encoding="utf-8")
    return out


def _dims(shape: Sequence[int | str]) -> list[int]:
    return [-1 if isinstance(size, str) else size for size in shape]


def _tensor(name: str, kind: str, dims: Sequence[int]) -> str:
    return f'{{ name: "{name}" data_type: {kind} dims: {[*dims]} }}'


def _ends(given: str, found: str) -> str:
    return f"input [ {given} ]\noutput [ {found} ]\n"


def _step(model: str, given: str, found: str) -> str:
    maps = f'input_map {{ key: "{given}" value: "{given}" }} output_map {{ key: "{found}" value: "{found}" }}'
    return f'    {{ model_name: "{model}" model_version: -1 {maps} }}'


class LoadedTriton:
    """The repository's ensembles, followed step by step as Triton's own description of its configs says.

    Triton itself is a server of its own image; here its configs are read by its protobuf, every tensor's name, type and
    shape is compared with the model's, and the models are run in this process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / TRITON
        self.configs = {path.parent.name: _read(path) for path in sorted(self.folder.glob("*/config.pbtxt"))}
        self.models: dict[str, Any] = {name: self._opened(name) for name in self.configs}

    def _opened(self, name: str) -> Any:
        config, version = self.configs[name], self.folder / name / VERSION
        if config.name != name or not version.is_dir():
            raise ValueError(f"{version.parent} is not a model of Triton's: its name or its version is another.")
        if config.platform == "ensemble":
            return None
        if config.backend == "python":
            spec = importlib.util.spec_from_file_location(f"triton_{name}", version / "model.py")
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            model = module.TritonPythonModel()
            model.initialize({"model_repository": str(version.parent), "model_version": VERSION})
            return model
        graph = open_graph(version / "model.onnx")
        _same(name, config.input, graph.get_inputs())
        _same(name, config.output, graph.get_outputs())
        return graph

    def _call(self, ensemble: str, values: Sequence[bytes]) -> np.ndarray:
        config = self.configs.get(ensemble)
        if config is None:
            raise ValueError(f"This export has no {ensemble}.")
        most = config.max_batch_size
        blocks = [self._followed(config, values[start : start + most]) for start in range(0, len(values), most)]
        return unit(np.concatenate(blocks) if blocks else np.empty((0, config.output[0].dims[0])))

    def _followed(self, config: Any, values: Sequence[bytes]) -> np.ndarray:
        pool: dict[str, Any] = {config.input[0].name: list(values)}
        for step in config.ensemble_scheduling.step:
            model, about = self.models[step.model_name], self.configs[step.model_name]
            ((given, source),), ((found, target),) = step.input_map.items(), step.output_map.items()
            if (given, found) != (about.input[0].name, about.output[0].name):
                raise ValueError(f"{config.name}: {step.model_name} has no {given} or no {found}.")
            value = pool[source]
            pool[target] = (
                model.prepared(given, value) if about.backend == "python" else model.run([found], {given: value})[0]
            )
            _fits(step.model_name, about.output[0], pool[target])
        return pool[config.output[0].name]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._call("embed_text", [text.encode("utf-8") for text in texts])

    def images(self, images: Sequence[bytes]) -> np.ndarray:
        return self._call("embed_image", images)


def _read(path: Path) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    try:
        return text_format.Parse(path.read_text("utf-8"), ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path} is not a config of Triton's: {error}") from error


def _type(tensor: Any) -> str:
    return tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name


def _same(name: str, said: Sequence[Any], has: Sequence[Any]) -> None:
    """Raises ValueError unless the config's tensors are the graph's."""
    ours = [(one.name, _type(one), [*one.dims]) for one in said]
    theirs = [(one.name, _OF_ONNX.get(one.type), _dims([size or "" for size in one.shape[1:]])) for one in has]
    if ours != theirs:
        raise ValueError(f"The config of {name} says {ours}, and its graph has {theirs}.")


def _fits(name: str, said: Any, value: np.ndarray) -> None:
    """Raises ValueError unless the value is what the config says."""
    fits = len(said.dims) == value.ndim - 1 and all(
        size in (-1, real) for size, real in zip(said.dims, value.shape[1:], strict=True)
    )
    if _TYPES.get(str(value.dtype)) != _type(said) or not fits:
        raise ValueError(
            f"{name} gave {value.dtype} {list(value.shape[1:])} as {said.name}, other than its config says."
        )


def snippet(encoder: DualEncoder, place: str) -> str:
    """Python source for the card: the client's code, as far as it runs without a server."""
    fetch, folder = reached(place)
    return f"""\
import numpy as np
import tritonclient.grpc as triton
from pathlib import Path
{fetch}
print(sorted(path.name for path in (Path({folder}) / "triton").iterdir()))  # what --model-repository names
texts = np.array([["something red"], ["something blue"]], dtype=object)
given = triton.InferInput("TEXT", texts.shape, "BYTES")
given.set_data_from_numpy(texts)
print(given.name(), given.shape(), given.datatype())
# with a server: triton.InferenceServerClient("localhost:8001").infer("embed_text", [given]).as_numpy("text_embeds")
"""
