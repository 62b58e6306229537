"""transformers.js: the folder in browsers and in node, through its own tokenizer, processor and session of onnxruntime.

Images are given to it in the model's size. Where they are not, it resizes them by the filters of a browser's canvas or
of libvips, neither of which is Pillow's.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.formats import transformers as native
from gcl.exports.formats.hub_onnx import export_hub_onnx, output_of
from gcl.exports.formats.onnx_session import LoadedGraphs
from gcl.exports.formats.registry import unit
from gcl.exports.formats.tokenizer import spell_out
from gcl.exports.node import NODE, TRANSFORMERS_JS, node_package
from gcl.exports.settings import Precision
from gcl.model.dual_encoder import DualEncoder
from gcl.model.transformers.describe import describe
from gcl.schema import Modality

_CLIP = {Modality.text: "CLIPTextModelWithProjection", Modality.image: "CLIPVisionModelWithProjection"}
_CLASSES = {
    "siglip": {Modality.text: "SiglipTextModel", Modality.image: "SiglipVisionModel"},
    "clip": _CLIP,
    "metaclip_2": _CLIP,  # it has no class of that name, and its classes run what graph they find
}
_DTYPES = {Precision.fp32: "fp32", Precision.fp16: "fp16", Precision.int8: "q8"}


def refuses(encoder: DualEncoder) -> str | None:
    why = native.refuses(encoder)
    return why and f"transformers.js has the classes of transformers. {why}"


def export_transformers_js(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes the graphs under the names of the Hub, and a tokenizer.json that transformers.js can obey as well."""
    if why := refuses(encoder):
        raise ValueError(why)
    notes = export_hub_onnx(encoder, folder)
    spell_out(folder)
    height, width = encoder.preprocess.size
    return [
        *notes,
        f"transformers.js resizes images by other filters than the training: give it images of {width} x {height} "
        "pixels, shrunk by a good filter (a canvas with imageSmoothingQuality = 'high', or sharp's resize).",
    ]


class LoadedTransformersJs(LoadedGraphs):
    """The folder through transformers.js, in a process of node that ends with this object."""

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        super().__init__(folder, precision)
        package = node_package(TRANSFORMERS_JS)
        if package is None:
            raise ValueError(f"{TRANSFORMERS_JS} is not installed: npm install --ignore-scripts {TRANSFORMERS_JS}.")
        kind = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
        settings = {
            "folder": str(folder.resolve()),
            "dtype": _DTYPES[Precision(precision)],
            "classes": {modality.value: name for modality, name in _CLASSES[kind].items()},
            "outputs": {modality.value: output_of(kind, modality) for modality in Modality},
            # at its highest level onnxruntime fails on half-precision graphs
            "session_options": {"graphOptimizationLevel": "extended"} if precision == Precision.fp16 else {},
        }
        script = Path(__file__).with_suffix(".cjs")
        self._process = subprocess.Popen(
            [NODE, str(script), str(package), json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )  # fmt: skip

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            process.communicate()  # the end of its input ends it

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or '{"error": "node ended"}')
        except BrokenPipeError:
            answer = {"error": "node ended"}
        if "error" in answer:
            raise ValueError(f"transformers.js: {answer['error']}")
        return answer

    def ids(self, text: str) -> list[int]:
        """The token ids of a text given alone, padded to the context."""
        return self._ask(do="ids", texts=[text])["ids"][0]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return _vectors(self._ask(do="texts", texts=list(texts)))

    def images(self, images: Sequence[bytes]) -> np.ndarray:
        raw = [
            {"height": len(one), "width": len(one[0]), "rgb": base64.b64encode(one.tobytes()).decode()}
            for one in self.pixels(images).transpose(0, 2, 3, 1)
        ]
        return _vectors(self._ask(do="images", images=raw))


def _vectors(answer: dict[str, Any]) -> np.ndarray:
    numbers = np.frombuffer(base64.b64decode(answer["float32"]), dtype="<f4")
    return unit(numbers.reshape(answer["shape"]))


def snippet(encoder: DualEncoder, place: str) -> str:
    """JavaScript for the card."""
    kind = describe(encoder.model).kind
    text, image = _CLASSES[kind].values()
    height, width = encoder.preprocess.size
    return f"""\
import {{ AutoImageProcessor, AutoTokenizer, RawImage, {text}, {image}, env }} from "{TRANSFORMERS_JS}";

env.localModelPath = "./"; // a folder here, else a repository of the Hub
const tokenizer = await AutoTokenizer.from_pretrained("{place}");
const processor = await AutoImageProcessor.from_pretrained("{place}");
const textModel = await {text}.from_pretrained("{place}", {{ dtype: "fp32" }});
const imageModel = await {image}.from_pretrained("{place}", {{ dtype: "fp32" }});

const inputs = tokenizer(["something red", "something blue"], {{ padding: true, truncation: true }});
const {{ {output_of(kind, Modality.text)}: texts }} = await textModel(inputs);
const red = new Uint8Array({width} * {height} * 3).map((_, n) => (n % 3 ? 0 : 255));
const photo = new RawImage(red, {width}, {height}, 3); // yours: await RawImage.read("shoe-of-{width}x{height}.png")
const {{ {output_of(kind, Modality.image)}: images }} = await imageModel(await processor(photo));
const dot = (a, b) => a.reduce((sum, value, n) => sum + value * b[n], 0);
console.log(texts.tolist().map((text) => dot(text, images.tolist()[0])));
"""
