"""Both towers with the rotation of their embeddings in them.

1. The last linear layer of each tower, W x + b, becomes R W x + R b; cut to `width`, the first rows of R alone. Where
   a tower ends in something else, a frozen linear layer follows it.
2. SigLIP's image tower ends in a residual around a LayerNorm: y = a + mlp(norm(a)). R moves into it exactly if the norm
   commutes with R, which it does if R leaves the vector of ones where it is: mean and variance are then those of before
   (Ashkboos et al. 2024, SliceGPT, for RMSNorm). So the model needs no layer that `SiglipModel` has no place for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from gcl.model.dual_encoder import DualEncoder
from gcl.model.heads import image_head
from gcl.model.rotation import Rotation
from gcl.model.towers import text_parts
from gcl.schema import Modality


def keeps_ones(encoder: DualEncoder) -> bool:
    """Whether the rotation of this model has to leave the vector of ones where it is."""
    return _latent_pool(encoder.model.visual) is not None


def rotated(encoder: DualEncoder, rotation: Rotation, width: int | None = None) -> DualEncoder:
    """The encoder whose embeddings are the first `width` numbers of the rotated ones, at length 1 again.

    A copy that shares every tensor it does not change. Raises ValueError, in a sentence, for a tower that ends in
    nothing that can be rotated, or for a width that the embeddings do not have.
    """
    if width is not None and not 0 < width <= encoder.width:
        raise ValueError(f"dims={width}: this model's vectors have {encoder.width} numbers; give 1 to {encoder.width}.")
    width = None if width == encoder.width else width
    matrix = rotation.axes(width)
    axes = torch.from_numpy(matrix)
    kept = {id(value): value for value in (*encoder.model.parameters(), *encoder.model.buffers())}
    model = copy.deepcopy(encoder.model, dict(kept))
    changed: dict[str, Any] = {}
    for modality in Modality:
        if encoder.tower(modality) is None:
            continue
        turn = _ending(model, modality, cut=width is not None)
        if turn is None:
            raise ValueError(f"The {modality.value} tower ends in no layer that a rotation can become a part of.")
        changed |= turn(axes) or {}
    _set_width(model, len(axes))
    other = copy.copy(encoder)
    other._modules, other._buffers = dict(encoder._modules), dict(encoder._buffers)
    other.model = model
    other.by_query = None if encoder.by_query is None else encoder.by_query.turned(matrix)
    if encoder.origin is not None:
        cfg = copy.deepcopy(encoder.origin.model_cfg)
        if "embed_dim" in cfg:
            cfg["embed_dim"] = len(axes)
        for part, values in changed.items():
            cfg[part] |= values
        other.origin = replace(encoder.origin, model_cfg=cfg, rotation=rotation.digest)
    return other.eval()


def why_not(encoder: DualEncoder) -> str | None:
    """None, or a sentence: why the embeddings of this model cannot be rotated."""
    for modality in Modality:
        if encoder.tower(modality) is not None and _ending(encoder.model, modality, cut=False) is None:
            return f"its {modality.value} tower ends in no layer that a rotation can become a part of"
    return None


Turn = Callable[[Tensor], "dict[str, dict[str, Any]] | None"]
"""axes[k, D] -> what changes in open_clip's config, {part: values}; changes the model."""


def _ending(model: nn.Module, modality: Modality, *, cut: bool) -> Turn | None:
    """How the end of a tower is rotated; None where it cannot be."""
    return _image_ending(model, cut=cut) if modality is Modality.image else _text_ending(model)


def _image_ending(model: nn.Module, *, cut: bool) -> Turn | None:
    visual = cast(Any, model).visual
    replaced = image_head(visual) is not None
    if isinstance(visual, VisionTransformer) and not replaced:
        return None if visual.proj is None else lambda axes: _turn_matrix(visual, "proj", axes)
    if isinstance(visual, ModifiedResNet) and not replaced:
        return lambda axes: _turn_linear(visual.attnpool.c_proj, axes)
    if not isinstance(visual, TimmModel) and not replaced:
        return None
    if (last := _last_linear(visual.head)) is not None:
        return lambda axes: _turn_linear(last, axes)
    if len(list(visual.head.children())):
        return None
    classifier = getattr(visual.trunk, "get_classifier", lambda: None)()
    if isinstance(classifier, nn.Linear):  # open_clip's projection is the trunk's own classifier
        return lambda axes: _turn_linear(classifier, axes)
    if visual.trunk.num_classes:
        return None
    pool = _latent_pool(visual)
    return (lambda axes: _add_linear(visual, axes)) if pool is None or cut else (lambda axes: _turn_pool(pool, axes))


def _text_ending(model: nn.Module) -> Turn | None:
    text = getattr(model, "text", None)
    if isinstance(text, HFTextEncoder):
        if (last := _last_linear(text.proj)) is not None:
            return lambda axes: _turn_linear(last, axes)
        return (lambda axes: _add_projection(text, axes)) if isinstance(text.proj, nn.Identity) else None
    parts = cast(Any, text_parts(model) or text)
    projection = getattr(parts, "text_projection", None)
    if isinstance(projection, nn.Linear):
        return lambda axes: _turn_linear(projection, axes)
    return None if projection is None else lambda axes: _turn_matrix(parts, "text_projection", axes)


def _last_linear(head: nn.Module) -> nn.Linear | None:
    """The linear layer that a head ends in, dropout aside."""
    if isinstance(head, nn.Linear):
        return head
    parts = [part for part in head.children() if not isinstance(part, (nn.Dropout, nn.Identity))]
    return _last_linear(parts[-1]) if parts else None


def _latent_pool(visual: nn.Module | None) -> AttentionPoolLatent | None:
    """SigLIP's end of an image tower; None where a tower has another."""
    if not isinstance(visual, TimmModel) or len(list(visual.head.children())) or visual.trunk.num_classes:
        return None
    pool, after = getattr(visual.trunk, "attn_pool", None), getattr(visual.trunk, "fc_norm", None)
    if not isinstance(pool, AttentionPoolLatent) or not isinstance(after, (nn.Identity, type(None))):
        return None
    return pool if pool.mlp is not None and isinstance(pool.norm, nn.LayerNorm) else None


@torch.no_grad()
def _turn_matrix(owner: nn.Module, name: str, axes: Tensor) -> None:
    """x @ P becomes x @ P axes^T."""
    matrix = getattr(owner, name)
    setattr(owner, name, _frozen((matrix.double() @ axes.T.to(matrix.device)), like=matrix))


@torch.no_grad()
def _turn_linear(layer: nn.Linear, axes: Tensor) -> None:
    axes = axes.to(layer.weight.device)
    layer.weight = _frozen(axes @ layer.weight.double(), like=layer.weight)
    if layer.bias is not None:
        layer.bias = _frozen(axes @ layer.bias.double(), like=layer.bias)
    layer.out_features = len(axes)


@torch.no_grad()
def _turn_pool(pool: Any, axes: Tensor) -> None:
    """y = a + mlp(norm(a)) becomes its rotation: a by its projection, and in the MLP the rotation is undone before the
    first layer, which takes the norm's own scale and shift, and done after the last."""
    axes = axes.to(pool.proj.weight.device)
    first, norm = pool.mlp.fc1, pool.norm
    _turn_linear(pool.proj, axes)
    _turn_linear(pool.mlp.fc2, axes)
    weight = first.weight.double()
    if first.bias is not None and norm.bias is not None:
        first.bias = _frozen(first.bias.double() + weight @ norm.bias.double(), like=first.bias)
    scaled = weight if norm.weight is None else weight * norm.weight.double()
    first.weight = _frozen(scaled @ axes.T, like=first.weight)
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        if getattr(norm, name) is not None:
            setattr(norm, name, _frozen(torch.full_like(getattr(norm, name), value), like=getattr(norm, name)))


def _add_linear(visual: TimmModel, axes: Tensor) -> dict[str, dict[str, Any]]:
    like = next(visual.parameters())
    visual.head.add_module("drop", nn.Dropout(0.0))
    visual.head.add_module("proj", _linear(axes, like))
    return {"vision_cfg": {"timm_proj": "linear", "timm_proj_bias": False}}


def _add_projection(text: HFTextEncoder, axes: Tensor) -> dict[str, dict[str, Any]]:
    text.proj = _linear(axes, next(text.parameters()))
    return {"text_cfg": {"hf_proj_type": "linear"}}


def _linear(axes: Tensor, like: Tensor) -> nn.Linear:
    layer = nn.Linear(axes.shape[1], axes.shape[0], bias=False)
    layer.weight = _frozen(axes, like=like)
    return layer


def _frozen(value: Tensor, *, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.device, like.dtype).contiguous(), requires_grad=False)


def _set_width(model: nn.Module, width: int) -> None:
    """What the model's parts say of their width."""
    for part in (getattr(model, "visual", None), getattr(model, "text", None), model):
        if part is not None and hasattr(part, "output_dim"):
            part.output_dim = width
