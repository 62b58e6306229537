"""Encoded images as the user of an export opens them."""

from __future__ import annotations

from typing import Any

from PIL import Image

from gcl.data.images import decode

_PLAIN = ("RGB", "L")  # modes in which resizing and converting to RGB can be swapped without changing a pixel


def for_processor(processor: Any, data: bytes) -> Image.Image:
    """The upright image as an image processor of transformers must get it to see the pixels that open_clip sees.

    Most images stay as they are. transformers converts to RGB before it resizes, open_clip afterwards, which shows in
    palettes and transparency; and where an odd number of pixels is cropped, transformers crops one pixel further left
    or up. Those images are resized and cropped here, and nothing is left for the processor to do.
    """
    image = decode(data)
    image.info.pop("transparency", None)  # a transparent colour: transformers would put white behind it
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    edge = size["shortest_edge"] if "shortest_edge" in size else None
    target = _with_edge(image.size, edge) if edge else (size["width"], size["height"])
    left, top = ((target[0] - crop["width"]) / 2, (target[1] - crop["height"]) / 2) if crop else (0, 0)
    if image.mode in _PLAIN and (round(left), round(top)) == (int(left), int(top)):
        return image
    if target != image.size:
        image = image.resize(target, Image.Resampling(int(processor.resample)))
    if crop:
        image = image.crop((round(left), round(top), round(left) + crop["width"], round(top) + crop["height"]))
    return image.convert("RGB")


def _with_edge(size: tuple[int, int], edge: int) -> tuple[int, int]:
    width, height = size
    return (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
