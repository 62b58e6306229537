"""Bytes and strings to the tensors a model takes. Knows no model: it pickles small and travels to reader processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from gcl.data.images import MOST_ELONGATED, BadImage, decode, orientation_of_jpeg, to_rgb
from gcl.model.settings import Decode, LoadOptions, Resize
from gcl.model.tokens import Tokens
from gcl.options import check_numbers

# EXIF orientation -> (transpose height and width, flip top-bottom, flip left-right), in this order.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_JPEG = b"\xff\xd8"
_EXIF = b"Exif\x00\x00", b"tiff:Orientation"  # the second: as XMP writes it, which Pillow reads where EXIF is silent
_EXIF_WINDOW = 1 << 17  # both are in the first segments, and a segment is at most half as long
# torch's kernel has weights of 16 bits, Pillow's of 22. Where a side shrinks less than this, about one value in a
# million differs by 2 of 255, and Pillow does the work; above it none of 10^8 did.
_LEAST_SHRINKAGE = 1.5


@dataclass
class Preprocess:
    """A model's own way of reading images and texts: open_clip's evaluation transform, only faster.

    1. The bytes are decoded, JPEGs by libjpeg (`decode=scaled`: large ones at a smaller size), the rest by Pillow.
    2. A photo whose EXIF data says that it lies on its side is turned upright, which open_clip leaves out.
    3. The image gets the model's size (`resize`), by torch's kernel where that gives Pillow's pixels, else by Pillow.
    4. What is not RGB becomes RGB after that, as in open_clip. Normalisation is left to the device.

    Pixels differ from open_clip's by at most 1 of 255 for any image open_clip can read. Every field enters the
    fingerprint by which cached embeddings are found (gcl/model/fingerprint.py).
    """

    size: tuple[int, int]
    """(height, width) of the tensor."""
    mean: tuple[float, float, float]
    """The model's pixel statistics, for values from 0 to 1."""
    std: tuple[float, float, float]
    tokens: Tokens
    """The model's tokenizer."""
    resize: Resize = Resize.squash
    interpolation: str = "bicubic"
    """bicubic or bilinear."""
    fill: int = 0
    """The grey value of padding."""
    decode: Decode = Decode.exact
    """scaled decodes JPEGs at a smaller size, at least twice the target: faster on photos above 1,000 pixels, mean
    difference about 0.3 of 255 there (1 to 2 where fine detail fills the image)."""
    crop: float = 0.9
    """`augment` shows at least this share of the image's area."""

    def __post_init__(self) -> None:
        check_numbers(LoadOptions(crop=self.crop), "model.")
        self.resize, self.decode = Resize(self.resize), Decode(self.decode)  # plain strings will do

    def text(self, texts: list[str]) -> Tensor:
        """texts, n of them -> token ids int64 [n, L], L the model's context length."""
        return self.tokens(texts)

    @property
    def image_size(self) -> int:
        """The longer side of the tensor."""
        return max(self.size)

    def image(self, data: bytes) -> Tensor:
        """An encoded image -> uint8 [3, H, W].

        Raises:
            ValueError: it cannot be decoded.
        """
        return self._tensor(self._fit(self._decode(data)))

    def augment(self, data: bytes, rng: np.random.Generator) -> Tensor:
        """As `image`, of a random part of the image in its own proportions: training images."""
        whole = self._decode(data)
        _, height, width = TF.get_dimensions(whole)
        side = rng.uniform(self.crop, 1.0) ** 0.5
        high, wide = max(1, round(height * side)), max(1, round(width * side))
        top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        return self._tensor(self._fit(TF.crop(whole, top, left, high, wide)))

    def _decode(self, data: bytes) -> Tensor | Image.Image:
        """-> the upright image: uint8 [3, H, W], or a Pillow image where it is not plain RGB."""
        try:
            pixels = self._decode_jpeg(data) if data[:2] == _JPEG else None
            if pixels is None:
                image = decode(data)
                if image.mode != "RGB":
                    return image
                pixels = np.array(image)
        except BadImage as error:
            raise ValueError(f"no image that can be decoded: {error.bad.detail}") from error
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _decode_jpeg(self, data: bytes) -> np.ndarray | None:
        """-> uint8 [H, W, 3] turned upright, or None for what libjpeg alone does not turn into RGB."""
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            limit = Image.MAX_IMAGE_PIXELS
            if colorspace not in ("YCbCr", "Gray", "RGB") or (limit and height * width > limit):
                return None
            least = 2 * max(self.size) if self.decode == Decode.scaled else 0
            pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least)
        except ValueError:  # libjpeg's warnings included; Pillow knows which of them matter
            return None
        if any(mark in data[:_EXIF_WINDOW] for mark in _EXIF):
            if turn := _TURNS.get(orientation_of_jpeg(data)):
                pixels = _turn(pixels, *turn)
        return pixels

    def _tensor(self, image: Tensor | Image.Image) -> Tensor:
        if isinstance(image, Image.Image):
            image = torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)
        return image.contiguous()

    def _fit(self, image: Tensor | Image.Image) -> Tensor | Image.Image:
        """Resizes, crops and pads to the size; tensors (uint8 [3, H, W]) and Pillow images by the same steps.

        Like open_clip, an image is resized in its own mode and becomes RGB afterwards: in a palette the nearest pixel
        is taken, transparent pixels do not bleed into their neighbours.
        """
        _, height, width = TF.get_dimensions(image)
        if (height, width) == self.size:
            return image
        if self.resize.crops and max(height, width) > MOST_ELONGATED * min(height, width):
            most = MOST_ELONGATED * min(height, width)  # only the middle is kept: the rest is not resized first
            height, width = min(height, most), min(width, most)
            image = TF.center_crop(image, [height, width])
        resized = self._resized(height, width)
        if resized != (height, width):
            image = self._scale(image, resized)
        image = _pad(image, self.size, self.fill)
        return image if resized == self.size else self._middle(image)

    def _middle(self, image: Tensor | Image.Image) -> Tensor | Image.Image:
        if self.resize != Resize.shortest_transformers:
            return TF.center_crop(image, list(self.size))  # an odd rest is halved to the even one of its neighbours
        _, height, width = TF.get_dimensions(image)
        return TF.crop(image, (height - self.size[0]) // 2, (width - self.size[1]) // 2, *self.size)

    def _scale(self, image: Tensor | Image.Image, size: tuple[int, int]) -> Tensor | Image.Image:
        if isinstance(image, Image.Image):
            return TF.resize(image, list(size), InterpolationMode(self.interpolation))
        _, height, width = image.shape
        if self.decode == Decode.exact and min(height / size[0], width / size[1]) < _LEAST_SHRINKAGE:
            whole = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            return torch.from_numpy(np.array(self._scale(whole, size))).permute(2, 0, 1)
        # torch's own bytes-to-bytes kernel rounds between the two passes as Pillow does; torchvision's goes by float.
        # What is cut off at black and white between them depends on which comes first: torch begins with the rows.
        high, wide = height - size[0], width - size[1]
        columns_first = high > max(2 * wide, 0) and _pillow_may_begin_with_columns()
        steps = [(size[0], width), size] if columns_first else [size]
        for step in steps:
            image = F.interpolate(image[None], step, mode=self.interpolation, align_corners=False, antialias=True)[0]
        return image

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        target_height, target_width = self.size
        if self.resize == Resize.squash:
            return self.size
        if self.resize.crops and target_height == target_width:  # torchvision rounds this one down
            if height <= width:
                return target_height, int(target_width * width / height)
            return int(target_height * height / width), target_width
        ratios = height / target_height, width / target_width
        ratio = max(ratios) if self.resize == Resize.longest else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


@lru_cache(maxsize=1)
def _pillow_may_begin_with_columns() -> bool:
    """The only thing that depends on a library's version: Pillow 13 shrinks an image along its columns first if it
    loses more than twice as much height as width; earlier versions always begin with the rows.

    Tried once, not read off the version: stripes whose pixels differ between the two orders.
    """
    stripes = Image.fromarray(np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (40, 12)))
    by_rows = stripes.resize((8, 40), Image.Resampling.BICUBIC).resize((8, 8), Image.Resampling.BICUBIC)
    return by_rows.tobytes() != stripes.resize((8, 8), Image.Resampling.BICUBIC).tobytes()


def _pad(image: Tensor | Image.Image, size: tuple[int, int], fill: int) -> Tensor | Image.Image:
    _, height, width = TF.get_dimensions(image)
    high, wide = max(0, size[0] - height), max(0, size[1] - width)
    if not high and not wide:
        return image
    return TF.pad(image, [wide // 2, high // 2, (wide + 1) // 2, (high + 1) // 2], fill=fill)


def _turn(pixels: np.ndarray, transpose: bool, vertical: bool, horizontal: bool) -> np.ndarray:
    """pixels[H, W, 3] -> the same turned, in memory of its own."""
    pixels = pixels.transpose(1, 0, 2) if transpose else pixels
    return np.ascontiguousarray(pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1])
