"""What goes into an export's towers against what goes into the run's: token ids and pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gcl.export.verify.golden import golden_images, golden_texts
from gcl.export.verify.hooks import first_input
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Modality

LONG = golden_texts()["beyond the context"]
_PIXELS = 2.0  # of 255: mean difference that two libraries' resizing may have at most


def ids_of(loaded: Any, network: nn.Module | None) -> Callable[[str], list[int]]:
    """The token ids of a text beside a long one: some formats pad to the longest of a call."""
    if network is None:
        return lambda text: loaded.preprocess.text([text])[0].tolist()
    return lambda text: first_input(network, lambda: loaded.texts([text, LONG]))[0].tolist()


def pixels_of(loaded: Any, network: nn.Module | None) -> Callable[[bytes], Tensor]:
    """The export's pixels of a picture, normalised: float32 [3, H, W]."""
    if network is None:
        return lambda data: _normalised(loaded.preprocess, data)
    return lambda data: first_input(network, lambda: loaded.images([data]))[0].float()


def _normalised(preprocess: Any, data: bytes) -> Tensor:
    pixels = replace(preprocess, decode="exact").image(data).float() / 255
    return (pixels - _channels(preprocess.mean)) / _channels(preprocess.std)


def _channels(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)


def pixels_differ(encoder: DualEncoder, pixels: Callable[[bytes], Tensor], data: bytes) -> str:
    own = encoder.preprocess
    ours, theirs = _normalised(own, data), pixels(data)
    if ours.shape != theirs.shape:
        return f"Preprocessing differs: pixels of the shape {list(theirs.shape)} instead of {list(ours.shape)}."
    if (apart := pixels_apart(encoder, theirs, data)) <= _PIXELS:
        return ""
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
        f"Preprocessing differs: decoding, resizing or cropping gives pixels that are {apart:.0f} of 255 away on the "
        "average."
    )  # fmt: skip


def pixels_apart(encoder: DualEncoder, theirs: Tensor, data: bytes) -> float:
    """Mean difference from the run's pixels, of 255."""
    own = encoder.preprocess
    return float(((_normalised(own, data) - theirs).abs() * _channels(own.std)).mean()) * 255


def _list(values: Any) -> str:
    return "[" + ", ".join(f"{float(value):.3g}" for value in values) + "]"


def used_tokens(encoder: DualEncoder, ids: Tensor) -> int | None:
    """How many tokens of a row are read; None where padding is read, too."""
    if not encoder.tower(Modality.text).ignores_padding:
        return None
    padding = int(encoder.preprocess.text([""])[0, -1])
    read = (ids != padding).nonzero()
    return int(read.max()) + 1 if len(read) else 1


def tokens_differ(encoder: DualEncoder, ids: Callable[[str], list[int]], text: str) -> str:
    ours, theirs = encoder.preprocess.text([text])[0], ids(text)
    used = used_tokens(encoder, ours)
    ours = ours.tolist()
    if theirs[:used] == ours[:used]:
        return ""
    why = _why(lambda text: encoder.preprocess.text([text])[0].tolist(), ids, text)
    place = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    shown = text if len(text) < 40 else text[:37] + "…"
    return (
        f"Tokenisation differs ({why}): for {shown!r} position {place} is {_at(theirs, place)} instead of "
        f"{_at(ours, place)}."
    )  # fmt: skip


def _why(run: Callable[[str], list[int]], export: Callable[[str], list[int]], text: str) -> str:
    special = {*run(""), *export("")}

    def words(ids: list[int]) -> list[int]:
        return [token for token in ids if token not in special]

    if words(run(text)) == words(export(text)):
        return "the words are the same, but padding, start or end stand elsewhere: padding side, padding id or length"
    upper = golden_texts()["upper case"]
    ours, theirs, lower = words(run(upper)), words(export(upper)), words(export(upper.lower()))
    if theirs != ours == lower:
        return "the export does not lower upper case, the run does"
    if theirs == lower != ours:
        return "the export lowers upper case, the run does not"
    return "its cleaning or its vocabulary"


def _at(row: list[int], place: int) -> str:
    return f"token {row[place]}" if place < len(row) else "missing"
