"""Inputs on which an export must agree with its run: an image of every mode, a text of every kind."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # EXIF
_LYING = 6  # turn by 90 degrees to see it


def golden_images() -> dict[str, bytes]:
    """Encoded files by what is special about them. The same bytes' pixels on every machine; 18 files of a few kB."""
    scene = _scene(120, 90)
    grey, alpha = scene.convert("L"), _alpha(120, 90)
    with_alpha = scene.copy()
    with_alpha.putalpha(alpha)
    palette = scene.quantize(32)
    exif = Image.Exif()
    exif[_ORIENTATION] = _LYING
    deep = np.asarray(grey, dtype=np.uint16) * 257
    return {
        "RGB PNG": _file(scene, "PNG"),
        "RGB JPEG": _file(scene, "JPEG", quality=90),
        "RGB JPEG, progressive": _file(_scene(230, 310), "JPEG", quality=80, progressive=True),
        "RGB WebP": _file(scene, "WEBP", lossless=True),
        "RGBA PNG": _file(with_alpha, "PNG"),
        "L PNG": _file(grey, "PNG"),
        "L JPEG": _file(grey, "JPEG", quality=90),
        "LA PNG": _file(Image.merge("LA", (grey, alpha)), "PNG"),
        "P PNG": _file(palette, "PNG"),
        "P PNG, transparent": _file(palette, "PNG", transparency=palette.getpixel((0, 0))),
        "RGB PNG, a colour transparent": _file(scene, "PNG", transparency=scene.getpixel((60, 45))),
        "CMYK JPEG": _file(scene.convert("CMYK"), "JPEG", quality=90),
        "16-bit PNG": _file(Image.fromarray(deep), "PNG"),
        "1-bit PNG": _file(grey.convert("1"), "PNG"),
        "JPEG that lies on its side (EXIF)": _file(scene, "JPEG", quality=90, exif=exif),
        "one pixel": _file(Image.new("RGB", (1, 1), (180, 40, 90)), "PNG"),
        "very wide": _file(_scene(420, 30), "PNG"),
        "very high": _file(_scene(30, 420), "JPEG", quality=90),
    }


def golden_texts() -> dict[str, str]:
    """Texts by what is special about them."""
    return {
        "plain": "red running shoes",
        "one letter": "x",
        "upper case": "RED Running SHOES by NORD",
        "emoji": "gift for her 🎁 👟❤️ 😀",
        "empty": "",
        "spaces alone": "  \t ",
        "beyond the context": "a long blue cotton dress with white buttons and two pockets " * 40,
        "CJK": "红色运动鞋 男士 轻便透气，新款！ 靴 スニーカー 운동화",
        "html entities": "Salt &amp; Pepper mill &lt;steel&gt; 30&nbsp;cm &quot;Nord&quot; men&#39;s",
        "accents": "crème brûlée für Fußgänger, naïve señor, İstanbul, ΟΔΟΣ",
        "ligatures and wide letters": "ﬁne coﬀee ＮＯＲＤ ①②",
        "marks": "don't_stop: 3/4\" (42) — 50% off!!! #1 @home",
        "lines": "two\nlines\r\nand\ta tab",
    }


def damaged_texts() -> dict[str, str]:
    """Texts that open_clip repairs in Python before its tokenizer sees them, and that a tokenizer.json alone cannot."""
    return {
        "broken encoding": "cafÃ© crÃ¨me â€œquotedâ€\x9d",
        "rare html entities": "caf&eacute; &#8211; 20&euro; &#x1F381;",
    }


def _scene(width: int, height: int) -> Image.Image:
    """A smooth gradient with coloured boxes and coarse noise: resizing it wrongly shows."""
    random = np.random.default_rng(width * 1000 + height)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), (x + y) % 256], axis=-1)
    coarse = random.integers(-40, 41, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)
    pixels = pixels + coarse[:height, :width]
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (220, 30, 40)
    pixels[height // 2 : height * 3 // 4, width // 2 : width * 3 // 4] = (20, 60, 200)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _alpha(width: int, height: int) -> Image.Image:
    """Opaque on the left, fading to the right, a hole in the middle."""
    alpha = np.tile(np.linspace(255, 0, width).astype(np.uint8), (height, 1))
    alpha[:, : width // 3] = 255
    alpha[height // 3 : height // 2, width // 3 : width // 2] = 0
    return Image.fromarray(alpha)


def _file(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
