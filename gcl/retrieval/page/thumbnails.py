"""Small pictures as data URIs, each content once, however many products and results show it."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from PIL import Image

from gcl.data.images import decode, to_rgb
from gcl.data.store.shard_writer import content_hash

_QUALITY = 62


class Mark(NamedTuple):
    """A state of an album to go back to."""

    pictures: int
    size: int


class Album:
    """Pictures in the order in which they were added. size: bytes they take on the page."""

    def __init__(self, side: int) -> None:
        self.side, self.size = side, 0
        self.pictures: dict[bytes, str] = {}
        self._number: dict[bytes, int] = {}

    def add(self, data: bytes | None) -> int:
        """The number of this picture; -1 if there is none or it cannot be read."""
        if not data:
            return -1
        key = content_hash(data)
        if key not in self._number:
            picture = thumbnail(data, self.side)
            if picture is None:
                return -1
            self._number[key] = len(self.pictures)
            self.pictures[key] = picture
            self.size += len(picture) + 3
        return self._number[key]

    def mark(self) -> Mark:
        return Mark(len(self.pictures), self.size)

    def back_to(self, mark: Mark) -> None:
        """Forgets what was added since."""
        while len(self.pictures) > mark.pictures:
            key, _ = self.pictures.popitem()
            del self._number[key]
        self.size = mark.size


def thumbnail(data: bytes, side: int) -> str | None:
    """data: an encoded image -> a data URI of its `small_picture`, or None if it cannot be read."""
    picture = small_picture(data, side)
    return None if picture is None else "data:image/webp;base64," + base64.b64encode(picture).decode()


def small_picture(data: bytes, side: int) -> bytes | None:
    """data: an encoded image -> WebP, at most `side` wide and high, on white; None if it cannot be read."""
    try:
        image = to_rgb(decode(data, at_least=2 * side), keep_alpha=True)
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        if image.mode == "RGBA":
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
            image = white
        out = io.BytesIO()
        image.save(out, "WEBP", quality=_QUALITY, method=4)
    except Exception:  # broken files raise nearly every kind; a page without one picture is still a page
        return None
    return out.getvalue()
