"""Low-rank adapters on the towers (Hu et al. 2021, https://arxiv.org/abs/2106.09685), by peft, merged for export.

Linear layers are adapted, and convolutions that are named. open_clip's own towers keep query, key and value of a block
in one matrix inside nn.MultiheadAttention, which is not a linear layer; peft would add the adapter to that matrix and
subtract it at every call, and rounding would move the frozen weights a little each time. So such an attention is opened
while its adapters are trained: the same weights as two ordinary linear layers, which are put back when they are merged.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from gcl.errors import ConfigError, check_packages
from gcl.model.dual_encoder import DualEncoder
from gcl.model.settings import LoraConfig
from gcl.options import check_numbers
from gcl.schema import Modality

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

_ADAPTER = "default"


class OpenAttention(nn.Module):
    """Self-attention with the weights of an nn.MultiheadAttention as two linear layers; the same in and out."""

    def __init__(self, closed: nn.MultiheadAttention) -> None:
        super().__init__()
        width = closed.embed_dim
        self.heads, self.dropout = closed.num_heads, closed.dropout
        self.in_proj = nn.Linear(width, 3 * width, bias=closed.in_proj_bias is not None)
        self.out_proj = nn.Linear(width, width, bias=closed.out_proj.bias is not None)
        self.in_proj.weight, self.in_proj.bias = closed.in_proj_weight, closed.in_proj_bias
        self.out_proj.weight, self.out_proj.bias = closed.out_proj.weight, closed.out_proj.bias

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """query[n, L, width], the same as key and value -> [n, L, width], and no weights."""
        assert query is key and query is value and not need_weights, "a block attends to itself"
        n, length, width = query.shape
        q, k, v = self.in_proj(query).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [n, heads, L, w]
        dropped = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropped)
        return self.out_proj(out.transpose(1, 2).reshape(n, length, width)), None

    def close(self, closed: nn.MultiheadAttention) -> nn.MultiheadAttention:
        """Puts the two layers' weights into `closed`."""
        closed.in_proj_weight = cast(nn.Parameter, self.in_proj.weight)
        closed.in_proj_bias = self.in_proj.bias
        closed.out_proj.weight, closed.out_proj.bias = self.out_proj.weight, self.out_proj.bias
        return closed


@dataclass(frozen=True)
class Adapters:
    """The adapters of one model: put in by `add_adapters`, taken out by `merge_adapters`."""

    tuner: LoraModel
    closed: dict[str, nn.MultiheadAttention]  # the attentions that were opened
    names: list[str]  # of the adapted layers


def add_adapters(encoder: DualEncoder, lora: LoraConfig) -> Adapters:
    """Freezes the model in place except new adapters (and its projections, if `lora.heads`), which change nothing yet.

    lora.targets: names of layers ("qkv", "attn.proj", "visual.trunk.blocks.0.mlp.fc1") or shell patterns over them
        ("text.*.mlp.*"). An attention of open_clip is named by its block's `attn` and adapted as a whole.
    Raises ValueError where peft is not installed, for impossible numbers, and for a target that no layer fits.
    """
    check_packages("model.lora", ["peft"], "lora")
    if encoder.adapters is not None:
        raise ConfigError("model.lora: this model already has adapters.")
    check_numbers(lora, "model.lora.")
    assert lora.rank is not None, "without a rank there are no adapters"
    import peft
    from peft.tuners.lora import LoraModel

    model = encoder.model
    chosen = _choose(dict(_adaptable(encoder)), lora.targets, encoder)
    closed = {}
    for name in chosen:
        if isinstance(attention := model.get_submodule(name), nn.MultiheadAttention):
            closed[name] = attention
            _put(model, name, OpenAttention(attention))
    opened = {name: (f"{name}.in_proj", f"{name}.out_proj") for name in closed}
    linear = [part for name in chosen for part in opened.get(name, (name,))]
    alpha = cast(int, lora.alpha)  # peft divides it by the rank
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=linear, bias="none"
    )
    tuner = LoraModel(model, config, _ADAPTER)  # which freezes everything except the adapters
    for parameter in _heads(encoder) if lora.heads else ():
        parameter.requires_grad_(True)
    encoder.adapters = Adapters(tuner, closed, chosen)
    return encoder.adapters


def merge_adapters(encoder: DualEncoder) -> DualEncoder:
    """Adds each adapter's product to the weight it adapts and removes the adapter, in place; returns the encoder.

    Without adapters nothing happens. Raises ValueError where a merged weight would not be finite.
    """
    adapters = encoder.adapters
    if adapters is None:
        return encoder
    model = encoder.model
    adapters.tuner.merge_and_unload(safe_merge=True)
    for name, attention in adapters.closed.items():
        opened = model.get_submodule(name)
        assert isinstance(opened, OpenAttention)
        _put(model, name, opened.close(attention))
    for name in adapters.names:  # an adapted trunk is no longer the frozen one whose features may be cached
        model.get_submodule(name).requires_grad_(True)
    encoder.adapters = None
    return encoder


def describe(encoder: DualEncoder) -> str:
    """One sentence: how much is adapted, and which tower is not."""
    names = encoder.adapters.names
    towers = {
        modality.value: sum(name.split(".")[0] == "visual" for name in names) if modality is Modality.image
        else sum(name.split(".")[0] != "visual" for name in names)
        for modality in Modality if encoder.tower(modality) is not None
    }  # fmt: skip
    parameters = sum(p.numel() for name, p in encoder.model.named_parameters() if "lora_" in name)
    told = [
        f"{count} layers of the {name} tower" if count else f"none of the {name} tower, which stays as it is"
        for name, count in towers.items()
    ]
    return f"Adapters: {' and '.join(told)}; {parameters / 1e6:.2f} M parameters."


def _adaptable(encoder: DualEncoder) -> Iterator[tuple[str, nn.Module]]:
    """(name, layer) of all layers of the trunks that can be adapted."""
    trunks = {
        id(module)
        for modality in Modality
        if (part := encoder.tower(modality)) is not None
        for piece in part.trunk_parts
        if isinstance(piece, nn.Module)
        for module in piece.modules()
    }
    inside: set[int] = set()  # of an attention: not called by themselves
    for name, module in encoder.model.named_modules():
        if id(module) not in trunks or id(module) in inside:
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside |= {id(part) for part in module.modules()}
            block = encoder.model.get_submodule(name.rpartition(".")[0])
            if isinstance(block, ResidualAttentionBlock) and module.batch_first and module._qkv_same_embed_dim:
                yield name, module
        elif isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            yield name, module


def _choose(layers: Mapping[str, nn.Module], targets: Sequence[str] | None, encoder: DualEncoder) -> list[str]:
    if targets is None:
        chosen = [name for name, layer in layers.items() if not isinstance(layer, nn.Conv2d)]
        if not chosen:
            raise ConfigError(
                f"model.lora: {_name(encoder)} has no linear layer; name its convolutions in model.lora.targets."
            )
        return chosen
    chosen = []
    for target in targets:
        fits = [name for name in layers if _fits(name, target)]
        if not fits:
            endings = {".".join(name.split(".")[-n:]) for name in layers for n in (1, 2)} | set(layers)
            near = difflib.get_close_matches(target, sorted(endings), n=3, cutoff=0.3)
            hint = f" Nearest: {', '.join(near)}." if near else ""
            raise ConfigError(f"model.lora.targets: no layer of {_name(encoder)} is named {target!r}.{hint}")
        chosen += fits
    return list(dict.fromkeys(chosen))


def _fits(name: str, target: str) -> bool:
    """
    >>> _fits("text.blocks.0.attn.qkv", "qkv"), _fits("text.blocks.0.attn.qkv", "v"), _fits("a.mlp.fc1", "*.mlp.*")
    (True, False, True)
    """
    return name == target or name.endswith(f".{target}") or fnmatch.fnmatchcase(name, target)


def _heads(encoder: DualEncoder) -> Iterator[nn.Parameter]:
    for modality in Modality:
        part = encoder.tower(modality)
        for piece in part.head_parts if part is not None else ():
            yield from piece.parameters() if isinstance(piece, nn.Module) else (piece,)


def _name(encoder: DualEncoder) -> str:
    return encoder.origin.name if encoder.origin else "this model"


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
