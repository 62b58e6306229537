"""Folders without open_clip's config: SiglipModel, CLIPModel and MetaClip2Model of transformers, and Marqo's class."""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import set_model_preprocess_cfg
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from gcl.model.tokens import Tokenizer
from gcl.model.towers import image_size
from gcl.model.transformers.describe import Native, describe
from gcl.model.transformers.preprocessor import preprocess_cfg_of
from gcl.model.transformers.read import build, filled, to_open_clip
from gcl.model.transformers.tensors import from_native
from gcl.model.trusted import check_no_code, check_tokenizer, read_json
from gcl.model.weights import fill, read_weights

logger = logging.getLogger(__name__)

# What Marqo's repositories wrap: their class names the repository, open_clip knows the architecture.
MARQO = {
    "hf-hub:Marqo/marqo-ecommerce-embeddings-B": "ViT-B-16-SigLIP",
    "hf-hub:Marqo/marqo-ecommerce-embeddings-L": "ViT-L-16-SigLIP-256",
    "hf-hub:Marqo/marqo-fashionSigLIP": "ViT-B-16-SigLIP",
    "hf-hub:Marqo/marqo-fashionCLIP": "ViT-B-16",
}
_WRAPPED = "model."  # where Marqo's class keeps the open_clip model


def read_native(folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any], Tokenizer]:
    """-> model, model_cfg, preprocess_cfg, open_clip tokenizer. No code of the folder is run.

    Raises ValueError for a folder that is not of a SiglipModel, a CLIPModel or Marqo's class, or does not fit together.
    """
    config = read_json(folder / "config.json")
    wrapped = config.get("open_clip_model_name")
    state = read_weights(folder)
    if isinstance(wrapped, str) and all(name.startswith(_WRAPPED) for name in state):
        model, model_cfg = _wrapped(folder, wrapped, state)
    else:
        check_no_code(folder / "config.json", config)
        model, model_cfg = _converted(folder, config, state)
    preprocess_cfg = _preprocess(folder, model, str(config.get("model_type")))
    set_model_preprocess_cfg(model, preprocess_cfg)
    return model, model_cfg, preprocess_cfg, _tokenizer(folder, model_cfg)


def _converted(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    try:
        model_cfg = to_open_clip(config)
        model = build(deepcopy(model_cfg))
    except Exception as error:  # a config from anywhere makes the builders raise nearly every kind of exception
        why = " ".join(str(error).split())
        raise ValueError(f"{folder} cannot be read as an open_clip model: {why or type(error).__name__}") from error
    kind, native = config["model_type"], describe(model)
    _same_activation(folder, config, native)
    table = native.table
    known = {name for link in table for name in link.theirs}
    extra = sorted(name for name in set(state) - known if not name.endswith("position_ids"))
    if extra:
        raise ValueError(f"{folder} does not fit: {kind} has no {extra[0]}, which its weights hold.")
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    try:
        fill(model, from_native(state, table, shapes), str(folder))
    except ValueError as error:
        raise ValueError(f"{folder} does not fit its config.json: {error}") from error
    return model, model_cfg


def _same_activation(folder: Path, config: dict[str, Any], native: Native) -> None:
    """timm builds some SigLIP towers with the exact GELU where Google's configs name the tanh approximation."""
    wanted = filled(config, "vision")["hidden_act"]
    built = native.config["vision_config"]["hidden_act"]
    if wanted == built:
        return
    gelus = {"gelu", "gelu_pytorch_tanh", "gelu_new"}
    if not {wanted, built} <= gelus:
        raise ValueError(f"{folder} cannot be read as an open_clip model: {wanted} in its image tower, not {built}.")
    logger.warning(
        "%s: its image tower was trained with %s and is built with %s, as open_clip does with Google's weights.",
        folder, wanted, built,
    )  # fmt: skip


def _wrapped(folder: Path, name: str, state: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    architecture = MARQO.get(name, name)
    model_cfg = None if ":" in architecture else open_clip.get_model_config(architecture)
    if model_cfg is None:
        raise ValueError(
            f"{folder} wraps the open_clip model {name!r}, whose architecture is not known here; known are "
            f"{', '.join(MARQO)} and open_clip's own names."
        )
    model = build(deepcopy(model_cfg))
    fill(model, {key.removeprefix(_WRAPPED): value for key, value in state.items()}, str(folder))
    return model, model_cfg


def _preprocess(folder: Path, model: nn.Module, model_type: str) -> dict[str, Any]:
    """open_clip's preprocess_cfg from processor_config.json, which comes first, or preprocessor_config.json."""
    config: dict[str, Any] = {}
    if (folder / "processor_config.json").is_file():
        config = read_json(folder / "processor_config.json").get("image_processor") or {}
    if not config and (folder / "preprocessor_config.json").is_file():
        config = read_json(folder / "preprocessor_config.json")
    if not config:
        raise ValueError(f"{folder} has no preprocessor_config.json with size, image_mean and image_std.")
    try:
        return preprocess_cfg_of(config, image_size(model), model_type)
    except ValueError as error:
        raise ValueError(f"{folder}: its preprocessor_config.json {error}") from error


def _tokenizer(folder: Path, model_cfg: dict[str, Any]) -> Tokenizer:
    text_cfg = model_cfg["text_cfg"]
    length = text_cfg.get("context_length", 77)
    if not text_cfg.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(context_length=length)
    check_tokenizer(folder)
    return hugging_face_tokenizer(str(folder), context_length=length, **(text_cfg.get("tokenizer_kwargs") or {}))


def hugging_face_tokenizer(source: str, **settings: Any) -> HFTokenizer:
    """open_clip's wrapper, with no code of the source allowed, asked for or not."""
    return HFTokenizer(source, trust_remote_code=False, **settings)
