"""A folder for `SentenceTransformer(folder)`: texts and pictures, prompts included, without remote code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from gcl.export.formats import transformers as native
from gcl.export.formats.base import Format, unit
from gcl.export.formats.images import for_processor
from gcl.export.formats.open_clip import save_tokenizer
from gcl.export.formats.tokenizer import native_tokenizer
from gcl.export.formats.tokenizer_cleaning import BEYOND
from gcl.export.formats.weights import exported_state
from gcl.model.dual_encoder import DualEncoder
from gcl.model.text_only import TextOnly
from gcl.schema import SIDES, Modality, Schema

_TEXT_PREFIX = "text.transformer."  # of a TextOnly's state
# Class names as files of every version say them; and those that came with pictures (5.4).
_OLD, _NEW = "sentence_transformers.models", "sentence_transformers.base.modules"


def refuses(encoder: DualEncoder) -> str | None:
    if isinstance(encoder.model, TextOnly):
        config = encoder.model.text.config
        if getattr(config, "is_encoder_decoder", False):
            return f"sentence_transformers: {encoder.origin.name} is the encoder half of a {config.model_type}."
        return None
    why = native.refuses(encoder)
    return why and f"sentence_transformers loads what transformers has a class for. {why}"


def export_sentence_transformers(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes modules.json and its modules around the transformers files, which are written if they are not there."""
    if why := refuses(encoder):
        raise ValueError(why)
    prompts, notes = prompts_of(encoder.schema)
    if isinstance(encoder.model, TextOnly):
        notes += _text_only(encoder, folder)
    else:
        if not (folder / "model.safetensors").is_file():
            notes += native.export_transformers(encoder, folder)
        _two_towers(encoder, folder)
    versions = {"sentence_transformers": "6.2.0", "transformers": "5.23.0", "pytorch": "2.15.0"}
    _write(
        folder / "config_sentence_transformers.json",
        {
            "__version__": versions, "model_type": "SentenceTransformer", "prompts": prompts,
            "default_prompt_name": None, "similarity_fn_name": "cosine",
        },
    )  # fmt: skip
    return notes


def prompts_of(schema: Schema) -> tuple[dict[str, str], list[str]]:
    """The schema's prompts as sentence-transformers has them: words in front of a text. -> prompts, notes.

    "query" and "document" are those of the side's heaviest text field (what encode_query and encode_document use);
    every text field has its own under its name, or <side>.<name> where the two sides disagree.
    """
    prompts, notes, behind = {"query": "", "document": ""}, [], []
    for side in SIDES:
        texts = {name: field for name, field in schema.side(side).items() if field.modality is Modality.text}
        for name, field in sorted(texts.items(), key=lambda item: item[1].weight):
            front, _, back = field.prompt.partition("{}")
            if back:
                behind.append(f"{side}.{name}: `{field.prompt}`")
                continue
            prompts[side] = front
            other = schema.side("document" if side == "query" else "query").get(name)
            if name != side:
                clash = name in SIDES or (other is not None and other.prompt != field.prompt)
                prompts[f"{side}.{name}" if clash else name] = front
    if behind:
        notes.append("sentence-transformers puts prompts in front of a text only; write these around the value "
                     f"yourself: {', '.join(behind)}.")  # fmt: skip
    return prompts, notes


def _two_towers(encoder: DualEncoder, folder: Path) -> None:
    """One module that takes texts and pictures to their towers; a SigLIP text is padded to the context length."""
    siglip = json.loads((folder / "config.json").read_text("utf-8"))["model_type"] == "siglip"
    padding = {"padding": "max_length"} if siglip else {"padding": True}
    length = encoder.preprocess.tokens.context_length
    modalities = {
        name: {"method": f"get_{name}_features", "method_output_name": "pooler_output"} for name in ("text", "image")
    }
    _write(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction", "modality_config": modalities,
            "module_output_name": "sentence_embedding",
            "processing_kwargs": {"text": {**padding, "truncation": True, "max_length": length}},
        },
    )  # fmt: skip
    _modules(folder, ("", f"{_NEW}.transformer.Transformer"), ("1_Normalize", f"{_NEW}.normalize.Normalize"))
    _write(
        folder / "1_Normalize" / "config.json",
        {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
    )


def _text_only(encoder: DualEncoder, folder: Path) -> list[str]:
    """The encoder, mean pooling, length one."""
    transformer, tokens = encoder.model.text.transformer, encoder.preprocess.tokens
    state = {
        name.removeprefix(_TEXT_PREFIX): value
        for name, value in exported_state(encoder).items()
        if name.startswith(_TEXT_PREFIX)
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    transformer.config.save_pretrained(folder)
    save_tokenizer(native_tokenizer(tokens, "text"), folder)
    about = {"max_seq_length": tokens.context_length, "do_lower_case": False}
    _write(folder / "sentence_bert_config.json", {**about, "model_args": {"add_pooling_layer": False}})
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": encoder.width, "pooling_mode_mean_tokens": True, "include_prompt": True},
    )
    (folder / "2_Normalize").mkdir(exist_ok=True)
    parts = ("Transformer", "Pooling", "Normalize")
    _modules(folder, *zip(("", "1_Pooling", "2_Normalize"), (f"{_OLD}.{name}" for name in parts), strict=True))
    return [BEYOND]


def _modules(folder: Path, *modules: tuple[str, str]) -> None:
    content = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    _write(folder / "modules.json", content)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class LoadedSentenceTransformers:
    """The folder through SentenceTransformer."""

    def __init__(self, folder: Path):
        from sentence_transformers import SentenceTransformer

        with native.without_bars():
            self.model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=False).eval()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(self.model.encode(list(texts), show_progress_bar=False))

    @torch.inference_mode()
    def images(self, images: Sequence[bytes]) -> np.ndarray:
        if not self.model.supports("image"):
            raise ValueError("This model encodes texts alone.")
        processor = self.model[0].processor.image_processor
        pictures = [for_processor(processor, data) for data in images]
        return unit(self.model.encode(pictures, show_progress_bar=False))


def _snippet(encoder: DualEncoder, place: str) -> str:
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{place}")',
        'queries = model.encode_query(["something red", "something blue"])',
    ]
    if isinstance(encoder.model, TextOnly):
        lines += ['documents = model.encode_document(["a red shoe", "a blue shoe"])']
    else:
        lines[:1] = ["from PIL import Image", lines[0]]
        lines += ['documents = model.encode([Image.new("RGB", (640, 480), "red")])  # yours: Image.open("shoe.jpg")']
    return "\n".join([*lines, "print(model.similarity(queries, documents))", ""])


SENTENCE_TRANSFORMERS = Format(
    "sentence_transformers", export_sentence_transformers, LoadedSentenceTransformers, _snippet, refuses,
    requires=("sentence_transformers",),
)  # fmt: skip
