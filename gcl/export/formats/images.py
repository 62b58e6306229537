"""Encoded pictures as the user of an export opens them."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageOps

_PLAIN = ("RGB", "L")  # resizing and becoming RGB can change places without changing a pixel


def upright(data: bytes) -> Image.Image:
    """The picture, turned as its EXIF data says; in its own mode."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def for_processor(processor: Any, data: bytes) -> Image.Image:
    """The upright picture as an image processor of transformers must get it to see the pixels that open_clip sees.

    Most come as they are. transformers turns pictures into RGB before it resizes them, open_clip afterwards, which
    shows in palettes and transparency; and where an odd number of pixels is cut off, it cuts one pixel elsewhere. Those
    are resized and cut here, and the processor finds nothing left to do.
    """
    image = upright(data)
    image.load()
    image.info.pop("transparency", None)  # a colour that is see-through: transformers would lay it on white
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    edge = size["shortest_edge"] if "shortest_edge" in size else None
    wanted = _with_edge(image.size, edge) if edge else (size["width"], size["height"])
    left, top = ((wanted[0] - crop["width"]) / 2, (wanted[1] - crop["height"]) / 2) if crop else (0, 0)
    if image.mode in _PLAIN and (round(left), round(top)) == (int(left), int(top)):
        return image
    if wanted != image.size:
        image = image.resize(wanted, Image.Resampling(int(processor.resample)))
    if crop:
        image = image.crop((round(left), round(top), round(left) + crop["width"], round(top) + crop["height"]))
    return image.convert("RGB")


def _with_edge(size: tuple[int, int], edge: int) -> tuple[int, int]:
    width, height = size
    return (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
