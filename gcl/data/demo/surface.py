"""What an object is covered with: named colours, materials with their grain and gloss, patterns."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

COLORS: dict[str, tuple[int, int, int]] = {
    "black": (38, 38, 41),
    "white": (238, 237, 232),
    "grey": (137, 140, 144),
    "red": (200, 34, 38),
    "blue": (36, 84, 190),
    "green": (36, 130, 68),
    "yellow": (240, 200, 40),
    "orange": (240, 122, 26),
    "pink": (240, 142, 176),
    "purple": (116, 58, 158),
    "brown": (116, 70, 38),
    "beige": (214, 190, 150),
}
# Dyes that a material takes differently from most.
DYES: dict[tuple[str, str], tuple[int, int, int]] = {
    ("blue", "denim"): (56, 88, 148),
    ("grey", "denim"): (112, 118, 128),
    ("orange", "terracotta"): (204, 104, 58),
    ("brown", "wood"): (146, 92, 50),
    ("beige", "wood"): (214, 176, 122),
    ("brown", "leather"): (128, 72, 36),
}
TILE = 384


@dataclass(frozen=True)
class Material:
    """How a material takes light. name: its word in the catalog; grain: name of a tile; amount: its strength; gloss,
    focus: the highlight's height and narrowness; wrinkle: folds of cloth; opacity: below 1, the background shows."""

    name: str
    grain: str
    amount: float = 0.1
    gloss: float = 0.0
    focus: float = 12.0
    wrinkle: float = 0.0
    opacity: float = 1.0
    ambient: float = 0.5


MATERIALS: dict[str, Material] = {
    material.name: material
    for material in (
        Material("cotton", "weave", 0.07, wrinkle=1.0),
        Material("linen", "slub", 0.17, wrinkle=1.3),
        Material("denim", "twill", 0.24, wrinkle=0.8),
        Material("wool", "knit", 0.24, wrinkle=0.5),
        Material("fleece", "fuzz", 0.13, wrinkle=0.7, ambient=0.6),
        Material("silk", "weave", 0.02, gloss=0.55, focus=9, wrinkle=2.0),
        Material("velvet", "nap", 0.15, gloss=0.14, focus=5, wrinkle=0.7, ambient=0.42),
        Material("canvas", "weave", 0.16, wrinkle=0.5),
        Material("nylon", "weave", 0.03, gloss=0.3, focus=12, wrinkle=1.0),
        Material("polyester", "weave", 0.04, gloss=0.22, focus=10, wrinkle=0.6),
        Material("leather", "pebble", 0.1, gloss=0.36, focus=18, wrinkle=0.15, ambient=0.42),
        Material("suede", "nap", 0.14, wrinkle=0.4, ambient=0.55),
        Material("rubber", "smooth", 0.02, gloss=0.55, focus=14, ambient=0.5),
        Material("ceramic", "smooth", 0.02, gloss=0.7, focus=34, ambient=0.48),
        Material("enamel", "smooth", 0.03, gloss=0.55, focus=22, ambient=0.5),
        Material("glass", "smooth", 0.0, gloss=0.95, focus=36, opacity=0.72, ambient=0.62),
        Material("steel", "brushed", 0.14, gloss=0.85, focus=18, ambient=0.3),
        Material("plastic", "smooth", 0.02, gloss=0.45, focus=20, ambient=0.5),
        Material("wood", "wood", 0.26, gloss=0.12, focus=10, ambient=0.5),
        Material("terracotta", "grit", 0.16, ambient=0.5),
        Material("concrete", "grit", 0.28, ambient=0.5),
        Material("leaf", "smooth", 0.05, gloss=0.3, focus=10, ambient=0.5),
    )
}


@cache
def white_noise(stream: int, shape: tuple[int, int]) -> np.ndarray:
    """Fixed noise: part of the drawing's style, so it does not depend on the catalog's seed."""
    return np.random.default_rng([7919, stream]).standard_normal(shape, dtype=np.float32)


def blurred(field: np.ndarray, rx: float, ry: float) -> np.ndarray:
    """Gaussian blur that wraps around, scaled back to unit deviation."""
    fy = np.fft.fftfreq(field.shape[0])[:, None]
    fx = np.fft.rfftfreq(field.shape[1])[None, :]
    kernel = np.exp(-2 * np.pi**2 * ((fx * rx) ** 2 + (fy * ry) ** 2))
    soft = np.fft.irfft2(np.fft.rfft2(field) * kernel, s=field.shape)
    return ((soft - soft.mean()) / soft.std()).astype(np.float32)


@cache
def grain(name: str) -> np.ndarray:
    """A tile[TILE, TILE] of about zero mean and values mostly within [-1, 1]."""
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    noise = white_noise(sum(map(ord, name)), (TILE, TILE))
    if name == "weave":
        tile = 0.5 * np.sin(x * np.pi / 1.5) * np.sin(y * np.pi / 1.5) + 0.35 * noise
    elif name == "slub":
        tile = 0.4 * blurred(noise, 9, 0.5) + 0.4 * blurred(noise[::-1], 0.5, 9)
    elif name == "twill":
        tile = 0.45 * np.sin((x + y) * np.pi / 2) + 0.4 * noise + 0.25 * blurred(noise, 14, 14)
    elif name == "knit":
        tile = np.sin((y + 2.2 * np.abs((x % 8) - 4)) * 2 * np.pi / 6.4) * 0.7 + 0.2 * noise - 0.7 * (x % 8 < 1)
    elif name == "fuzz":
        tile = 0.5 * blurred(noise, 0.9, 0.9) + 0.2 * blurred(noise[::-1], 3, 3)
    elif name == "nap":
        tile = 0.5 * blurred(noise, 11, 7) + 0.22 * noise
    elif name == "pebble":
        bump = blurred(noise, 1.4, 1.4)
        tile = 0.6 * (bump - np.roll(bump, (1, 1), (0, 1))) + 0.25 * blurred(noise, 18, 18)
    elif name == "brushed":
        tile = 0.45 * blurred(noise, 30, 0.4) + 0.1 * noise
    elif name == "wood":
        warp = 10 * blurred(noise, 60, 16)
        tile = 0.45 * np.sin((y + warp) * 2 * np.pi / 17) + 0.3 * blurred(noise, 26, 0.6) + 0.1 * noise
    elif name == "grit":
        tile = 0.35 * noise + 0.35 * blurred(noise[::-1], 14, 14) - 1.6 * (blurred(noise, 1.3, 1.3) > 2.4)
    elif name == "smooth":
        tile = blurred(noise, 20, 20)
    elif name == "folds":
        tile = blurred(noise, 9, 26) + 0.6 * blurred(noise[:, ::-1], 18, 14)
    else:
        raise KeyError(f"{name!r} is no grain.")
    return tile.astype(np.float32)


def shifted_color(
    color: tuple[int, int, int] | np.ndarray, rng: np.random.Generator, amount: float = 1.0
) -> np.ndarray:
    """The colour[3] in [0, 1] with a little change of hue, saturation and brightness: no two dyes are the same."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(np.asarray(color, dtype=np.float64) / 255))
    step = rng.uniform(-1, 1, 3) * amount
    saturation = float(np.clip(saturation * (1 + 0.16 * step[1]), 0, 1))
    value = float(np.clip(value * (1 + 0.13 * step[2]), 0, 1))
    return np.array(colorsys.hsv_to_rgb((hue + 0.014 * step[0]) % 1, saturation, value), dtype=np.float32)


@dataclass(frozen=True)
class Pattern:
    """A second colour laid over the first. period in object units; accent, heart: colours[3]; turn in degrees."""

    name: str
    accent: np.ndarray
    heart: np.ndarray
    period: float
    turn: float = 0.0


def lay(pattern: Pattern, color: np.ndarray, u: np.ndarray, v: np.ndarray, pixel: float) -> np.ndarray:
    """The colours[h, w, 3] of a patterned surface at object coordinates u, v; `pixel`: object units a pixel."""
    if pattern.turn:
        angle = np.radians(pattern.turn)
        u, v = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    p = pattern.period

    def band(at: np.ndarray, share: float) -> np.ndarray:
        distance = np.abs(at / p - np.floor(at / p) - 0.5) * p
        return np.clip((share * p / 2 - distance) / pixel + 0.5, 0, 1)

    if pattern.name == "striped":
        cover = band(v, 0.44)
    elif pattern.name == "checked":
        cover = 0.5 * (band(u, 0.5) + band(v, 0.5))
    elif pattern.name in ("dotted", "floral"):
        row = np.floor(v / p)
        across = u / p + 0.5 * (row % 2)
        column = np.floor(across)
        du, dv = (across - column - 0.5) * p, (v / p - row - 0.5) * p
        distance = np.hypot(du, dv)
        radius: float | np.ndarray = 0.27 * p
        if pattern.name == "floral":
            petals = np.cos(5 * np.arctan2(dv, du) + 2.4 * column + 1.3 * row)
            radius = p * (0.31 + 0.13 * petals)
        cover = np.clip((radius - distance) / pixel + 0.5, 0, 1)
        if pattern.name == "floral":
            heart = np.clip((0.11 * p - distance) / pixel + 0.5, 0, 1)[..., None]
            return (color + cover[..., None] * (pattern.accent - color)) * (1 - heart) + heart * pattern.heart
    else:
        raise KeyError(f"{pattern.name!r} is no pattern.")
    return color + cover[..., None] * (pattern.accent - color)


@dataclass(frozen=True)
class Surface:
    color: np.ndarray
    material: Material
    pattern: Pattern | None = None

    def darker(self, factor: float) -> Surface:
        return replace(self, color=self.color * np.float32(factor), pattern=None)

    def plain(self) -> Surface:
        return replace(self, pattern=None)

    def turned(self, degrees: float) -> Surface:
        if self.pattern is None:
            return self
        return replace(self, pattern=replace(self.pattern, turn=self.pattern.turn + degrees))


def plain(color: tuple[int, int, int], material: str) -> Surface:
    return Surface(np.array(color, dtype=np.float32) / 255, MATERIALS[material])


def dress_surface(color: str, material: str, pattern: str, rng: np.random.Generator) -> Surface:
    """The surface of a product of these attributes."""
    base = shifted_color(DYES.get((color, material), COLORS[color]), rng)
    made_of = MATERIALS[material]
    if material == "wood" and color not in ("brown", "beige"):
        made_of = replace(made_of, amount=0.1, gloss=0.25)  # painted: the grain hardly shows
    light = [(246, 244, 236), (238, 228, 200), (222, 232, 240)]
    dark = [(30, 34, 62), (44, 40, 40), (70, 40, 34)]
    choices = dark if color in ("white", "beige", "yellow", "pink", "grey") else light
    accent = shifted_color(choices[int(rng.integers(len(choices)))], rng)
    if pattern == "plain":
        return Surface(base, made_of)
    period = {"striped": 0.25, "dotted": 0.3, "checked": 0.3, "floral": 0.4}[pattern] * rng.uniform(0.85, 1.2)
    heart = np.array((0.95, 0.76, 0.25) if color != "yellow" else (0.8, 0.3, 0.2), dtype=np.float32)
    return Surface(base, made_of, Pattern(pattern, accent, heart, period))


def softened(field: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of a field[h, w] in [0, 1]."""
    image = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
    if radius < 3:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    else:  # so soft that half the resolution shows the same
        half = image.reduce(2).filter(ImageFilter.GaussianBlur(radius / 2))
        image = half.resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32) / 255
