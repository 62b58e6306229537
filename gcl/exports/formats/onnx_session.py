"""An ONNX export through onnxruntime: its config, its graphs, and the way from texts and files to vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcl.exports.formats.registry import unit
from gcl.exports.formats.tokenizer import read_tokenizer
from gcl.exports.settings import Precision
from gcl.model.preprocess import Preprocess
from gcl.schema import Modality

FOLDER, CONFIG, TOKENIZER = "onnx", "config.json", "tokenizer"
INPUTS = {Modality.text: "input_ids", Modality.image: "pixels"}
OUTPUTS = {Modality.text: "text_embeds", Modality.image: "image_embeds"}
VERSION = 1
HALF = ".fp16.onnx"
_ROWS = 64  # encoded at once by a loaded model
_LENGTH_STEP = 8  # lengths of texts are rounded up to it


def read_config(folder: Path) -> dict[str, Any]:
    """folder/onnx/config.json. Raises ValueError if there is none, or one of another version."""
    path = folder / FOLDER / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} holds no ONNX export: there is no {FOLDER}/{CONFIG} in it.")
    config = json.loads(path.read_text("utf-8"))
    if config.get("version") != VERSION:
        raise ValueError(f"{path} is of version {config.get('version')}; this gcl reads version {VERSION}.")
    return config


def written_precisions(folder: Path) -> list[Precision]:
    """The precisions that the folder holds, fp32 first."""
    return [Precision(name) for name in read_config(folder)["files"]]


def open_graph(path: Path) -> Any:
    """A graph ready to run, by onnxruntime on the CPU with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if path.name.endswith(HALF):  # at its highest level onnxruntime 1.32 ends the process on half-precision graphs
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class LoadedGraphs:
    """A folder's graphs by some library: `run` for tokens and pixels, `texts` and `images` for strings and files.

    What goes into them is read as folder/onnx/config.json describes it. A library has a method of its own, `_run`.
    """

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        self.config = read_config(folder)
        if precision not in self.config["files"]:
            known = ", ".join(self.config["files"])
            raise ValueError(f"{folder / FOLDER} has no {precision} files; it has {known}.")
        self.files: dict[str, str] = self.config["files"][precision]
        tokens = read_tokenizer(self.config["text"]["tokenizer"], folder / FOLDER / TOKENIZER)
        image = self.config.get("image")
        self.preprocess = Preprocess(
            size=tuple(image["shape"][2:]) if image else (1, 1),
            mean=tuple(image["statistics_inside"]["mean"]) if image else (0.0, 0.0, 0.0),
            std=tuple(image["statistics_inside"]["std"]) if image else (1.0, 1.0, 1.0),
            tokens=tokens,
            **({key: image[key] for key in ("resize", "interpolation", "fill")} if image else {}),
        )

    def _run(self, modality: Modality, value: np.ndarray) -> np.ndarray:
        """`run` of at most _ROWS inputs."""
        raise NotImplementedError

    def run(self, modality: Modality, value: np.ndarray) -> np.ndarray:
        """Tokens int64 [n, L] or pixels uint8 [n, 3, H, W] -> float32 [n, D]."""
        if modality.value not in self.files:
            raise ValueError(f"This export has no {modality.value} tower.")
        blocks = [self._run(modality, value[start : start + _ROWS]) for start in range(0, len(value), _ROWS)]
        return np.concatenate(blocks) if blocks else np.empty((0, self.config["width"]), dtype=np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(self.run(Modality.text, self.trimmed(self.preprocess.text(list(texts)).numpy())))

    def trimmed(self, tokens: np.ndarray) -> np.ndarray:
        """Drops columns that are padding in every row, where the tower ignores padding: several times faster."""
        padding = self.config["text"]["padding"]
        if padding is None or not len(tokens):
            return tokens
        used = np.flatnonzero((tokens != padding).any(axis=0))
        length = -(-(int(used[-1]) + 1 if len(used) else 1) // _LENGTH_STEP) * _LENGTH_STEP
        return np.ascontiguousarray(tokens[:, :length])

    def pixels(self, images: Sequence[bytes]) -> np.ndarray:
        """n encoded files -> uint8 [n, 3, H, W]."""
        return np.stack([self.preprocess.image(data).numpy() for data in images])

    def images(self, images: Sequence[bytes]) -> np.ndarray:
        return unit(self.run(Modality.image, self.pixels(images)))


class LoadedOnnx(LoadedGraphs):
    """The folder through onnxruntime."""

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        super().__init__(folder, precision)
        out = folder / FOLDER
        for name in self.files.values():
            if Path(name).name != name or not (out / name).is_file():
                raise ValueError(f"{out / CONFIG} names the file {name!r}, which is not in that folder.")
        self.graphs = {Modality(name): open_graph(out / file) for name, file in self.files.items()}

    def _run(self, modality: Modality, value: np.ndarray) -> np.ndarray:
        return self.graphs[modality].run(None, {INPUTS[modality]: value})[0]
