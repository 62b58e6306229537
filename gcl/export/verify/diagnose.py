"""Where an export leaves its run: preprocessing, tokenisation, or the first layer of a tower whose output differs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gcl.export.formats.registry import Loaded, unit
from gcl.export.formats.weights import exported_state
from gcl.export.verify.case import run_images, run_texts
from gcl.export.verify.hooks import trace
from gcl.export.verify.inputs import (
    LONG,
    ids_of,
    pixels_apart,
    pixels_differ,
    pixels_of,
    tokens_differ,
    used_tokens,
)
from gcl.model.dual_encoder import DualEncoder
from gcl.model.text_only import TextOnly
from gcl.model.transformers.describe import describe
from gcl.model.transformers.tensors import to_native
from gcl.schema import Modality

_LAYER = 1e-3  # largest difference of a layer's output, relative to its largest value, that is arithmetic
_TEXT_ONLY = "text.transformer."
_BLOCK = re.compile(r"(.*?\.\d+)\.")


def first_difference(encoder: DualEncoder, loaded: Loaded, modality: Modality, value: str | bytes) -> str:
    """A sentence that names the first place where the two part for this text or picture; "" if nothing differs."""
    network = _network(loaded)
    if modality is Modality.text:
        if why := tokens_differ(encoder, ids_of(loaded, network), value):
            return why
    elif why := pixels_differ(encoder, pixels_of(loaded, network), value):
        return why
    if network is None:
        return _graph_differs(encoder, loaded, modality, value)
    return _layer_differs(encoder, loaded, network, modality, value)


def _network(loaded: Loaded) -> nn.Module | None:
    """The torch model inside; None where a format has none (ONNX)."""
    model = getattr(loaded, "model", None)
    if not isinstance(model, nn.Module) or isinstance(model, PreTrainedModel) or hasattr(model, "visual"):
        return model
    return next((part for part in model.modules() if isinstance(part, PreTrainedModel)), model)


def module_pairs(encoder: DualEncoder, network: nn.Module) -> dict[str, str]:
    """{module of the run's model: the same module of the export}."""
    ours = dict(encoder.model.named_modules())
    theirs = dict(network.named_modules())
    if isinstance(encoder.model, TextOnly):
        pairs = {_TEXT_ONLY + name: name for name in theirs}
    elif isinstance(network, PreTrainedModel):
        pairs = {}
        for link in describe(encoder.model).table:
            for our, their in zip(link.ours, link.theirs, strict=False):
                if len(link.ours) == len(link.theirs) == 1:
                    pairs[our.rpartition(".")[0]] = their.rpartition(".")[0]
                if (a := _BLOCK.match(our)) and (b := _BLOCK.match(their)):
                    pairs[a.group(1)] = b.group(1)
    else:
        pairs = {name: name for name in theirs}
    return {our: their for our, their in pairs.items() if our and our in ours and their in theirs}


def different_weights(encoder: DualEncoder, network: nn.Module) -> list[str]:
    """Names of the export's tensors whose values are not those of the run."""
    state, found = exported_state(encoder), network.state_dict()
    if isinstance(encoder.model, TextOnly):
        state = {name.removeprefix(_TEXT_ONLY): value for name, value in state.items()}
    elif isinstance(network, PreTrainedModel):
        native = describe(encoder.model)
        if native.kind == "siglip":
            state.setdefault("logit_bias", torch.zeros(1))
        state = to_native(state, native.table, {name: value.shape for name, value in found.items()})
    return [
        name for name, value in state.items() if name in found and not torch.allclose(value, found[name], atol=1e-6)
    ]


def _layer_differs(encoder: DualEncoder, loaded: Loaded, network: nn.Module, modality: Modality, value: Any) -> str:
    pairs = module_pairs(encoder, network)
    theirs = trace(network, pairs.values(), lambda: _call(loaded, modality, value))
    tower = encoder.tower(modality)
    if modality is Modality.text:
        inputs = encoder.preprocess.text([value, LONG])
    else:  # the export's own pixels: those may differ by a rounding, which is no layer's fault
        inputs = next(iter(theirs.values()))[0].to(torch.float32)
    with torch.inference_mode():
        ours = trace(encoder.model, pairs, lambda: tower.head(tower.trunk(inputs)))
    used = used_tokens(encoder, inputs[0]) if modality is Modality.text else None
    weights = different_weights(encoder, network)
    last = None
    for our, (_, output) in ours.items():
        their = pairs[our]
        if their not in theirs:
            continue
        if how := _apart(output, theirs[their][1], used):
            changed = f" These weights of the export differ: {', '.join(_near(weights, their))}." if weights else ""
            return f"The first layer that differs is {their} ({our} in the run): {how}.{changed}"
        last = their
    if weights:
        return f"All layers up to {last} agree; these weights of the export differ: {', '.join(weights[:5])}."
    if _cosine(encoder, loaded, modality, value) > 1 - 1e-5:
        return ""
    if modality is Modality.image and (apart := pixels_apart(encoder, inputs[0], value)):
        return f"The tower is the same; pixels that are {apart:.2g} of 255 away on the average make the difference."
    return f"All layers up to {last} agree; what follows it (pooling, projection) differs."


def _near(weights: list[str], module: str) -> list[str]:
    """Those of the module's own block first; five at most."""
    block = _BLOCK.match(module + ".")
    place = block.group(1) if block else module
    return sorted(weights, key=lambda name: not name.startswith(place))[:5]


def _apart(ours: Tensor, theirs: Tensor, used: int | None) -> str:
    ours, theirs = ours[:1], theirs[:1]  # the value's own row
    if used is not None and ours.dim() == theirs.dim() == 3:
        ours, theirs = ours[:, :used], theirs[:, :used]
    if ours.shape != theirs.shape:
        return f"its output has the shape {list(theirs.shape)} instead of {list(ours.shape)}"
    far, large = float((ours - theirs).abs().max()), float(ours.abs().max())
    return "" if far <= _LAYER * max(large, 1e-6) else f"its outputs differ by up to {far:.3g} (they reach {large:.3g})"


def _call(loaded: Loaded, modality: Modality, value: Any) -> np.ndarray:
    """[1, D]; a text goes beside a long one, as some formats pad to the longest of a call."""
    return (loaded.texts([value, LONG]) if modality is Modality.text else loaded.images([value]))[:1]


def _cosine(encoder: DualEncoder, loaded: Loaded, modality: Modality, value: Any) -> float:
    ours = run_texts(encoder, [value]) if modality is Modality.text else run_images(encoder, [value])
    return float((unit(_call(loaded, modality, value)) * ours).sum())


def _graph_differs(encoder: DualEncoder, loaded: Any, modality: Modality, value: Any) -> str:
    """ONNX: what goes into the graph is the run's already, so the graph itself is all that is left."""
    cosine = _cosine(encoder, loaded, modality, value)
    if cosine > 1 - 1e-5:
        return ""
    return (
        f"What goes into it is the same, so it is the {modality.value} tower's graph, onnx/{modality.value}.onnx, "
        f"from {'tokens' if modality is Modality.text else 'pixels, their statistics included,'} to the vector: "
        f"cosine {cosine:.5f}."
    )
