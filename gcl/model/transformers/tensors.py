"""Between open_clip's modules and the classes SiglipModel, CLIPModel and MetaClip2Model of transformers: whose tensor
is whose.

One list of links serves both directions. A link says that some tensors of one side, concatenated, are some tensors of
the other; so a projection that one side keeps as q, k, v and the other as one matrix is one link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["siglip", "clip", "metaclip_2"]  # as model_type of a config.json has them


@dataclass(frozen=True)
class Link:
    """ours, theirs: names of tensors; open_clip's and transformers'. shares: how many equal parts of the whole each
    of `ours` takes where both sides cut it differently (theirs are cut evenly). turned: one is the other transposed."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    shares: tuple[int, ...] = (1,)
    turned: bool = False


def links(kind: Kind, *, vision_layers: int, text_layers: int, text_prefix: str = "text.") -> list[Link]:
    """text_prefix: where the text tower's tensors lie in the open_clip model ("" in the class CLIP)."""
    vision = _siglip_vision(vision_layers) if kind == "siglip" else _clip_vision(vision_layers)
    return [*vision, *_text(kind, text_layers, text_prefix), Link(("logit_scale",), ("logit_scale",))] + (
        [Link(("logit_bias",), ("logit_bias",))] if kind == "siglip" else []
    )


def to_native(state: Mapping[str, Tensor], table: list[Link], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """An open_clip state dict -> the one of the transformers class whose tensors have these shapes.

    Raises ValueError naming the tensor that is missing or does not fit.
    """
    return _carry(state, [(link.ours, link.theirs, _even(link), link.turned) for link in table], shapes)


def from_native(state: Mapping[str, Tensor], table: list[Link], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The other way round; shapes are those of the open_clip model."""
    return _carry(state, [(link.theirs, link.ours, link.shares, link.turned) for link in table], shapes)


def _even(link: Link) -> tuple[int, ...]:
    return (1,) * len(link.theirs)


def _carry(
    state: Mapping[str, Tensor],
    moves: list[tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], bool]],
    shapes: Mapping[str, torch.Size],
) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for sources, targets, shares, turned in moves:
        missing = [name for name in sources if name not in state]
        if missing:
            raise ValueError(f"The weights lack {missing[0]}.")
        parts = [state[name] for name in sources]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        whole = whole.T if turned else whole
        rows = whole.shape[0] // sum(shares) if len(targets) > 1 else 0
        pieces = [whole] if len(targets) == 1 else whole.split([rows * share for share in shares])
        for name, piece in zip(targets, pieces, strict=True):
            if name not in shapes:
                raise ValueError(f"{sources[0]} has no place: the model has no {name}.")
            if piece.shape != shapes[name] and piece.squeeze().shape != torch.Size(_squeezed(shapes[name])):
                raise ValueError(
                    f"{sources[0]} of shape {list(piece.shape)} cannot be {name}, which has {list(shapes[name])}."
                )
            out[name] = piece.reshape(shapes[name]).clone(memory_format=torch.contiguous_format)
    return out


def _squeezed(shape: torch.Size) -> list[int]:
    return [size for size in shape if size != 1]


def _pair(ours: str, theirs: str) -> Iterator[Link]:
    for kind in ("weight", "bias"):
        yield Link((f"{ours}.{kind}",), (f"{theirs}.{kind}",))


def _block(ours: str, theirs: str, names: Mapping[str, str]) -> Iterator[Link]:
    """One layer; both kinds of our layers have two norms, attention and an MLP under names of their own."""
    for part, target in (
        ("norm1", "layer_norm1"), ("out", "self_attn.out_proj"), ("norm2", "layer_norm2"), ("fc1", "mlp.fc1"),
        ("fc2", "mlp.fc2"),
    ):  # fmt: skip
        yield from _pair(f"{ours}.{names[part]}", f"{theirs}.{target}")
    for kind in ("weight", "bias"):
        native = tuple(f"{theirs}.self_attn.{letter}_proj.{kind}" for letter in "qkv")
        yield Link((f"{ours}.{names['qkv']}{kind}",), native)


_TIMM = {"norm1": "norm1", "qkv": "attn.qkv.", "out": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_OPEN_CLIP = {
    "norm1": "ln_1", "qkv": "attn.in_proj_", "out": "attn.out_proj", "norm2": "ln_2", "fc1": "mlp.c_fc",
    "fc2": "mlp.c_proj",
}  # fmt: skip


def _siglip_vision(layers: int) -> Iterator[Link]:
    ours, theirs = "visual.trunk", "vision_model"
    yield from _pair(f"{ours}.patch_embed.proj", f"{theirs}.embeddings.patch_embedding")
    yield Link((f"{ours}.pos_embed",), (f"{theirs}.embeddings.position_embedding.weight",))
    for number in range(layers):
        yield from _block(f"{ours}.blocks.{number}", f"{theirs}.encoder.layers.{number}", _TIMM)
    yield from _pair(f"{ours}.norm", f"{theirs}.post_layernorm")
    pool, head = f"{ours}.attn_pool", f"{theirs}.head"
    yield Link((f"{pool}.latent",), (f"{head}.probe",))
    for kind in ("weight", "bias"):
        yield Link((f"{pool}.q.{kind}", f"{pool}.kv.{kind}"), (f"{head}.attention.in_proj_{kind}",), shares=(1, 2))
    for part, native in (
        ("proj", "attention.out_proj"), ("norm", "layernorm"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"),
    ):  # fmt: skip
        yield from _pair(f"{pool}.{part}", f"{head}.{native}")


def _clip_vision(layers: int) -> Iterator[Link]:
    ours, theirs = "visual", "vision_model"
    yield Link((f"{ours}.class_embedding",), (f"{theirs}.embeddings.class_embedding",))
    yield Link((f"{ours}.conv1.weight",), (f"{theirs}.embeddings.patch_embedding.weight",))
    yield Link((f"{ours}.positional_embedding",), (f"{theirs}.embeddings.position_embedding.weight",))
    yield from _pair(f"{ours}.ln_pre", f"{theirs}.pre_layrnorm")  # so it is written there
    for number in range(layers):
        yield from _block(f"{ours}.transformer.resblocks.{number}", f"{theirs}.encoder.layers.{number}", _OPEN_CLIP)
    yield from _pair(f"{ours}.ln_post", f"{theirs}.post_layernorm")
    yield Link((f"{ours}.proj",), ("visual_projection.weight",), turned=True)


def _text(kind: Kind, layers: int, ours: str) -> Iterator[Link]:
    theirs = "text_model"
    yield Link((f"{ours}token_embedding.weight",), (f"{theirs}.embeddings.token_embedding.weight",))
    yield Link((f"{ours}positional_embedding",), (f"{theirs}.embeddings.position_embedding.weight",))
    for number in range(layers):
        yield from _block(f"{ours}transformer.resblocks.{number}", f"{theirs}.encoder.layers.{number}", _OPEN_CLIP)
    yield from _pair(f"{ours}ln_final", f"{theirs}.final_layer_norm")
    if kind == "siglip":
        yield from _pair(f"{ours}text_projection", f"{theirs}.head")
    else:
        yield Link((f"{ours}text_projection",), ("text_projection.weight",), turned=True)
