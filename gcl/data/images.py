"""Images as encoded bytes: whether they can be used, and their pixels. Whoever decodes one does it here, so that what
`prepare` and an upload accept is what training, search and the pages see.

1. `check_image`: reads the header, refuses what is too large or too elongated, decodes to the end, shrinks if asked
2. `decode`: the upright image in its own mode, as a model's preprocessing and a page's thumbnails start from it

Only the first frame counts. What is broken beside the pixels (EXIF data, comments, a colour profile) is passed over:
browsers show such images too.
"""

from __future__ import annotations

import io
import math
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gcl.data.tables.quarantine import Bad
from gcl.errors import install

# What is tried. Not on the list: formats whose plug-in starts another program (EPS) or draws vectors.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM", "HEIF")
READ = f"JPEG, PNG, WebP, GIF, BMP, TIFF, JPEG 2000 and AVIF (HEIC with {install('heic')})"
MOST_ELONGATED = 100
"""Length of the longer side in shorter sides. A model that resizes the shorter side to 384 pixels makes 384 x 38,400 of
an image with this ratio, 44 MB; of a file of 273 bytes, 1 x 60,000, it would make 3.6 GB. Banners and size charts stay
below 1 : 30, and of what is longer a model sees a stripe."""
_JPEG_QUALITY = 92
# EXIF orientation -> what turns the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


class BadImage(ValueError):
    """An image that cannot be used, and why."""

    def __init__(self, bad: Bad) -> None:
        super().__init__(str(bad))
        self.bad = bad


def check_image(
    data: bytes, *, max_pixels: int, side: int | None = None, limit: str = "data.max_image_pixels"
) -> bytes | Bad:
    """Decodes the whole image (the first frame of an animated one) and returns the bytes to store.

    These are `data` itself, or, where `side` is given and smaller than the image's shorter side, the image in that
    size: upright, as JPEG, or as PNG where it has transparency. limit: what max_pixels is called.
    """

    def check_size(width: int, height: int, bomb: float) -> None:
        if width * height > max_pixels:
            detail = f"{width} x {height}, {limit} is {max_pixels}"
            raise BadImage(Bad("image has too many pixels", detail))
        if max(width, height) > MOST_ELONGATED * min(width, height):
            detail = f"{width} x {height}, one side may be {MOST_ELONGATED} times as long as the other"
            raise BadImage(Bad("image is too elongated", detail))
        if side is None or min(width, height) <= side:
            _check_bomb(width, height, bomb)  # it is stored as it is, and training will decode it

    try:
        image = _load(data, check_size)
        return data if side is None or min(image.size) <= side else _shrunk(image, side)
    except BadImage as error:
        return error.bad


def decode(data: bytes, *, at_least: int | None = None) -> Image.Image:
    """The upright image in its own mode, of 8 bits per band. `at_least`: a JPEG may be decoded at a smaller size with
    sides of no less than this.

    Raises:
        BadImage: it cannot be decoded, or is a decompression bomb by Pillow's own limit.
    """
    return _upright(_load(data, _check_bomb, at_least=at_least))


def header_of(data: bytes) -> tuple[int, int, str, str]:
    """Width, height, mode and format of an image that can be decoded, as its file says."""
    with _no_pixel_limit():
        try:
            image = Image.open(io.BytesIO(data), formats=_formats())
        except Exception:
            image = Image.open(io.BytesIO(_pixels_of_png(data)), formats=_formats())
        return image.width, image.height, image.mode, image.format or "?"


def orientation_of_jpeg(data: bytes) -> int:
    """The EXIF orientation, from 1 (upright) to 8; 1 where there is none that can be read."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return _orientation(image)
    except OSError:  # libjpeg alone may read it
        return 1


def to_rgb(image: Image.Image, *, keep_alpha: bool = False) -> Image.Image:
    """Any mode to 8-bit RGB (RGBA where transparency shall be kept)."""
    image = _eight_bits(image)
    transparent = "A" in image.getbands() or "transparency" in image.info
    if keep_alpha and transparent:
        return image.convert("RGBA")
    if isinstance(image.info.get("transparency"), bytes):  # an alpha per colour: Pillow warns of the direct way
        image = image.convert("RGBA")
    return image.convert("RGB")


_CheckSize = Callable[[int, int, float], None]  # (width, height, pixels that Pillow takes for a bomb) -> BadImage


def _load(data: bytes, check_size: _CheckSize, at_least: int | None = None) -> Image.Image:
    """The image as it lies in the file. check_size: called before anything is decoded."""
    if not data:
        raise BadImage(Bad("unreadable image", "the file is empty"))
    try:
        with _no_pixel_limit() as limit:
            try:
                return _open(data, limit, check_size, at_least)
            except BadImage:
                raise
            except Exception:
                if not data.startswith(_PNG):
                    raise
                return _open(_pixels_of_png(data), limit, check_size, at_least)
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on broken files
        detail = _other_kind(data) or _what_failed(data, error)
        raise BadImage(Bad("unreadable image", detail)) from error


def _open(data: bytes, limit: int | None, check_size: _CheckSize, at_least: int | None) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=_formats())
    check_size(*image.size, 2 * limit if limit else math.inf)
    if at_least is not None:
        image.draft("RGB", (at_least, at_least))
    image.load()
    return _eight_bits(image)


def _check_bomb(width: int, height: int, bomb: float) -> None:
    """As Pillow does, whose limit (twice Image.MAX_IMAGE_PIXELS) the user's program may have set."""
    if width * height > bomb:
        detail = f"{width} x {height}; beyond {bomb:,.0f} it counts as a decompression bomb"
        raise BadImage(Bad("image has too many pixels", detail))


@cache
def _formats() -> list[str]:
    Image.init()
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            pass
        else:
            pillow_heif.register_heif_opener()
    return [name for name in _FORMATS if name in Image.OPEN]  # AVIF and WebP are compiled in or not


_open_limits: list[int | None] = []
_limit_lock = threading.Lock()


@contextmanager
def _no_pixel_limit() -> Iterator[int | None]:
    """Pillow's global limit warns at 89 million pixels, whatever the catalog says: inside of this there is none. Gives
    what it is outside."""
    with _limit_lock:
        _open_limits.append(Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
        outside = _open_limits[0]
    try:
        yield outside
    finally:
        with _limit_lock:  # threads decode at once: the last one puts back what the first one found
            before = _open_limits.pop()
            Image.MAX_IMAGE_PIXELS = None if _open_limits else before


def _pixels_of_png(data: bytes) -> bytes:
    """A PNG without its texts, profiles, EXIF data and the like, any of which Pillow may refuse to read."""
    kept, start = [_PNG], len(_PNG)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if name in _PNG_PIXELS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF data that is none; browsers show the image as it lies
        return 1


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """In a mode that can be resized and converted to RGB. Grey values of more bits are scaled: Pillow's own conversion
    would make them white."""
    if image.mode == "F" or image.mode.startswith("I"):
        scaled = Image.fromarray(_scaled(image))
        scaled.info = image.info
        return scaled
    if image.mode == "PA":
        return image.convert("RGBA")  # resized as it is, it would be black
    if not _is_plain(image.mode):
        raise BadImage(Bad("unreadable image", f"its mode is {image.mode}, which Pillow does not convert to RGB"))
    return image


@cache
def _is_plain(mode: str) -> bool:
    try:
        Image.new(mode, (2, 2)).resize((1, 1), Image.Resampling.BICUBIC).convert("RGB")
    except ValueError:
        return False
    return True


def _scaled(image: Image.Image) -> np.ndarray:
    """Grey values of 16 or 32 bits or of floating point, as uint8 [H, W]."""
    if image.mode.startswith("I;16"):
        values, whole = np.asarray(image.convert("I")).astype(np.float64), 256.0
    else:  # nothing says how large the values may be; the largest of the usual ranges that holds them all
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
        most = values.max(initial=0.0)
        ranges = (1.0 / 255,) if image.mode == "F" and most <= 1 else (1.0, 256.0, 2.0**24)
        whole = next((size for size in ranges if most < 256 * size), ranges[-1])
    return np.clip(values / whole, 0, 255).astype(np.uint8)


def _shrunk(image: Image.Image, side: int) -> bytes:
    image = to_rgb(_upright(image), keep_alpha=True)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    target = io.BytesIO()
    colours = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if image.mode == "RGBA":
        # by themselves: Pillow would make what is transparent black, where a model sees the colour below
        alpha = image.getchannel("A").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        colours.putalpha(alpha)
        colours.save(target, "PNG")
    else:
        colours.save(target, "JPEG", quality=_JPEG_QUALITY)
    return target.getvalue()


def _what_failed(data: bytes, error: Exception) -> str:
    unidentified = isinstance(error, UnidentifiedImageError)
    said = f"{type(error).__name__}: {error}"
    if (data.startswith(_BEGINNINGS) or _is_webp(data)) and not isinstance(error, MemoryError):
        return "the file is cut off or damaged" if unidentified else f"the file is cut off or damaged ({said})"
    return f"it is no image, or of a kind that is not read: {_READ}" if unidentified else said


_BEGINNINGS = (b"\xff\xd8", _PNG, b"GIF8", b"II*\0", b"MM\0*")
_AVIF = b"avif", b"avis"
_HEIC = b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _other_kind(data: bytes) -> str | None:
    """What the bytes are instead of an image that is read; None for what is not recognised."""
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = start.lower()
    if not start:
        return "the file holds nothing but white space"
    if data[4:8] == b"ftyp":
        if data[8:12] in _AVIF:
            return None
        why = "damaged" if "HEIF" in _formats() else _READ
        return f"it is a HEIC photo: {why}" if data[8:12] in _HEIC else "it is a video"
    if b"<svg" in lower:
        return "it is an SVG drawing: save it as PNG"
    if _is_webp(data):
        return None
    for magic, kind in _OTHERS.items():
        if lower.startswith(magic):
            return f"it is {kind}"
    return None


GIT_LFS = b"version https://git-lfs"  # how the pointer begins that Git leaves where a large file was not fetched
_READ = f"images are read as {READ}"
_OTHERS = {
    GIT_LFS: "a Git LFS pointer, not the file itself: git lfs pull fetches it",
    b"<!doctype html": "a web page (of a login, or an error), not an image",
    b"<html": "a web page (of a login, or an error), not an image",
    b"<?xml": "an XML document, not an image",
    b"{": "a text in JSON, not an image",
    b"%pdf": "a PDF document: save its pictures as JPEG or PNG",
    b"%!ps": "a PostScript drawing: save it as PNG",
    b"8bps": "a Photoshop document: save it as JPEG or PNG",
    b"pk\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "compressed with gzip",
    b"data:image/": "a data: URI, not the image itself",
    b"\xff\x0a": f"a JPEG XL image: {_READ}",
    b"\0\0\0\x0cjxl ": f"a JPEG XL image: {_READ}",
    b"riff": "a RIFF file of another kind than WebP",
}
