"""Heads of two layers for a frozen image trunk (model.head), and the stages of the trunk that one of them reads.

mlp: dropout, linear, GELU, dropout, linear on the trunk's output. stages: the same on that output and, of every stage
of the trunk, the mean and the deviation over positions, all standardised by the training products. The stages of a
convolutional trunk are its stem and what its author calls stages; those of a transformer are every second block, or
every third where there are more than twelve, of whose tokens only the patches count.

A head begins as the model's own projection, so that a pretrained model finds on the first day what it always found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers import Mlp
from torch import Tensor, nn

from gcl.model.settings import Head

Half = Callable[[Tensor], Tensor]
"""One half of a tower: images -> [n, E], or [n, E] -> [n, D]."""

_DROPOUT = 0.2
_LEAST_HIDDEN = 1024  # of stages
_CONTAINERS = ("blocks", "stages", "layers")  # of timm's models; ResNets and RegNets number theirs
_NUMBERED = re.compile(r"(layer|s)\d")
_SHALLOW = 12  # blocks of a transformer up to which every second one is read


class ImageHead(nn.Module):
    """features [n, E] -> embeddings [n, D], not yet normalised. It ends in a linear layer without a bias, mlp.fc2.

    Its weights have the names that open_clip's head timm_proj=mlp has, which is the same but for the dropout before it.
    """

    mean: Tensor  # [E], of stages
    deviation: Tensor

    def __init__(self, kind: Head, features: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.paired = 0  # rows of the first layer that repeat the model's own head
        if kind is Head.stages:
            self.register_buffer("mean", torch.zeros(features))
            self.register_buffer("deviation", torch.ones(features))
        hidden = 2 * width if kind is Head.mlp else max(_LEAST_HIDDEN, 2 * width)
        self.drop = nn.Dropout(_DROPOUT)
        self.mlp = Mlp(features, hidden, width, drop=(_DROPOUT, 0.0), bias=(True, False))

    def forward(self, features: Tensor) -> Tensor:
        if self.kind is Head.stages:
            features = ((features - self.mean) / self.deviation).to(self.mlp.fc1.weight.dtype)
        return self.mlp(self.drop(features))

    @property
    def _layers(self) -> tuple[nn.Linear, nn.Linear]:
        return cast("tuple[nn.Linear, nn.Linear]", (self.mlp.fc1, self.mlp.fc2))

    @property
    def hidden(self) -> int:
        """How many numbers are between its two layers."""
        return self._layers[0].out_features

    @property
    def lacks_statistics(self) -> bool:
        """Whether it standardises and nobody has said by what."""
        return self.kind is Head.stages and bool((self.deviation == 1).all())

    @torch.no_grad()
    def begin_as(self, own: Half, features: int) -> None:
        """Gives a new head the function that the model's own has of the first `features` numbers, if that is linear.

        Each number P x of the own head takes two of the first layer: GELU(P x) - GELU(-P x) = P x.
        """
        first, last = self._layers
        width = last.out_features
        shift, some = own(torch.zeros(1, features)), torch.linspace(-1, 1, features)[None] ** 3
        projection = own(torch.eye(features)) - shift  # [E, D]
        if not torch.allclose(own(some), some @ projection + shift, rtol=1e-3, atol=1e-4):
            return
        self.paired = 2 * width
        first.weight[: self.paired] = 0
        for rows, sign in ((slice(width), 1), (slice(width, self.paired), -1)):
            first.weight[rows, :features], first.bias[rows] = sign * projection.T, sign * shift[0]
        columns = torch.eye(width, last.in_features)
        last.weight.copy_(columns - columns.roll(width, dims=1))

    @torch.no_grad()
    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Takes mean[E] and deviation[E] of the features, once. A number that never changes is only shifted; what
        repeats the model's own head goes on repeating it."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))
        first, _ = self._layers
        weight = first.weight[: self.paired]
        first.bias[: self.paired] += weight @ self.mean
        weight *= self.deviation


def image_head(visual: nn.Module | None) -> ImageHead | None:
    """The head that `replace_head` gave an image tower; None: it has its own."""
    head = getattr(visual, "head", None)
    return head if isinstance(head, ImageHead) else None


@torch.no_grad()
def replace_head(visual: Any, kind: Head, *, trunk: Half, head: Half, width: int, begin: bool) -> None:
    """Gives an open_clip image tower in evaluation mode a head of another kind, in place.

    trunk, head: its two halves as they are. width: D. begin: whether the new head begins as the own one.
    Raises ValueError where the trunk gives no vectors, or has no stages that we know.
    """
    size = visual.image_size
    image = torch.zeros(1, 3, *((size, size) if isinstance(size, int) else size))
    own = trunk(image)
    if own.ndim != 2:
        raise ValueError(f"model.head={kind}: the head of this image tower pools as well; use model.head=linear.")
    features = reading_stages(visual, trunk)(image) if kind is Head.stages else own
    made = ImageHead(kind, features.shape[1], width)
    if begin:
        made.begin_as(head, own.shape[1])
    if isinstance(visual, VisionTransformer):
        visual.proj = None
    visual.head = made


def stages_of(visual: nn.Module) -> dict[str, nn.Module]:
    """The stages of an open_clip image tower by name, in their order. Raises ValueError where there are none we know.

    >>> visual = VisionTransformer(16, 8, width=8, layers=5, heads=2, mlp_ratio=2, output_dim=4)
    >>> list(stages_of(visual))
    ['resblocks.1', 'resblocks.3']
    """
    if isinstance(visual, VisionTransformer):
        return _every_few("resblocks", visual.transformer.resblocks)
    root = _root(visual)
    children = dict(root.named_children())
    names = [name for name in children if name in _CONTAINERS or _NUMBERED.fullmatch(name)]
    if not names:
        raise ValueError(f"model.head=stages: the stages of a {type(root).__name__} are not known; use model.head=mlp.")
    if hasattr(root, "num_prefix_tokens"):
        return _every_few(names[0], children[names[0]])
    stem = [*children][: [*children].index(names[0])][-1:]  # whatever comes right before
    inner = {f"{n}.{part}": m for n in names if n in _CONTAINERS for part, m in children[n].named_children()}
    return {name: children[name] for name in stem} | (inner or {name: children[name] for name in names})


def _every_few(name: str, blocks: nn.Module) -> dict[str, nn.Module]:
    step = 2 if len([*blocks.children()]) <= _SHALLOW else 3
    return {f"{name}.{place}": block for place, block in enumerate(blocks.children()) if place % step == step - 1}


def reading_stages(visual: nn.Module, trunk: Half) -> Half:
    """A tower and its trunk (images -> [n, E]) -> one that gives [n, E + S]: S is twice the stages' channels."""
    stages = stages_of(visual).values()

    def read(image: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hooks = [stage.register_forward_hook(lambda *call: seen.append(_summary(visual, call[-1]))) for stage in stages]
        try:
            output = trunk(image)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([output.float(), *seen], dim=1)

    return read


def _summary(visual: nn.Module, value: Tensor) -> Tensor:
    """Mean and deviation over positions: [n, C, H, W], [n, H, W, C] or [n, tokens, C] -> [n, 2 C], float32."""
    root, value = _root(visual), value.float()
    if value.ndim == 3:
        value = value[:, int(getattr(root, "num_prefix_tokens", 1)) :]
    else:
        value = value.flatten(1, 2) if getattr(root, "output_fmt", None) == "NHWC" else value.flatten(2).mT
    mean = value.mean(dim=1, keepdim=True)
    return torch.cat([mean[:, 0], (value - mean).square().mean(dim=1).sqrt()], dim=1)


def _root(visual: nn.Module) -> nn.Module:
    return visual.trunk if isinstance(visual, TimmModel) else visual
