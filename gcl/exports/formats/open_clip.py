"""open_clip: a folder or repository for `open_clip.create_model_and_transforms`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

from gcl.exports.folder import settled, write_json
from gcl.exports.formats.images import for_open_clip
from gcl.exports.formats.registry import unit
from gcl.exports.formats.tokenizer import save_tokenizer
from gcl.exports.formats.weights import exported_config, exported_state, foreign_head, origin_of, resized_tower
from gcl.model.dual_encoder import DualEncoder
from gcl.model.settings import OWN_RESIZE, Resize

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
CROP = (
    "The run crops as transformers does; where an odd number of pixels is cut off, open_clip may begin one pixel "
    "further right or down. Crop those yourself for the very same vectors, as was done for the comparison."
)


def refuses(encoder: DualEncoder) -> str | None:
    if getattr(encoder.model, "visual", None) is None:
        return f"{origin_of(encoder).name} has no image tower, and open_clip has no class for a text encoder alone."
    if why := foreign_head(encoder):
        return why
    try:
        resized_tower(encoder)
    except ValueError as error:
        return str(error)
    return _cut_mlp(encoder)


def _cut_mlp(encoder: DualEncoder) -> str | None:
    """Why vectors that were cut have no open_clip model: it derives the hidden layer of an MLP from their width."""
    image = getattr(getattr(encoder.model.visual, "head", None), "mlp", None)
    text = getattr(getattr(encoder.model, "text", None), "proj", None)
    first = text[0] if isinstance(text, nn.Sequential) and len(text) else None
    hidden = [] if image is None else [("image", image.fc1.out_features, 2 * encoder.width)]
    if isinstance(first, nn.Linear):
        hidden.append(("text", first.out_features, (first.in_features + encoder.width) // 2))
    for modality, has, derived in hidden:
        if has != derived:
            return (
                f"The {modality} tower of {origin_of(encoder).name} ends in an MLP with {has} hidden numbers, "
                f"and open_clip builds one of {derived} for vectors of {encoder.width}."
            )
    return None


def export_open_clip(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes config, weights (safetensors only) and the tokenizer's files; returns notes for the card.

    Raises ValueError for a model that open_clip has no class for (a text encoder alone).
    """
    if why := refuses(encoder):
        raise ValueError(why)
    folder.mkdir(parents=True, exist_ok=True)
    model_cfg = exported_config(encoder)
    tokenizer = getattr(origin_of(encoder).tokenizer, "tokenizer", None)
    if hasattr(tokenizer, "save_pretrained"):
        save_tokenizer(tokenizer, folder)
    transformer = getattr(getattr(encoder.model, "text", None), "transformer", None)
    text_config = getattr(transformer, "config", None) if model_cfg["text_cfg"].get("hf_model_name") else None
    if text_config is not None:  # open_clip builds this text tower from a transformers config: the folder brings it
        text_config.save_pretrained(folder)
        model_cfg["text_cfg"] = {**model_cfg["text_cfg"], "hf_model_pretrained": False}
    model_cfg |= _temperature(encoder)
    write_json(folder / CONFIG, {"model_cfg": model_cfg, "preprocess_cfg": _preprocess(encoder)})
    save_file(exported_state(encoder), folder / WEIGHTS)
    settle(folder, str(folder.resolve()))
    return _notes(encoder, text_config is not None, bool(tokenizer))


def settle(folder: Path, place: str) -> None:
    """Writes the place of the folder (a path, or owner/name on the Hub) into its open_clip_config.json.

    open_clip looks there for the config of a Hugging Face text tower, and on the Hub for any Hugging Face tokenizer. In
    a local folder it finds the tokenizer by itself.
    """
    path = folder / CONFIG
    if not path.is_file():
        return
    write_json(path, settled(json.loads(path.read_text("utf-8")), place))


class LoadedOpenClip:
    """The folder through open_clip alone."""

    def __init__(self, folder: Path):
        name = f"local-dir:{folder}"
        self.model, _, self.transform = open_clip.create_model_and_transforms(name, **_tower_here(folder))
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name)
        self.preprocess_cfg = json.loads((folder / CONFIG).read_text("utf-8"))["preprocess_cfg"]

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(self.model.encode_text(self.tokenizer(list(texts))).numpy())

    @torch.inference_mode()
    def images(self, images: Sequence[bytes]) -> np.ndarray:
        pixels = torch.stack([self.transform(for_open_clip(self.preprocess_cfg, data)) for data in images])
        return unit(self.model.encode_image(pixels).numpy())


def _tower_here(folder: Path) -> dict[str, Any]:
    """Overrides by which a moved folder's Hugging Face text tower is found."""
    text_cfg = json.loads((folder / CONFIG).read_text("utf-8"))["model_cfg"]["text_cfg"]
    return {"text_cfg": {**text_cfg, "hf_model_name": str(folder)}} if text_cfg.get("hf_model_name") else {}


def snippet(encoder: DualEncoder, place: str) -> str:
    """Python source for the card."""
    name = f"local-dir:{place}" if Path(place).is_dir() else f"hf-hub:{place}"
    return f"""\
import open_clip
import torch
from PIL import Image, ImageOps

model, _, preprocess = open_clip.create_model_and_transforms("{name}")
tokenizer = open_clip.get_tokenizer("{name}")
model.eval()
image = ImageOps.exif_transpose(Image.new("RGB", (640, 480), "red"))  # yours: Image.open("shoe.jpg")
with torch.inference_mode():
    texts = model.encode_text(tokenizer(["something red", "something blue"]), normalize=True)
    images = model.encode_image(preprocess(image)[None], normalize=True)
print(images @ texts.T)
"""


def _notes(encoder: DualEncoder, foreign_text: bool, tokenizer: bool) -> list[str]:
    crop = encoder.preprocess.resize == Resize.shortest_transformers
    notes = [CROP] if crop else []
    if foreign_text:
        return [
            "open_clip looks for the text tower's config where `hf_model_name` of open_clip_config.json says: after "
            "moving the folder, set it to its new path (and `hf_tokenizer_name` with it).",
            *notes,
        ]
    whose = "The tokenizer's files are in this folder." if tokenizer else "open_clip brings this model's tokenizer."
    return [whose, *notes]


def _temperature(encoder: DualEncoder) -> dict[str, float]:
    """The initial values that open_clip builds with; without a bias here a saved one would not be loaded."""
    log_scale, bias = encoder.scale_bias
    return {"init_logit_scale": log_scale} | ({} if bias is None else {"init_logit_bias": bias})


def _preprocess(encoder: DualEncoder) -> dict[str, Any]:
    cfg = origin_of(encoder).preprocess_cfg
    keys = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
    resize = encoder.preprocess.resize
    own = {} if resize == resize.in_open_clip else {OWN_RESIZE: resize.value}
    return {key: cfg[key] for key in keys if key in cfg} | own
