"""From a config of SiglipModel, CLIPModel or MetaClip2Model (transformers) to an architecture of open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import open_clip
from torch import nn
from transformers import CLIPConfig, MetaClip2Config, SiglipConfig

from gcl.model.transformers.describe import CLIP_VOCABULARY

_CONFIGS: dict[str, Any] = {"siglip": SiglipConfig, "clip": CLIPConfig, "metaclip_2": MetaClip2Config}
# The architectures that SigLIP came in: width, layers, heads, MLP width, patch -> its name in timm, which ends in the
# image's size, and the sizes it has there.
SIGLIP_TOWERS: dict[tuple[int, int, int, int, int], tuple[str, tuple[int, ...]]] = {
    (768, 12, 12, 3072, 32): ("vit_base_patch32_siglip", (256,)),
    (768, 12, 12, 3072, 16): ("vit_base_patch16_siglip", (224, 256, 384, 512)),
    (1024, 24, 16, 4096, 16): ("vit_large_patch16_siglip", (256, 384, 512)),
    (1152, 27, 16, 4304, 14): ("vit_so400m_patch14_siglip", (224, 378, 384)),
    (1152, 27, 16, 4304, 16): ("vit_so400m_patch16_siglip", (256, 384, 512)),
    (1536, 40, 16, 6144, 16): ("vit_giantopt_patch16_siglip", (256, 384)),
}


def siglip_tower(vision: Mapping[str, Any]) -> str:
    """A SiglipVisionConfig's content -> timm's name of the same tower. Raises ValueError if it has none."""
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")
    shape, size = tuple(vision[key] for key in keys), vision["image_size"]
    if shape not in SIGLIP_TOWERS:
        raise ValueError(
            f"its image tower (width, layers, heads, MLP width, patch) = {shape} is not one of SigLIP's: "
            f"{', '.join(map(str, SIGLIP_TOWERS))}."
        )
    name, sizes = SIGLIP_TOWERS[shape]
    if size not in sizes:
        raise ValueError(f"in timm, {name} exists for images of {', '.join(map(str, sizes))} pixels, not of {size}.")
    return f"{name}_{size}"


def to_open_clip(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json of SiglipModel, CLIPModel or MetaClip2Model -> the `model_cfg` of an open_clip model that computes
    the same.

    The one exception: timm builds the small SigLIP towers with the exact GELU where Google's configs name the tanh
    approximation (open_clip does so with Google's own weights, too).

    Raises:
        ValueError: a model type, a size or an activation that open_clip has no architecture for.
    """
    kind = config.get("model_type")
    if kind not in _CONFIGS:
        raise ValueError(f"model_type {kind!r} is not supported; {', '.join(_CONFIGS)} are.")
    vision, text = filled(config, "vision"), filled(config, "text")
    common = {
        "context_length": text["max_position_embeddings"],
        "vocab_size": text["vocab_size"],
        "width": text["hidden_size"],
        "heads": text["num_attention_heads"],
        "layers": text["num_hidden_layers"],
        "mlp_ratio": _ratio(text),
        "norm_kwargs": {"eps": text["layer_norm_eps"]},
    }
    if kind == "siglip":
        return _siglip_cfg(vision, text, common)
    if kind == "metaclip_2":
        common |= {"hf_tokenizer_name": ".", "pool_type": "eos", "eos_id": text["eos_token_id"]}
    elif text["vocab_size"] != CLIP_VOCABULARY:
        raise ValueError(f"its vocabulary has {text['vocab_size']} entries, CLIP's tokenizer {CLIP_VOCABULARY}.")
    return _clip_cfg(vision, text, common)


def _siglip_cfg(vision: dict, text: dict, common: dict) -> dict[str, Any]:
    return {
        "embed_dim": vision["hidden_size"],
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision["image_size"], "timm_model_name": siglip_tower(vision),
            "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none",
        },
        "text_cfg": {
            **common, **_act(text["hidden_act"]), "hf_tokenizer_name": ".",
            "tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True, "proj_bias": True,
            "pool_type": "last",
        },
    }  # fmt: skip


def _clip_cfg(vision: dict, text: dict, common: dict) -> dict[str, Any]:
    quick = {tower["hidden_act"] == "quick_gelu" for tower in (vision, text)}
    if len(quick) > 1:
        raise ValueError("only one of its towers uses quick_gelu; open_clip uses the same activation in both.")
    heads = vision["num_attention_heads"]
    acts = [{} if True in quick else _act(tower["hidden_act"]) for tower in (vision, text)]
    return {
        "embed_dim": vision["projection_dim"],
        "quick_gelu": quick.pop(),
        "vision_cfg": {
            "image_size": vision["image_size"], "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"], "head_width": vision["hidden_size"] // heads,
            "patch_size": vision["patch_size"], "mlp_ratio": _ratio(vision),
            "norm_kwargs": {"eps": vision["layer_norm_eps"]}, **acts[0],
        },
        "text_cfg": {**common, **acts[1]},
    }  # fmt: skip


def _act(name: str) -> dict[str, Any]:
    if name == "gelu":
        return {}
    if name in ("gelu_pytorch_tanh", "gelu_new"):
        return {"act_kwargs": {"approximate": "tanh"}}
    raise ValueError(f"its activation {name!r} is not supported; gelu, gelu_pytorch_tanh and quick_gelu are.")


def _ratio(tower: dict[str, Any]) -> float:
    """A ratio from which open_clip's int(width * ratio) gets the MLP's width back."""
    width, wanted = tower["hidden_size"], tower["intermediate_size"]
    ratio = wanted / width
    return ratio if int(width * ratio) == wanted else (wanted + 0.5) / width


def filled(config: dict[str, Any], tower: Literal["vision", "text"]) -> dict[str, Any]:
    """A tower's config as its class reads it: with the defaults that files leave out, and with `*_config_dict` of
    older files on top."""
    whole = _CONFIGS[config["model_type"]].from_dict(dict(config))
    filled = getattr(whole, f"{tower}_config").to_dict()
    if isinstance(whole, CLIPConfig | MetaClip2Config):
        filled["projection_dim"] = whole.projection_dim  # the one that CLIPModel takes, whatever its towers say
    return filled


def build(model_cfg: dict[str, Any]) -> nn.Module:
    """The open_clip model of a `model_cfg`, randomly initialised."""
    cfg = {key: value for key, value in model_cfg.items() if key != "custom_text"}
    custom = model_cfg.get("custom_text", False)
    return (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**cfg)
