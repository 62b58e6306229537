"""A model of Triton's Python backend: texts become token ids, encoded images pixels, as in training.

The format triton copies this file into its model repository, next to a description of tokenizer and resizing. The
server needs gcl-trainer for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.formats.onnx_session import LoadedGraphs

INPUTS = {"TEXT": "input_ids", "IMAGE": "pixels"}  # of this model -> its output


class TritonPythonModel:
    """As Triton calls it."""

    def initialize(self, args: Mapping[str, Any]) -> None:
        self.graphs = LoadedGraphs(Path(args["model_repository"]) / args["model_version"])

    def prepared(self, name: str, values: Sequence[bytes]) -> np.ndarray:
        """n values of TEXT or IMAGE -> int64 [n, L] or uint8 [n, 3, H, W]. Raises ValueError for a broken image."""
        if name == "IMAGE":
            return self.graphs.pixels(values)
        return self.graphs.preprocess.text([value.decode("utf-8") for value in values]).numpy()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        import triton_python_backend_utils as triton

        responses = []
        for request in requests:
            name, given = next(
                (name, tensor)
                for name in INPUTS
                if (tensor := triton.get_input_tensor_by_name(request, name)) is not None
            )
            try:
                output = triton.Tensor(INPUTS[name], self.prepared(name, given.as_numpy().reshape(-1).tolist()))
                responses.append(triton.InferenceResponse([output]))
            except ValueError as error:
                responses.append(triton.InferenceResponse([], triton.TritonError(str(error))))
        return responses
