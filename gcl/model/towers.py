"""One tower of an open_clip model, split where a frozen trunk ends and a trainable head begins.

open_clip gives the whole way from pixels or tokens to the embedding; caching features, training heads only and running
a text at its own length need the two halves. A Tower only points into the model: it owns no parameter and no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, Transformer, VisionTransformer, text_global_pool
from torch import Tensor, nn

from gcl.model.heads import ImageHead, image_head, reading_stages, stages_of
from gcl.model.settings import Head
from gcl.schema import Modality

_LENGTH_STEP = 8  # text lengths are rounded up to a multiple of it: few distinct shapes, aligned kernels


class OpenClipModel(nn.Module):
    """What open_clip's two model classes and our TextOnly have in common, for type checkers: none derives from it.

    logit_scale: the logarithm of 1 / temperature. context_length: the most tokens that a text can have.
    """

    visual: nn.Module | None
    logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None
    context_length: int


class TextParts(Protocol):
    """open_clip's own text tower: a module in CustomTextCLIP, the same names on the model itself in CLIP."""

    token_embedding: nn.Embedding
    positional_embedding: nn.Parameter  # [L, width]
    transformer: Transformer
    ln_final: nn.LayerNorm
    attn_mask: Tensor | None  # [L, L], causal
    text_projection: nn.Linear | nn.Parameter | None


def text_parts(model: nn.Module) -> TextParts | None:
    """None if the text tower is not open_clip's own."""
    text = getattr(model, "text", None)
    if text is None:
        return cast(TextParts, model)
    return cast(TextParts, text) if isinstance(text, TextTransformer) else None


def pooling_of(text: TextParts) -> tuple[str, int | None]:
    """How a text's vector is taken from its tokens' ("argmax", "eos", "last" …), and the id of the last token."""
    pooling = str(getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None))
    end: int | None = getattr(text, "text_eos_id", None) or getattr(text, "eos_id", None)
    return pooling, end


@dataclass(frozen=True)
class Tower:
    """trunk(input) -> features [n, E]; head(features) -> embeddings [n, D], not yet normalised.

    trunk_parts, head_parts: the modules and bare parameters each half consists of.
    trim: drops the columns of a token batch that cannot change its embeddings; None: padding counts, all must stay.
    stages: names of the stages that the features speak of beside the trunk's output (model.head=stages).
    """

    trunk: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]
    trunk_parts: tuple[nn.Module | nn.Parameter, ...]
    head_parts: tuple[nn.Module | nn.Parameter, ...]
    trim: Callable[[Tensor], Tensor] | None = None
    stages: tuple[str, ...] = ()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of both halves."""
        yield from _parameters(self.trunk_parts)
        yield from _parameters(self.head_parts)

    @property
    def ignores_padding(self) -> bool:
        """Whether a text can be given at its own length."""
        return self.trim is not None

    @property
    def trunk_frozen(self) -> bool:
        """True if no parameter of the trunk is being trained."""
        return not any(parameter.requires_grad for parameter in _parameters(self.trunk_parts))

    def rest(self) -> None:
        """Puts the trunk into evaluation mode: a frozen trunk has no batch statistics to move and nothing to drop."""
        for part in self.trunk_parts:
            if isinstance(part, nn.Module) and part.training:
                part.eval()


def tower(model: nn.Module, modality: Modality) -> Tower | None:
    """The model's tower for a modality, or None if it has none."""
    if modality is Modality.image:
        visual = getattr(model, "visual", None)
        return None if visual is None else _image_tower(visual)
    text = getattr(model, "text", None)
    if isinstance(text, HFTextEncoder):
        return _hugging_face_tower(text)
    parts = text_parts(model)
    if parts is None or (isinstance(text, TextTransformer) and text.cls_emb is not None):
        assert text is not None
        return _whole(text)
    return _text_tower(parts)


def embedding_width(model: nn.Module) -> int:
    """D: CustomTextCLIP's text tower says it; CLIP's is read off the projection."""
    if (text := getattr(model, "text", None)) is not None:
        return text.output_dim
    parts = cast(TextParts, model)
    projection = parts.text_projection
    if projection is None:
        return parts.token_embedding.embedding_dim
    return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]


def image_size(model: nn.Module) -> tuple[int, ...]:
    """(height, width) of the images that the model takes."""
    return tuple(getattr(cast(OpenClipModel, model).visual, "image_size", ()))


def _image_tower(visual: nn.Module) -> Tower:
    own, head = _own_image_tower(visual), image_head(visual)
    if head is None:
        return own
    if head.kind is not Head.stages:
        return replace(own, head=head, head_parts=(head,))
    return replace(
        own, trunk=reading_stages(visual, own.trunk), head=head, head_parts=(head,), stages=tuple(stages_of(visual))
    )


def _own_image_tower(visual: nn.Module) -> Tower:
    if isinstance(visual, TimmModel):
        return Tower(visual.trunk, visual.head, (visual.trunk,), (visual.head,))
    replaced = image_head(visual) is not None
    if isinstance(visual, VisionTransformer) and (replaced or visual.proj is not None) and not visual.output_tokens:

        def trunk(image: Tensor) -> Tensor:
            return visual._pool(visual.transformer(visual._embeds(image)))[0]

        def head(features: Tensor) -> Tensor:
            return features @ visual.proj

        return Tower(trunk, head, _without(visual, "proj"), () if visual.proj is None else (visual.proj,))
    return replace(_whole(visual), trunk_parts=_without(visual)) if replaced else _whole(visual)


def _hugging_face_tower(text: HFTextEncoder) -> Tower:
    padding = text.config.pad_token_id

    def trunk(tokens: Tensor) -> Tensor:
        mask = (tokens != padding).long()
        return text.pooler(text.transformer(input_ids=tokens, attention_mask=mask), mask)

    def trim(tokens: Tensor) -> Tensor:
        used = (tokens != padding).any(dim=0)  # [L]
        return _shorten(tokens, (used * torch.arange(1, len(used) + 1, device=used.device)).max())

    return Tower(trunk, text.proj, (text.transformer, text.pooler), (text.proj,), trim)


def _text_tower(text: TextParts) -> Tower:
    pooling, end = pooling_of(text)
    mask, projection = text.attn_mask, text.text_projection

    def trunk(tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = text.token_embedding(tokens).to(text.transformer.get_cast_dtype())  # [n, L, width]
        x = x + text.positional_embedding[:length].to(x.dtype)
        x = text.transformer(x, attn_mask=None if text.attn_mask is None else text.attn_mask[:length, :length])
        return text_global_pool(text.ln_final(x), tokens, pooling, eos_token_id=end)

    def head(features: Tensor) -> Tensor:
        if projection is None:
            return features
        return projection(features) if isinstance(projection, nn.Module) else features @ projection

    def trim(tokens: Tensor) -> Tensor:
        # Under a causal mask nothing right of the pooled token reaches it.
        pooled = tokens if pooling == "argmax" else torch.eq(tokens, end if end is not None else -1).int()
        return _shorten(tokens, pooled.argmax(dim=-1).max() + 1)

    return Tower(
        trunk,
        head,
        (text.token_embedding, text.positional_embedding, text.transformer, text.ln_final),
        () if projection is None else (projection,),
        trim if mask is not None and pooling in ("argmax", "eos") else None,
    )


def _whole(module: nn.Module) -> Tower:
    """A tower with no seam we know: all of it is trunk."""

    def trunk(x: Tensor) -> Tensor:
        out = module(x)
        return out[0] if isinstance(out, tuple) else out

    return Tower(trunk, lambda features: features, (module,), ())


def _shorten(tokens: Tensor, longest: Tensor) -> Tensor:
    length = -(-max(int(longest), 1) // _LENGTH_STEP) * _LENGTH_STEP
    return tokens[:, : min(length, tokens.shape[1])]


def _without(module: nn.Module, name: str = "") -> tuple[nn.Module | nn.Parameter, ...]:
    """Its parameters and children except the parameter of this name and a head of ours."""
    bare = (parameter for key, parameter in module.named_parameters(recurse=False) if key != name)
    return (*bare, *(child for child in module.children() if not isinstance(child, ImageHead)))


def _parameters(parts: tuple[nn.Module | nn.Parameter, ...]) -> Iterator[nn.Parameter]:
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.parameters()
        else:
            yield part
