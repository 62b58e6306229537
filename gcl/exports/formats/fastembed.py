"""FastEmbed (Qdrant's): the text tower as a custom model, from the files that transformers.js reads.

FastEmbed has no custom image models: images are encoded by onnxruntime, into the same vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gcl.exports.folder import reached
from gcl.exports.formats import hub_onnx
from gcl.exports.formats import transformers as native
from gcl.exports.formats.onnx_session import LoadedOnnx
from gcl.exports.formats.registry import unit
from gcl.exports.formats.tokenizer import native_tokenizer, save_tokenizer
from gcl.exports.settings import Precision
from gcl.model.dual_encoder import DualEncoder
from gcl.model.text_only import TextOnly
from gcl.schema import Modality

_PLACE = f"onnx/{hub_onnx.NAMES[Modality.text]}"


def refuses(encoder: DualEncoder) -> str | None:
    if isinstance(encoder.model, TextOnly):
        return None
    why = native.refuses(encoder)
    return why and f"FastEmbed gets the tokenizer of the transformers files. {why}"


def export_fastembed(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes the graphs under the names of the Hub and the tokenizer's files, unless another format has."""
    if why := refuses(encoder):
        raise ValueError(why)
    if not (folder / "tokenizer.json").is_file():
        save_tokenizer(native_tokenizer(encoder.preprocess.tokens, hub_onnx.reader_of(encoder)), folder)
    notes = [] if (folder / f"{_PLACE}.onnx").is_file() else hub_onnx.export_hub_onnx(encoder, folder)
    return [*notes, "FastEmbed encodes texts; encode images with the code of another format, into the same vectors."]


class LoadedFastEmbed(LoadedOnnx):
    """Texts through FastEmbed, images through onnxruntime."""

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        super().__init__(folder, precision)
        name = f"{folder}:{precision}"
        if not any(name.lower() == known["model"].lower() for known in TextEmbedding.list_supported_models()):
            TextEmbedding.add_custom_model(
                model=name, pooling=PoolingType.DISABLED, normalization=False, sources=ModelSource(hf=name),
                dim=self.config["width"], model_file=f"{_PLACE}{hub_onnx.SUFFIX[Precision(precision)]}.onnx",
            )  # fmt: skip
        self._texts = TextEmbedding(name, specific_model_path=str(folder), providers=["CPUExecutionProvider"])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.stack(list(self._texts.embed(list(texts)))))


def snippet(encoder: DualEncoder, place: str) -> str:
    """Python source for the card."""
    fetch, folder = reached(place)
    return f"""\
import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
{fetch}
TextEmbedding.add_custom_model(
    model="my-shop", pooling=PoolingType.DISABLED, normalization=False, sources=ModelSource(hf="my-shop"),
    dim={encoder.width}, model_file="{_PLACE}.onnx",
)
model = TextEmbedding("my-shop", specific_model_path={folder})
queries = np.stack(list(model.embed(["something red", "something blue"])))
print(queries.shape, (queries @ queries.T).round(3))
"""
