"""Images before they are stored: read from wherever the table says, decoded once from end to end, shrunk if asked."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps

from gcl.data.tables.quarantine import Bad

# What is tried. Not on the list: formats whose plug-in starts another program (EPS) or draws vectors.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_JPEG_QUALITY = 92


def is_url(cell: str) -> bool:
    """
    >>> is_url("https://shop.example/1.jpg"), is_url("images/1.jpg")
    (True, False)
    """
    return _URL.match(cell) is not None


def image_path(cell: str, folder: Path) -> Path:
    """Where a table's image cell points: absolute, or relative to `folder`."""
    return folder / cell.strip()


def read_image(cell: str | bytes, folder: Path, download: Callable[[str], bytes | Bad] | None = None) -> bytes | Bad:
    """The bytes of an image cell: its own, or those of the file or URL it names. `download`: reads a URL."""
    if isinstance(cell, bytes):
        return cell
    if is_url(cell):
        return download(cell) if download else Bad("URL was not downloaded", cell)
    try:
        return image_path(cell, folder).read_bytes()
    except FileNotFoundError:
        return Bad("no such image", str(image_path(cell, folder)))
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return Bad("image file cannot be opened", f"{cell}: {error}")


def check_image(data: bytes, *, max_pixels: int, side: int | None = None) -> bytes | Bad:
    """Decodes the whole image (the first frame of an animated one) and returns the bytes to store.

    These are `data` itself, or, where `side` is given and smaller than the image's shorter side, the image in that
    size: upright, as JPEG, or as PNG where it has transparency.
    """
    if not data:
        return Bad("unreadable image", "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            if image.width * image.height > max_pixels:
                return Bad(
                    "image has too many pixels",
                    f"{image.width} x {image.height}, data.max_image_pixels is {max_pixels}",
                )
            image.load()
            if side is None or min(image.size) <= side:
                return data
            return _shrunk(image, side)
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on broken files
        return Bad("unreadable image", f"{type(error).__name__}: {_without_address(error)}")


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """Pillow's global limit warns at 89 million pixels whatever the catalog says; here `max_pixels` alone decides."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]  # AVIF and WebP are compiled in or not


def _shrunk(image: Image.Image, side: int) -> bytes:
    image = to_rgb(ImageOps.exif_transpose(image), keep_alpha=True)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    target = io.BytesIO()
    image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if image.mode == "RGBA":
        image.save(target, "PNG")
    else:
        image.save(target, "JPEG", quality=_JPEG_QUALITY)
    return target.getvalue()


def to_rgb(image: Image.Image, *, keep_alpha: bool = False) -> Image.Image:
    """Any mode to 8-bit RGB (RGBA where transparency shall be kept). 16-bit grey is scaled: Pillow would clip it."""
    if image.mode.startswith("I"):  # "I;16", "I;16B", and "I" as PNG's 16-bit grey was opened before Pillow 12
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    elif image.mode == "F":
        image = image.convert("L")
    transparent = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if keep_alpha and transparent else "RGB")


def _without_address(error: Exception) -> str:
    return re.sub(r"<_io\.BytesIO object at 0x[0-9a-f]+>", "the file", str(error))
