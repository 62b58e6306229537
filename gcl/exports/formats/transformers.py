"""The native classes of transformers: SiglipModel, CLIPModel and MetaClip2Model with processor, without remote code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    SiglipConfig,
    SiglipModel,
)
from transformers.utils import logging

from gcl.exports.folder import write_json
from gcl.exports.formats.images import for_processor
from gcl.exports.formats.registry import unit
from gcl.exports.formats.tokenizer import BEYOND, native_tokenizer, save_tokenizer
from gcl.exports.formats.weights import exported_state, origin_of
from gcl.model.dual_encoder import DualEncoder
from gcl.model.settings import OWN_RESIZE, Resize
from gcl.model.transformers.describe import Native, NotNative, describe
from gcl.model.transformers.tensors import to_native

CLASSES = {"siglip": (SiglipConfig, SiglipModel), "clip": (CLIPConfig, CLIPModel),
           "metaclip_2": (MetaClip2Config, MetaClip2Model)}  # fmt: skip
_WEIGHTS = "model.safetensors"
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
IMAGES = (
    "transformers reads some images a little differently from the training: those that are neither RGB nor grey become "
    "RGB before they are resized (in training afterwards, which shows in palettes and transparency). Resize those "
    "yourself for the very same vectors."
)
CROP = (
    "The run crops as open_clip does; where an odd number of pixels is cut off, transformers may begin one pixel "
    "further left or up. Crop those yourself for the very same vectors."
)


def refuses(encoder: DualEncoder) -> str | None:
    name = origin_of(encoder).name
    try:
        describe(encoder.model)
    except NotNative as reason:
        return f"transformers has no native class for {name}: {reason}."
    if encoder.preprocess.resize == "longest":
        return f"{name} reads images with resize=longest, and the processors of transformers pad them differently."
    return None


def export_transformers(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes config.json, model.safetensors and its index, preprocessor_config.json and the tokenizer's files.

    Raises ValueError for an architecture without a native class.
    """
    if why := refuses(encoder):
        raise ValueError(why)
    native, state = describe(encoder.model), exported_state(encoder)
    tokenizer = native_tokenizer(encoder.preprocess.tokens, native.kind)
    config = native_config(native, tokenizer)
    with torch.device("meta"):
        model = CLASSES[native.kind][1](config)
    notes = [BEYOND, IMAGES, *([CROP] if encoder.preprocess.resize == Resize.shortest else [])]
    if native.kind == "siglip":
        state.setdefault("logit_bias", torch.zeros(1))
        notes.append(
            "A SigLIP text tower reads its padding: the processor pads to the context length by itself; a tokenizer "
            "called without it needs padding='max_length', and so does a request to vLLM."
        )
    elif "logit_bias" in state:
        notes.append(f"{native.architecture} has no logit bias; this model's bias is in the open_clip files only.")
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    weights = to_native(state, native.table, shapes)
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    # vLLM loads every safetensors file of a folder, open_clip's too, unless an index says which are the model's.
    size = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(sorted(weights), _WEIGHTS)}
    write_json(folder / f"{_WEIGHTS}.index.json", index)
    config.architectures = [native.architecture]
    config.dtype = "float32"
    config.save_pretrained(folder)
    path = folder / "config.json"  # servers cut texts at its max_length, which transformers 4 takes for 20 otherwise
    write_json(path, {**json.loads(path.read_text("utf-8")), "max_length": tokenizer.model_max_length})
    save_tokenizer(tokenizer, folder)
    write_json(folder / "preprocessor_config.json", image_processor(encoder, native))
    return notes


def native_config(native: Native, tokenizer: Any) -> SiglipConfig | CLIPConfig | MetaClip2Config:
    """The config of the class, cut to the tokenizer's length, with the tokenizer's special ids."""
    content = json.loads(json.dumps(native.config))
    text = content["text_config"]
    text["max_position_embeddings"] = tokenizer.model_max_length
    for name in ("bos", "eos", "pad"):
        text.setdefault(f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    return CLASSES[native.kind][0](**content)


def image_processor(encoder: DualEncoder, native: Native) -> dict[str, Any]:
    """preprocessor_config.json: how an image becomes pixels, and which processor reads the folder."""
    own = encoder.preprocess
    height, width = own.size
    squash = own.resize == "squash"
    crop = {} if squash else {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
    if own.resize == Resize.shortest:
        crop[OWN_RESIZE] = own.resize.value  # transformers passes it over; gcl reads the folder as the run did
    return {
        "image_processor_type": "SiglipImageProcessor" if native.kind == "siglip" and squash else "CLIPImageProcessor",
        "processor_class": "SiglipProcessor" if native.kind == "siglip" else "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": height, "width": width} if squash else {"shortest_edge": height},
        "resample": int(_RESAMPLE[own.interpolation]),
        "do_center_crop": False,
        **crop,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(own.mean),
        "image_std": list(own.std),
    }


class LoadedTransformers:
    """The folder through AutoModel and AutoProcessor."""

    def __init__(self, folder: Path):
        with without_bars():
            self.model = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
        self.processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        inputs = self.processor(text=list(texts), return_tensors="pt")
        return unit(vectors(self.model.get_text_features(**inputs)).numpy())

    @torch.inference_mode()
    def images(self, images: Sequence[bytes]) -> np.ndarray:
        opened = [for_processor(self.processor.image_processor, data) for data in images]
        inputs = self.processor(images=opened, return_tensors="pt")
        return unit(vectors(self.model.get_image_features(**inputs)).numpy())


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bar that transformers shows for every model it loads, however small."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def vectors(output: Any) -> torch.Tensor:
    """transformers 5 returns an output with the projected vectors in `pooler_output`, transformers 4 the vectors."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def snippet(encoder: DualEncoder, place: str) -> str:
    """Python source for the card."""
    return f"""\
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{place}")
processor = AutoProcessor.from_pretrained("{place}")
image = Image.new("RGB", (640, 480), "red")  # yours: transformers.image_utils.load_image("shoe.jpg")
inputs = processor(text=["something red", "something blue"], images=image, return_tensors="pt")
with torch.inference_mode():
    outputs = model(**inputs)
print(outputs.image_embeds @ outputs.text_embeds.T)
"""
