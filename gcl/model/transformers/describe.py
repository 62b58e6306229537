"""Which open_clip models are a SiglipModel, CLIPModel or MetaClip2Model of transformers, and with which config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import Attention
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from gcl.model.heads import image_head
from gcl.model.towers import OpenClipModel, TextParts, pooling_of, text_parts
from gcl.model.transformers.tensors import Kind, Link, links

M = TypeVar("M", bound=nn.Module)
CLIP_VOCABULARY, CLIP_START, CLIP_END = 49408, 49406, 49407


@dataclass(frozen=True)
class Native:
    """kind: which class. config: its config.json. table: the links of its tensors with open_clip's."""

    kind: Kind
    config: dict[str, Any]
    table: list[Link]

    @property
    def architecture(self) -> str:
        """The class in transformers."""
        return {"siglip": "SiglipModel", "clip": "CLIPModel", "metaclip_2": "MetaClip2Model"}[self.kind]


class NotNative(ValueError):
    """Why a model has no class in transformers."""


def describe(model: nn.Module) -> Native:
    """The native class of an open_clip model, read off its modules. Raises NotNative with the reason."""
    visual = getattr(model, "visual", None)
    if visual is None:
        raise NotNative("it is a text encoder alone")
    if (head := image_head(visual)) is not None:
        raise NotNative(f"its image head is a model.head={head.kind}, and those classes have no such layers")
    text = text_parts(model)
    if text is None:
        raise NotNative("its text tower is a Hugging Face encoder with a head of its own")
    if isinstance(visual, TimmModel):
        native = _siglip(visual, text)
    elif isinstance(visual, VisionTransformer):
        native = _clip(model, visual, text)
    else:
        raise NotNative(f"its image tower is a {type(visual).__name__}")
    extra = set(model.state_dict()) - {name for link in native.table for name in link.ours} - {"logit_bias"}
    if extra:
        raise NotNative(f"{native.architecture} has no place for its {min(extra)}")
    return native


def _siglip(visual: TimmModel, text: TextParts) -> Native:
    trunk = visual.trunk
    if not isinstance(trunk, TimmViT):
        raise NotNative(f"its image tower is timm's {type(trunk).__name__}")
    pool, projection = trunk.attn_pool, text.text_projection
    if not isinstance(pool, AttentionPoolLatent) or trunk.cls_token is not None:
        raise NotNative("its image tower does not end in attention pooling, as SigLIP's does")
    if len(list(visual.head.children())):
        raise NotNative("a layer follows its image tower's attention pooling, and SiglipModel has no place for one")
    blocks = trunk.blocks
    heads = _part(blocks, "0.attn", Attention).num_heads
    _require(pool.num_heads == heads, "its attention pool has heads of its own")
    _require(text.attn_mask is None and pooling_of(text)[0] == "last", "its text tower does not pool the last token")
    _require(not getattr(text, "use_pad_mask", False), "its text tower masks padding")
    if not isinstance(projection, nn.Linear):
        raise NotNative("its text tower has no projection with a bias")
    config = {
        "vision_config": {
            **_tower(blocks, trunk.norm, pool, heads=heads, width=trunk.embed_dim),
            "intermediate_size": _part(blocks, "0.mlp.fc1", nn.Linear).out_features,
            **_patches(visual.image_size, trunk.patch_embed.patch_size),
        },
        "text_config": {**_text(text), "projection_size": projection.out_features},
    }
    table = links("siglip", vision_layers=len(blocks), text_layers=len(text.transformer.resblocks))
    return Native("siglip", config, table)


def _clip(model: nn.Module, visual: VisionTransformer, text: TextParts) -> Native:
    _require(visual.attn_pool is None and visual.pool_type == "tok", "its image tower does not pool the class token")
    _require(not isinstance(visual.ln_pre, nn.Identity), "its image tower has no norm before its layers")
    if visual.proj is None:
        raise NotNative("its image tower has no projection")
    projection = text.text_projection
    if not isinstance(projection, Tensor):
        raise NotNative("its text projection is missing or has a bias")
    _require(text.attn_mask is not None, "its text tower is not causal")
    pooling, end = pooling_of(text)
    _require(pooling in ("argmax", "eos"), f"its text tower pools by {pooling!r}")
    kind: Kind = "clip" if text.token_embedding.num_embeddings == CLIP_VOCABULARY else "metaclip_2"
    own = kind == "clip" or (pooling == "eos" and end is not None)  # MetaClip2Model's end token has any id
    _require(own, "its tokenizer is not CLIP's, and its text tower does not pool an end token, as MetaCLIP 2's does")
    blocks, width = visual.transformer.resblocks, visual.conv1.out_channels
    config = {
        "projection_dim": visual.proj.shape[1],
        "logit_scale_init_value": cast(OpenClipModel, model).logit_scale.item(),
        "vision_config": {
            **_tower(blocks, visual.ln_pre, visual.ln_post, heads=_heads(blocks), width=width),
            "intermediate_size": _part(blocks, "0.mlp.c_fc", nn.Linear).out_features,
            "projection_dim": visual.proj.shape[1],
            **_patches(visual.image_size, visual.patch_size),
        },
        "text_config": {
            **_text(text), "projection_dim": projection.shape[1],
            "eos_token_id": CLIP_END if pooling == "argmax" else end,
            **({"bos_token_id": CLIP_START, "pad_token_id": CLIP_END} if kind == "clip" else {}),
        },
    }  # fmt: skip
    prefix = "" if isinstance(model, CLIP) else "text."
    table = links(kind, vision_layers=len(blocks), text_layers=len(text.transformer.resblocks), text_prefix=prefix)
    return Native(kind, config, table)


def _text(text: TextParts) -> dict[str, Any]:
    blocks, embedding = text.transformer.resblocks, text.token_embedding
    _require(getattr(text, "cls_emb", None) is None, "its text tower has a class token")
    return {
        **_tower(blocks, text.ln_final, heads=_heads(blocks), width=embedding.embedding_dim),
        "intermediate_size": _part(blocks, "0.mlp.c_fc", nn.Linear).out_features,
        "vocab_size": embedding.num_embeddings,
        "max_position_embeddings": text.positional_embedding.shape[0],
    }


def _heads(blocks: nn.ModuleList) -> int:
    return _part(blocks, "0.attn", nn.MultiheadAttention).num_heads


def _part(module: nn.Module, name: str, kind: type[M]) -> M:
    part = module.get_submodule(name)
    if not isinstance(part, kind):
        raise NotNative(f"its {name} is a {type(part).__name__}, not a {kind.__name__}")
    return part


def _tower(blocks: nn.Sequential | nn.ModuleList, *others: nn.Module, heads: int, width: int) -> dict[str, Any]:
    parts = (blocks, *others)
    epsilon = {module.eps for part in parts for module in part.modules() if isinstance(module, nn.LayerNorm)}
    activation = {name for part in parts for module in part.modules() if (name := _activation(module))}
    _require(len(epsilon) == 1, f"its layer norms have different epsilons: {sorted(epsilon)}")
    _require(len(activation) == 1, f"its activations are not one GELU known to transformers: {activation or ''}")
    return {
        "hidden_size": width,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": heads,
        "hidden_act": activation.pop(),
        "layer_norm_eps": epsilon.pop(),
    }


def _activation(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if kind == "QuickGELU":
        return "quick_gelu"
    if kind == "GELUTanh" or (isinstance(module, nn.GELU) and module.approximate == "tanh"):
        return "gelu_pytorch_tanh"
    return "gelu" if isinstance(module, nn.GELU) or kind == "GELU" else None


def _patches(image: tuple[int, int], patch: tuple[int, int]) -> dict[str, int]:
    _require(image[0] == image[1] and patch[0] == patch[1], "its images or patches are not square")
    return {"image_size": image[0], "patch_size": patch[0]}


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise NotNative(otherwise)
