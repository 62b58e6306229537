"""OpenVINO: the graphs of the format onnx as OpenVINO's own files, for Intel's CPUs, GPUs and NPUs, and for its server.

Tokenizer and resizing are those of onnx/config.json, inputs and outputs those of the ONNX files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcl.exports.formats.onnx import usage
from gcl.exports.formats.onnx_session import FOLDER, INPUTS, LoadedGraphs, read_config
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Modality

OPENVINO = "openvino"


def export_openvino(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes openvino/<tower>.xml and .bin of every ONNX file of the folder; returns notes for the card."""
    import openvino

    for files in read_config(folder)["files"].values():
        for file in files.values():
            model = openvino.convert_model(folder / FOLDER / file)
            openvino.save_model(model, _file(folder, file), compress_to_fp16=False)
    return [
        "openvino/*.xml take the inputs of onnx/*.onnx. Compile them with INFERENCE_PRECISION_HINT=f32: on processors "
        "with bfloat16 OpenVINO computes in it otherwise, which changes vectors."
    ]


def _file(folder: Path, onnx: str) -> Path:
    return (folder / OPENVINO / onnx).with_suffix(".xml")


class LoadedOpenVino(LoadedGraphs):
    """The folder through OpenVINO on the CPU."""

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        import openvino

        super().__init__(folder, precision)
        core = openvino.Core()
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.compiled: dict[Modality, Any] = {
            Modality(name): core.compile_model(_file(folder, file), "CPU", options) for name, file in self.files.items()
        }

    def _run(self, modality: Modality, value: np.ndarray) -> np.ndarray:
        return self.compiled[modality]({INPUTS[modality]: value})[0]


def snippet(encoder: DualEncoder, place: str) -> str:
    """Python source for the card."""
    return usage(encoder, place, "openvino.LoadedOpenVino", "openvino")
