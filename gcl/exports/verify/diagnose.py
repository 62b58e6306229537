"""Where an export departs from its run, for one text or image that both were given in one process.

1. What goes into the towers is caught by a hook on the export's first layer: token ids, or normalised pixels.
   Other ids: tokenisation differs, and a few probes say how. Other pixels: preprocessing differs.
2. Both towers run with hooks on the modules that correspond (by name, or by the table that maps the weights); the first
   output that differs by more than arithmetic names the layer.
3. Weights whose values are not the run's are listed, those of that layer's block first.

ONNX, and what is made of it, has no modules to hook: after step 1 only the graph is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gcl.exports.formats.registry import Loaded, unit
from gcl.exports.formats.weights import exported_state
from gcl.exports.verify.case import run_images, run_texts
from gcl.exports.verify.golden import golden_images, golden_texts
from gcl.model.dual_encoder import DualEncoder
from gcl.model.preprocess import Preprocess
from gcl.model.settings import Decode
from gcl.model.text_only import TextOnly
from gcl.model.transformers.describe import describe
from gcl.model.transformers.tensors import to_native
from gcl.schema import Modality

Trace = dict[str, tuple[Tensor | None, Tensor]]  # module -> its first input and its output, in the order of finishing
_LONG = golden_texts()["beyond the context"]
_LAYER = 1e-3  # largest difference of a layer's output, relative to its largest value, that is arithmetic
_PIXELS = 2.0  # of 255: mean difference that two libraries' resizing may have at most
_SAME = 1 - 1e-5  # a cosine beyond which nothing differs
_TEXT_ONLY = "text.transformer."
_BLOCK = re.compile(r"(.*?\.\d+)\.")


def first_difference(encoder: DualEncoder, loaded: Loaded, modality: Modality, value: str | bytes) -> str:
    """A sentence that names the first place where the two differ for this text or image; "" if nothing differs."""
    network = _network(loaded)
    if isinstance(value, str):
        why = _tokens_differ(encoder, _ids_of(loaded, network), value)
    else:
        why = _pixels_differ(encoder, _pixels_of(loaded, network), value)
    if why:
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


# --- what goes into the towers


def _trace(model: nn.Module, names: Iterable[str], call: Callable[[], Any]) -> Trace:
    """Runs `call` and keeps the first input and output tensor of each named module that it reaches."""
    modules, trace = dict(model.named_modules()), Trace()

    def hook(name: str) -> Callable:
        def keep(module: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> None:
            result = _tensor(output)
            if name not in trace and result is not None:
                given = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
                trace[name] = (given, result.detach().clone())

        return keep

    with ExitStack() as stack:
        for name in dict.fromkeys(names):
            handle = modules[name].register_forward_hook(hook(name), with_kwargs=True)
            stack.callback(handle.remove)
        call()
    return trace


def _tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    return getattr(output, "last_hidden_state", None)


def _first_input(network: nn.Module, call: Callable[[], Any]) -> Tensor:
    """What the first layer of a tower is given: token ids, or normalised pixels."""
    leaves = [
        name
        for name, part in network.named_modules()
        if isinstance(part, (nn.Embedding, nn.Conv2d)) and "position" not in name
    ]
    return next(given for given, _ in _trace(network, leaves, call).values() if given is not None)


def _ids_of(loaded: Any, network: nn.Module | None) -> Callable[[str], list[int]]:
    """The token ids of a text given together with a long one: some formats pad to the longest of a call."""
    if hasattr(loaded, "ids"):  # a tokenizer of its own
        return loaded.ids
    if network is None:
        return lambda text: loaded.preprocess.text([text])[0].tolist()
    return lambda text: _first_input(network, lambda: loaded.texts([text, _LONG]))[0].tolist()


def _pixels_of(loaded: Any, network: nn.Module | None) -> Callable[[bytes], Tensor]:
    """The export's pixels of an image, normalised: float32 [3, H, W]."""
    if network is None:
        return lambda data: _normalised(loaded.preprocess, data)
    return lambda data: _first_input(network, lambda: loaded.images([data]))[0].float()


def _normalised(preprocess: Preprocess, data: bytes) -> Tensor:
    pixels = replace(preprocess, decode=Decode.exact).image(data).float() / 255
    return (pixels - _channels(preprocess.mean)) / _channels(preprocess.std)


def _channels(values: Iterable[float]) -> Tensor:
    return torch.tensor([*values], dtype=torch.float32).view(3, 1, 1)


def _pixels_differ(encoder: DualEncoder, pixels: Callable[[bytes], Tensor], data: bytes) -> str:
    own = encoder.preprocess
    ours, theirs = _normalised(own, data), pixels(data)
    if ours.shape != theirs.shape:
        return f"Preprocessing differs: pixels of the shape {list(theirs.shape)} instead of {list(ours.shape)}."
    if (apart := _pixels_apart(encoder, theirs, data)) <= _PIXELS:
        return ""
    # Other statistics are a straight line from our pixels to theirs, per channel: it is fitted on a plain image.
    plain = golden_images()["RGB PNG"]
    ours, theirs = _normalised(own, plain).flatten(1).double(), pixels(plain).flatten(1).double()
    spread = ours - ours.mean(1, keepdim=True)
    slope = (spread * (theirs - theirs.mean(1, keepdim=True))).sum(1) / (spread**2).sum(1)
    shift = theirs.mean(1) - slope * ours.mean(1)
    rest = float((theirs - slope[:, None] * ours - shift[:, None]).abs().mean())
    if rest < 0.02 and float((slope - 1).abs().max() + shift.abs().max()) > 0.01:
        std = torch.tensor(own.std).double() / slope
        mean = torch.tensor(own.mean).double() - shift * std
        return (
            f"Preprocessing differs: the pixels are normalised with mean {_list(mean)} and deviation {_list(std)} "
            f"instead of {_list(own.mean)} and {_list(own.std)}."
        )
    return (
        f"Preprocessing differs: decoding, resizing or cropping gives pixels that are {apart:.0f} of 255 away on "
        "average."
    )


def _pixels_apart(encoder: DualEncoder, theirs: Tensor, data: bytes) -> float:
    """Mean difference from the run's pixels, of 255."""
    own = encoder.preprocess
    return float(((_normalised(own, data) - theirs).abs() * _channels(own.std)).mean()) * 255


def _list(values: Iterable[Any]) -> str:
    return "[" + ", ".join(f"{float(value):.3g}" for value in values) + "]"


def _used_tokens(encoder: DualEncoder, ids: Tensor) -> int | None:
    """How many tokens of a row are read; None where padding is read, too."""
    if not encoder.required_tower(Modality.text).ignores_padding:
        return None
    padding = int(encoder.preprocess.text([""])[0, -1])
    read = (ids != padding).nonzero()
    return int(read.max()) + 1 if len(read) else 1


def _tokens_differ(encoder: DualEncoder, ids: Callable[[str], list[int]], text: str) -> str:
    def own_ids(text: str) -> list[int]:
        return encoder.preprocess.text([text])[0].tolist()

    used = _used_tokens(encoder, encoder.preprocess.text([text])[0])
    ours, theirs = own_ids(text), ids(text)
    if theirs[:used] == ours[:used]:
        return ""
    why = _why_tokens_differ(own_ids, ids, text)
    place = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    shown = text if len(text) < 40 else text[:37] + "…"
    run, export = (f"token {row[place]}" if place < len(row) else "missing" for row in (ours, theirs))
    return f"Tokenisation differs ({why}): for {shown!r} position {place} is {export} instead of {run}."


def _why_tokens_differ(run: Callable[[str], list[int]], export: Callable[[str], list[int]], text: str) -> str:
    special = {*run(""), *export("")}

    def words(ids: list[int]) -> list[int]:
        return [token for token in ids if token not in special]

    if words(run(text)) == words(export(text)):
        return "the words are the same, but padding, start or end are elsewhere: padding side, padding id or length"
    upper = golden_texts()["upper case"]
    ours, theirs, lower = words(run(upper)), words(export(upper)), words(export(upper.lower()))
    if theirs != ours == lower:
        return "the export does not lower upper case, the run does"
    if theirs == lower != ours:
        return "the export lowers upper case, the run does not"
    return "its cleaning or its vocabulary"


# --- what the towers make of it


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
    state, exported = exported_state(encoder), network.state_dict()
    if isinstance(encoder.model, TextOnly):
        state = {name.removeprefix(_TEXT_ONLY): value for name, value in state.items()}
    elif isinstance(network, PreTrainedModel):
        native = describe(encoder.model)
        if native.kind == "siglip":
            state.setdefault("logit_bias", torch.zeros(1))
        state = to_native(state, native.table, {name: value.shape for name, value in exported.items()})
    return [
        name
        for name, value in state.items()
        if name in exported and not torch.allclose(value, exported[name], atol=1e-6)
    ]


def _layer_differs(
    encoder: DualEncoder, loaded: Loaded, network: nn.Module, modality: Modality, value: str | bytes
) -> str:
    pairs, tower = module_pairs(encoder, network), encoder.required_tower(modality)
    theirs = _trace(network, pairs.values(), lambda: _call(loaded, value))
    if isinstance(value, str):
        inputs = encoder.preprocess.text([value, _LONG])
    else:  # the export's own pixels: those may differ by a rounding, which is no layer's fault
        pixels = next(iter(theirs.values()))[0]
        assert pixels is not None, "the first layer of an image tower is given pixels"
        inputs = pixels.to(torch.float32)
    with torch.inference_mode():
        ours = _trace(encoder.model, pairs, lambda: tower.head(tower.trunk(inputs)))
    used = _used_tokens(encoder, inputs[0]) if modality is Modality.text else None
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
    if _cosine(encoder, loaded, value) > _SAME:
        return ""
    if isinstance(value, bytes) and (apart := _pixels_apart(encoder, inputs[0], value)):
        return f"The tower is the same; pixels that are {apart:.2g} of 255 away on average make the difference."
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


def _call(loaded: Loaded, value: str | bytes) -> Any:
    """[1, D]; a text is given together with a long one, as some formats pad to the longest of a call."""
    return (loaded.texts([value, _LONG]) if isinstance(value, str) else loaded.images([value]))[:1]


def _cosine(encoder: DualEncoder, loaded: Loaded, value: str | bytes) -> float:
    ours = run_texts(encoder, [value]) if isinstance(value, str) else run_images(encoder, [value])
    return float((unit(_call(loaded, value)) * ours).sum())


def _graph_differs(encoder: DualEncoder, loaded: Loaded, modality: Modality, value: str | bytes) -> str:
    """ONNX: what goes into the graph is the run's already, so the graph itself is all that is left."""
    cosine = _cosine(encoder, loaded, value)
    if cosine > _SAME:
        return ""
    return (
        f"What goes into it is the same, so it is the {modality.value} tower's graph, onnx/{modality.value}.onnx, "
        f"from {'tokens' if modality is Modality.text else 'pixels, their statistics included,'} to the vector: "
        f"cosine {cosine:.5f}."
    )
