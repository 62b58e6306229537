"""Encoded images as the user of an export opens them.

The pixels that a library sees are those of the run, with two exceptions. transformers converts to RGB before it
resizes, open_clip and the run afterwards, which shows in palettes and transparency. And where an odd number of pixels
is cropped, transformers and open_clip begin at different ones; the run does as its model's first library did. Such
images are resized and cropped here, and nothing is left for the library to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from gcl.data.images import decode
from gcl.model.settings import OWN_RESIZE, Resize

_PLAIN = ("RGB", "L")  # modes in which resizing and converting to RGB can be swapped without changing a pixel
_BEGIN: dict[Resize, Callable[[float], int]] = {Resize.shortest: round, Resize.shortest_transformers: int}


def for_processor(processor: Any, data: bytes) -> Image.Image:
    """The upright image as an image processor of transformers must get it to see the pixels that the run sees."""
    image = decode(data)
    image.info.pop("transparency", None)  # a transparent colour: transformers would put white behind it
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    edge = size["shortest_edge"] if "shortest_edge" in size else None
    target = _with_edge(image.size, edge) if edge else (size["width"], size["height"])
    box = (crop["width"], crop["height"]) if crop else target
    ours = getattr(processor, OWN_RESIZE, Resize.shortest_transformers)
    resample = Image.Resampling(int(processor.resample))
    if image.mode in _PLAIN and _corner(target, box, ours) == _corner(target, box, Resize.shortest_transformers):
        return image
    return _cropped(image, target, box, ours, resample)


def for_open_clip(preprocess_cfg: Mapping[str, Any], data: bytes) -> Image.Image:
    """The upright image as open_clip must get it; preprocess_cfg: that of the folder's open_clip_config.json."""
    image, ours = decode(data), preprocess_cfg.get(OWN_RESIZE)
    if ours is None:
        return image
    height, width = preprocess_cfg["size"]
    target, box = _with_edge(image.size, height), (width, height)
    if _corner(target, box, ours) == _corner(target, box, Resize.shortest):
        return image
    return _cropped(image, target, box, ours, Image.Resampling[preprocess_cfg["interpolation"].upper()])


def _corner(size: tuple[int, int], box: tuple[int, int], resize: str) -> tuple[int, int]:
    """Where the middle begins: left, top."""
    begin = _BEGIN[Resize(resize)]
    return begin((size[0] - box[0]) / 2), begin((size[1] - box[1]) / 2)


def _cropped(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int], resize: str, resample: Image.Resampling
) -> Image.Image:
    if size != image.size:
        image = image.resize(size, resample)
    left, top = _corner(size, box, resize)
    return image.crop((left, top, left + box[0], top + box[1])).convert("RGB")


def _with_edge(size: tuple[int, int], edge: int) -> tuple[int, int]:
    width, height = size
    return (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
