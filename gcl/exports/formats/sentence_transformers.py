"""A folder for `SentenceTransformer(folder)`: texts and images, prompts included, without remote code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from gcl.exports.folder import write_json
from gcl.exports.formats import transformers as native
from gcl.exports.formats.images import for_processor
from gcl.exports.formats.registry import unit
from gcl.exports.formats.tokenizer import BEYOND, native_tokenizer, save_tokenizer
from gcl.exports.formats.weights import exported_state, origin_of
from gcl.model.dual_encoder import DualEncoder
from gcl.model.text_only import TextOnly
from gcl.schema import SIDES, Modality, Schema

_TEXT_PREFIX = "text.transformer."  # of a TextOnly's state
# Class names as files of every version have them, and those that came with images (5.4).
_IDENTITY = "torch.nn.modules.linear.Identity"
_OLD, _NEW = "sentence_transformers.models", "sentence_transformers.base.modules"


def refuses(encoder: DualEncoder) -> str | None:
    if isinstance(encoder.model, TextOnly):
        config = encoder.model.text.config
        if getattr(config, "is_encoder_decoder", False):
            return f"sentence_transformers: {origin_of(encoder).name} is the encoder half of a {config.model_type}."
        return None
    why = native.refuses(encoder)
    return why and f"sentence_transformers loads what transformers has a class for. {why}"


def export_sentence_transformers(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes modules.json and its modules around the transformers files, which are written if they are not there."""
    if why := refuses(encoder):
        raise ValueError(why)
    prompts, notes = prompts_of(encoder.schema)
    if isinstance(encoder.model, TextOnly):
        notes += _text_only(encoder, encoder.model, folder)
    else:
        if not (folder / "model.safetensors").is_file():
            notes += native.export_transformers(encoder, folder)
        _two_towers(encoder, folder)
    packages = {"sentence_transformers": "sentence-transformers", "transformers": "transformers", "pytorch": "torch"}
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {name: version(package) for name, package in packages.items()},
            "model_type": "SentenceTransformer",
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    return notes


def prompts_of(schema: Schema) -> tuple[dict[str, str], list[str]]:
    """The schema's prompts as sentence-transformers has them, put in front of a text. -> prompts, notes.

    "query" and "document" (used by encode_query and encode_document) are those of the side's heaviest text field;
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
        notes.append(
            "sentence-transformers puts prompts in front of a text only; write these around the value yourself: "
            f"{', '.join(behind)}."
        )
    return prompts, notes


def _two_towers(encoder: DualEncoder, folder: Path) -> None:
    """One module that takes texts and images to their towers; a SigLIP text is padded to the context length."""
    siglip = json.loads((folder / "config.json").read_text("utf-8"))["model_type"] == "siglip"
    padding = {"padding": "max_length"} if siglip else {"padding": True}
    length = encoder.preprocess.tokens.context_length
    modalities = {
        name: {"method": f"get_{name}_features", "method_output_name": "pooler_output"} for name in ("text", "image")
    }
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction", "modality_config": modalities,
            "module_output_name": "sentence_embedding",
            "processing_kwargs": {"text": {**padding, "truncation": True, "max_length": length}},
        },
    )  # fmt: skip
    _modules(folder, ("", f"{_NEW}.transformer.Transformer"), ("1_Normalize", f"{_NEW}.normalize.Normalize"))
    write_json(
        folder / "1_Normalize" / "config.json",
        {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
    )


def _text_only(encoder: DualEncoder, model: TextOnly, folder: Path) -> list[str]:
    """The encoder, mean pooling, a rotation's linear layer if it has one, length one."""
    tokens = encoder.preprocess.tokens
    state = {
        name.removeprefix(_TEXT_PREFIX): value
        for name, value in exported_state(encoder).items()
        if name.startswith(_TEXT_PREFIX)
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.text.config.save_pretrained(folder)
    save_tokenizer(native_tokenizer(tokens, "text"), folder)
    about = {"max_seq_length": tokens.context_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", {**about, "model_args": {"add_pooling_layer": False}})
    rotation = model.text.proj if isinstance(model.text.proj, torch.nn.Linear) else None
    width = encoder.width if rotation is None else rotation.in_features
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "include_prompt": True},
    )
    parts = ["Transformer", "Pooling", *(["Dense"] if rotation is not None else []), "Normalize"]
    paths = ["", *(f"{number}_{name}" for number, name in enumerate(parts[1:], start=1))]
    (folder / paths[-1]).mkdir(exist_ok=True)
    if rotation is not None:
        layer: dict[str, Any] = {
            "in_features": width,
            "out_features": encoder.width,
            "bias": False,
            "activation_function": _IDENTITY,
        }
        write_json(folder / paths[2] / "config.json", layer)
        weight = rotation.weight.detach().cpu().contiguous()
        save_file({"linear.weight": weight}, folder / paths[2] / "model.safetensors", metadata={"format": "pt"})
    _modules(folder, *zip(paths, (f"{_OLD}.{name}" for name in parts), strict=True))
    return [BEYOND]


def _modules(folder: Path, *modules: tuple[str, str]) -> None:
    content = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_json(folder / "modules.json", content)


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
        processor = getattr(self.model[0], "processor").image_processor  # noqa: B009
        opened = [for_processor(processor, data) for data in images]
        return unit(self.model.encode(opened, show_progress_bar=False))


def snippet(encoder: DualEncoder, place: str) -> str:
    """Python source for the card."""
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
