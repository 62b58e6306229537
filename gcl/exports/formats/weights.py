"""What leaves a run: the open_clip model's tensors and config, cut to the context length that the run reads."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from open_clip.timm_model import TimmModel
from torch import Tensor

from gcl.model.dual_encoder import DualEncoder, Origin
from gcl.model.heads import image_head
from gcl.model.settings import Head
from gcl.model.transformers.describe import describe
from gcl.model.transformers.read import siglip_tower

_POSITIONS = ("positional_embedding", "text.positional_embedding")


def origin_of(encoder: DualEncoder) -> Origin:
    """Where the model came from. Raises ValueError for one that was not built by `load_model`."""
    if encoder.origin is None:
        raise ValueError("This DualEncoder has no origin: an export needs a model that gcl.model.load built.")
    return encoder.origin


def exported_state(encoder: DualEncoder) -> dict[str, Tensor]:
    """The state dict of the open_clip model, in memory of its own, on the CPU.

    A run may read fewer tokens than its model could (model.context_length); a causal tower never sees the positions
    behind them, and without them every library cuts texts where the run did.
    """
    state = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.model.state_dict().items()}
    length = encoder.preprocess.tokens.context_length
    for name in _POSITIONS:
        if name in state and len(state[name]) > length:
            state[name] = state[name][:length].clone()
    return state


def exported_config(encoder: DualEncoder) -> dict[str, Any]:
    """The `model_cfg` that open_clip builds these tensors' model from."""
    model_cfg = deepcopy(origin_of(encoder).model_cfg)
    text_cfg = model_cfg.setdefault("text_cfg", {})
    length = encoder.preprocess.tokens.context_length
    if text_cfg.get("context_length", 77) != length:
        text_cfg["context_length"] = length
    if name := resized_tower(encoder):
        model_cfg["vision_cfg"]["timm_model_name"] = name
    if image_head(encoder.model.visual) is not None:
        model_cfg["vision_cfg"] |= {"timm_proj": "mlp", "timm_proj_bias": False}
    return model_cfg


def foreign_head(encoder: DualEncoder) -> str | None:
    """Why open_clip cannot build the run's image head; None: it can, as its own timm_proj=mlp."""
    visual = encoder.model.visual
    head = image_head(visual)
    if head is None:
        return None
    if head.kind is Head.mlp and isinstance(visual, TimmModel):  # one that was cut: open_clip's own reason says so
        return None
    what = "reads the stages of the tower" if head.kind is Head.stages else "has two layers of its own"
    return f"The image head (model.head={head.kind}) {what}, and open_clip has no class for this on such a tower."


def resized_tower(encoder: DualEncoder) -> str | None:
    """timm's name of a SigLIP tower whose image size the run has changed; None if it has not.

    open_clip builds timm's transformers at the size in their name, whatever image_size says. Raises ValueError if timm
    has none of this size.
    """
    trunk = getattr(encoder.model.visual, "trunk", None)
    own = (getattr(trunk, "default_cfg", None) or {}).get("input_size")
    size = encoder.preprocess.size
    if getattr(trunk, "pos_embed", None) is None or own is None or tuple(own[-2:]) == size:
        return None
    try:
        return siglip_tower(describe(encoder.model).config["vision_config"])
    except ValueError as error:
        raise ValueError(
            f"open_clip builds the image tower of {origin_of(encoder).name} for images of {own[-1]} pixels only, and "
            f"this run read {size[0]}: {error}"
        ) from error
