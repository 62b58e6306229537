"""A catalog's images: their sizes, modes and formats, and which look the same though their bytes differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gcl.data.images import BadImage, decode, header_of, to_rgb
from gcl.data.store.records import Records, images_of
from gcl.files.progress import counted

# Near copies: at most NEAR of 128 bits differ (shoes on white ground do that too), and little of the thumbnails.
NEAR = 6
TINY = 32  # pixels of a shorter side that shows nothing
_MEAN, _LARGEST = 3.5, 20  # of 255, over a thumbnail's values
_THUMBNAIL = 12
_BANDS = 8  # of 16 bits: with fewer than 8 differing bits at least one band is equal
_FLAT = 3.0  # standard deviation of the small image's grey values below which there is nothing to compare
_MOST_NEIGHBOURS = 512  # compared in one band: bounds the work where thousands of images share a background


class Look(NamedTuple):
    """What is read of one image. size: bytes of its file. hash: dHash of 128 bits as two numbers; None for an image too
    flat to have one."""

    width: int
    height: int
    mode: str
    format: str
    size: int
    hash: tuple[int, int] | None
    thumbnail: bytes  # RGB, 12 x 12


def look_at(data: bytes) -> Look | None:
    """None for what cannot be decoded."""
    try:
        image = decode(data, at_least=64)  # a JPEG is decoded at an eighth of its size where that suffices
    except BadImage:
        return None
    small = to_rgb(image).resize((36, 36), Image.Resampling.BOX)  # 9 and 12 divide it
    thumbnail = small.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX).tobytes()
    return Look(*header_of(data), len(data), difference_hash(small.convert("L")), thumbnail)


def difference_hash(image: Image.Image) -> tuple[int, int] | None:
    """128 bits: of a 9 x 9 grey image, whether each pixel is darker than its right and than its lower neighbour.

    After "dHash" (Krawetz 2013, https://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html), which has
    the first half; the second tells more images on white ground apart.
    """
    small = np.asarray(image.resize((9, 9), Image.Resampling.BOX), dtype=np.int16)
    if small.std() < _FLAT:
        return None
    bits = (small[:8, 1:] > small[:8, :-1], small[1:, :8] > small[:-1, :8])
    right, lower = (int.from_bytes(np.packbits(half).tobytes(), "big") for half in bits)
    return right, lower


class Seen(NamedTuple):
    """hash: uint64 [n, 2], zeros where there is none; thumbnail: uint8 [n, 432]."""

    hash: np.ndarray
    thumbnail: np.ndarray


def look_at_images(records: Records, field: str, rows: np.ndarray, *, threads: int = 2) -> tuple[dict[str, Any], Seen]:
    """Facts about these rows' images, of sets their first ones, and what they are compared by."""
    with ThreadPoolExecutor(threads) as pool:
        looks: list[Look | None] = []
        parts = np.array_split(rows, max(1, len(rows) // 256))
        for part in counted(parts, f"Images of {field}", total=len(rows), unit="image", size=len):
            looks += pool.map(look_at, [images_of(value)[0] for value in records.column(field, part)])
    seen = Seen(np.zeros((len(rows), 2), np.uint64), np.zeros((len(rows), 3 * _THUMBNAIL**2), np.uint8))
    for place, look in enumerate(looks):
        if look is not None and look.hash is not None:
            seen.hash[place], seen.thumbnail[place] = look.hash, np.frombuffer(look.thumbnail, np.uint8)
    readable = [look for look in looks if look is not None]
    facts = {
        "looked_at": len(rows),
        "unreadable": [place for place, look in enumerate(looks) if look is None],
        "modes": _counts(look.mode for look in readable),
        "formats": _counts(look.format for look in readable),
        "width": _spread([look.width for look in readable]),
        "height": _spread([look.height for look in readable]),
        "shorter_side": _spread([min(look.width, look.height) for look in readable]),
        "bytes": _spread([look.size for look in readable]),
        "tiny": [place for place, look in enumerate(looks) if look and min(look.width, look.height) < TINY],
        "too_flat_to_compare": sum(look.hash is None for look in readable),
    }
    return facts, seen


def near_pairs(seen: Seen, *, distance: int = NEAR) -> np.ndarray:
    """Pairs (i, j) of different images that look the same, int64 [m, 2], each once."""
    pairs = close_hashes(seen.hash, distance=distance)
    apart = np.abs(seen.thumbnail[pairs[:, 0]].astype(np.int16) - seen.thumbnail[pairs[:, 1]])
    return pairs[(apart.mean(1) <= _MEAN) & (apart.max(1, initial=0) <= _LARGEST)]


def close_hashes(hashes: np.ndarray, *, distance: int = NEAR) -> np.ndarray:
    """Pairs (i, j) of different rows of `hashes`[n, 2] that differ in at most `distance` bits, int64 [m, 2], each once.

    Rows of zeros are in no pair.
    """
    real = np.flatnonzero(hashes.any(1))
    pairs = [np.empty((0, 2), np.int64)]
    bands = hashes[real].astype(">u8").view(">u2").reshape(len(real), _BANDS)
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        for step in range(1, min(_MOST_NEIGHBOURS, len(order) - 1) + 1):
            same = band[order[step:]] == band[order[:-step]]
            if not same.any():
                break
            one, other = order[:-step][same], order[step:][same]
            close = _differing(hashes[real[one]], hashes[real[other]]) <= distance
            pairs.append(np.stack([real[one[close]], real[other[close]]], 1))
    return np.unique(np.sort(np.concatenate(pairs), 1), axis=0)


def _differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    changed = np.ascontiguousarray(one ^ other).view(np.uint8)
    return _ONES[changed].reshape(len(one), -1).sum(1)


_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _spread(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    least, low, middle, high, most = np.percentile(values, [0, 5, 50, 95, 100]).tolist()
    return {"least": least, "5%": low, "median": middle, "95%": high, "most": most}
