"""The photograph of one product: a place to photograph it in, and the product's shape painted there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gcl.data.demo.paint import Canvas, Pose, photograph, place
from gcl.data.demo.products import PICTURE, Product, stream
from gcl.data.demo.shapes.indoors import (
    draw_bottle,
    draw_chair,
    draw_clock,
    draw_headphones,
    draw_lamp,
    draw_mug,
    draw_plant_pot,
    draw_sofa,
    draw_teapot,
)
from gcl.data.demo.shapes.worn import (
    draw_backpack,
    draw_boots,
    draw_cap,
    draw_dress,
    draw_handbag,
    draw_hoodie,
    draw_sneakers,
    draw_t_shirt,
    draw_trousers,
    draw_umbrella,
)
from gcl.data.demo.surface import Surface, blurred, dress_surface, white_noise

STANDING = ("studio", "table", "room", "floor")
LYING = ("studio", "linen", "planks", "concrete")
SIZE = 288
VARIANTS = 4


def _tinted(color: tuple[float, float, float], tone: np.ndarray) -> np.ndarray:
    return np.asarray(color, dtype=np.float32) * tone[..., None].astype(np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Columns x and rows y in [0, 1]."""
    at = ((np.arange(SIZE) + 0.5) / SIZE).astype(np.float32)
    return at[None, :].repeat(SIZE, 0), at[:, None].repeat(SIZE, 1)


def _planks(rng: np.random.Generator, stream: int, count: int) -> np.ndarray:
    """Brightness[SIZE, SIZE] of boards lying side by side, their grain running from left to right."""
    noise = white_noise(stream, (SIZE, SIZE))
    rows = np.arange(SIZE)
    board = (rows * count // SIZE)[:, None].repeat(SIZE, 1)
    streak = blurred(noise, 40, 0.6)
    rings = np.sin((rows[:, None] + 14 * blurred(noise[::-1], 70, 10)) * 2 * np.pi / 13)
    tone = 1 + 0.055 * streak + 0.05 * rings
    tone = np.roll(tone, 57, 1) * (1 + rng.uniform(-0.09, 0.09, count)[board])
    gap = (rows * count % SIZE) < count * 2.2
    tone[gap] *= 0.62
    return tone


def _studio(rng: np.random.Generator, variant: int) -> np.ndarray:
    paper = [(0.9, 0.9, 0.91), (0.88, 0.84, 0.78), (0.78, 0.83, 0.87), (0.9, 0.82, 0.8)][variant]
    x, y = _grid()
    spot = np.exp(-(((x - rng.uniform(0.35, 0.65)) / 0.6) ** 2 + ((y - 0.4) / 0.55) ** 2))
    sweep = 1 / (1 + np.exp(-(y - 0.7) / 0.045))
    return _tinted(paper, 0.8 + 0.24 * spot + 0.06 * sweep)


def _lights(rng: np.random.Generator, warm: bool) -> np.ndarray:
    """A room far out of focus: furniture as blurred blocks, lamps and window as discs of light."""
    wall = (118, 98, 82) if warm else (104, 116, 124)
    image = Image.new("RGB", (SIZE, SIZE), wall)
    pen = ImageDraw.Draw(image)
    for _ in range(11):
        x, y, w, h = rng.uniform(-30, SIZE), rng.uniform(0, SIZE * 0.7), rng.uniform(20, 90), rng.uniform(30, 120)
        shade = rng.uniform(0.4, 1.6) * np.array(wall) * rng.uniform(0.85, 1.15, 3)
        pen.rectangle((x, y, x + w, y + h), fill=tuple(int(c) for c in np.clip(shade, 0, 235)))
    base = np.asarray(image.filter(ImageFilter.GaussianBlur(13)), dtype=np.float32) / 255
    spots = Image.new("RGB", (SIZE, SIZE))
    pen = ImageDraw.Draw(spots)
    for _ in range(13):
        x, y, r = rng.uniform(0, SIZE), rng.uniform(0, SIZE * 0.62), rng.uniform(7, 19)
        glow = np.array((255, 214, 150) if rng.random() < 0.7 else (190, 215, 255)) * rng.uniform(0.25, 0.6)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(c) for c in glow))
    return base + np.asarray(spots.filter(ImageFilter.GaussianBlur(1.6)), dtype=np.float32) / 255 * 0.7


def _ground(above: np.ndarray, ground: np.ndarray, at: float, soft: float) -> np.ndarray:
    """`above` as the wall and `ground` as the surface in front of it, its edge at row share `at`."""
    _, y = _grid()
    cover = np.clip((y - at) / soft + 0.5, 0, 1)[..., None]
    near = 0.8 + 0.28 * np.clip((y - at) / (1 - at), 0, 1)[..., None]
    edge = 1 - 0.22 * np.exp(-(((y - at) / 0.03) ** 2))[..., None]
    return (above * (1 - cover) + ground * near * cover) * edge


def _table(rng: np.random.Generator, variant: int) -> np.ndarray:
    wood = [(0.66, 0.47, 0.31), (0.47, 0.32, 0.22), (0.8, 0.66, 0.48), (0.58, 0.45, 0.35)][variant]
    wall = [(0.83, 0.84, 0.82), (0.72, 0.77, 0.76), (0.66, 0.68, 0.74), (0.87, 0.82, 0.74)][variant]
    x, y = _grid()
    plaster = 0.86 + 0.2 * np.exp(-(((x - rng.uniform(0.1, 0.9)) / 0.5) ** 2)) - 0.1 * y
    plaster += 0.012 * blurred(white_noise(20 + variant, (SIZE, SIZE)), 6, 6)
    return _ground(_tinted(wall, plaster), _tinted(wood, _planks(rng, 30 + variant, 9)), 0.66, 0.012)


def _room(rng: np.random.Generator, variant: int) -> np.ndarray:
    wood = [(0.6, 0.44, 0.3), (0.82, 0.8, 0.77), (0.42, 0.3, 0.22), (0.74, 0.62, 0.47)][variant]
    board = _tinted(wood, _planks(rng, 40 + variant, 2 + variant))
    return _ground(_lights(rng, warm=variant % 2 == 0), board, 0.7, 0.03)


def _floor(rng: np.random.Generator, variant: int) -> np.ndarray:
    wall = [(0.86, 0.86, 0.85), (0.8, 0.74, 0.66), (0.62, 0.68, 0.68), (0.84, 0.78, 0.77)][variant]
    x, y = _grid()
    light = 0.84 + 0.22 * np.clip(1 - np.abs(x - y * 0.4 - rng.uniform(0.1, 0.5)) / 0.35, 0, 1)
    rough = light + 0.02 * blurred(white_noise(50 + variant, (SIZE, SIZE)), 10, 10)
    boards = _tinted((0.68, 0.54, 0.4), _planks(rng, 54, 14)) if variant % 2 else _stone(60 + variant, 0.66)
    above = _tinted(wall, rough)
    skirting = (y > 0.6) & (y < 0.64)
    above[skirting] = above[skirting] * 1.06
    return _ground(above, boards, 0.645, 0.008)


def _stone(stream: int, level: float) -> np.ndarray:
    noise = white_noise(stream, (SIZE, SIZE))
    tone = 1 + 0.05 * blurred(noise, 26, 22) + 0.03 * blurred(noise[::-1], 5, 5) + 0.022 * noise
    tone -= 0.16 * (blurred(noise[:, ::-1], 1.1, 1.1) > 2.7)
    return _tinted((level, level * 0.995, level * 0.98), tone)


def _concrete(rng: np.random.Generator, variant: int) -> np.ndarray:
    x, y = _grid()
    light = 1.08 - 0.22 * np.hypot(x - rng.uniform(0.2, 0.8), y - 0.2)
    return _stone(70 + variant, [0.66, 0.74, 0.56, 0.8][variant]) * light[..., None]


def _linen(rng: np.random.Generator, variant: int) -> np.ndarray:
    cloth = [(0.88, 0.86, 0.82), (0.74, 0.7, 0.64), (0.7, 0.75, 0.8), (0.86, 0.79, 0.77)][variant]
    noise = white_noise(80 + variant, (SIZE, SIZE))
    fold = blurred(noise, 24, 60) + 0.5 * blurred(noise[::-1], 40, 16)
    slope = fold - np.roll(fold, 2, 1)
    thread = blurred(noise, 7, 0.5) + blurred(noise[:, ::-1], 0.5, 7)
    return _tinted(cloth, 0.97 + 1.1 * np.clip(slope, -0.13, 0.13) + 0.022 * thread)


def _boards(rng: np.random.Generator, variant: int) -> np.ndarray:
    wood = [(0.7, 0.54, 0.38), (0.86, 0.84, 0.8), (0.5, 0.37, 0.27), (0.62, 0.58, 0.54)][variant]
    return _tinted(wood, _planks(rng, 90 + variant, 5).T)


SCENES = {
    "studio": _studio,
    "table": _table,
    "room": _room,
    "floor": _floor,
    "linen": _linen,
    "planks": _boards,
    "concrete": _concrete,
}


@cache
def scene(name: str, variant: int) -> Image.Image:
    picture = SCENES[name](np.random.default_rng([104729, sum(map(ord, name)), variant]), variant)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))


def draw_background(names: tuple[str, ...], side: int, rng: np.random.Generator) -> np.ndarray:
    """A crop[side, side, 3] in [0, 1] of one of the named scenes."""
    image = scene(names[int(rng.integers(len(names)))], int(rng.integers(VARIANTS)))
    size = rng.uniform(0.8, 1.0) * SIZE
    x, y = rng.uniform(0, SIZE - size), rng.uniform(0.3, 0.8) * (SIZE - size)
    cut = image.resize((side, side), Image.Resampling.BILINEAR, box=(x, y, x + size, y + size))
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(cut, dtype=np.float32) / 255 * np.float32(rng.uniform(0.92, 1.06))


SHAPES: dict[str, Callable[[Canvas, Surface, str], None]] = {
    "t-shirt": draw_t_shirt,
    "hoodie": draw_hoodie,
    "dress": draw_dress,
    "trousers": draw_trousers,
    "cap": draw_cap,
    "sneakers": draw_sneakers,
    "boots": draw_boots,
    "handbag": draw_handbag,
    "backpack": draw_backpack,
    "umbrella": draw_umbrella,
    "mug": draw_mug,
    "teapot": draw_teapot,
    "bottle": draw_bottle,
    "lamp": draw_lamp,
    "plant pot": draw_plant_pot,
    "clock": draw_clock,
    "chair": draw_chair,
    "sofa": draw_sofa,
    "headphones": draw_headphones,
}


def draw_picture(product: Product, *, seed: int, side: int) -> tuple[Image.Image, np.ndarray]:
    """The photograph, and cover[side, side] in [0, 1]: where in it the product is."""
    rng = stream(seed, PICTURE, product.number)
    kind = product.sort
    background = draw_background(STANDING if kind.standing else LYING, side, rng)
    pose = Pose(
        center=(side * (0.5 + rng.uniform(-0.035, 0.035)), side * (0.51 + rng.uniform(-0.03, 0.03))),
        scale=side * rng.uniform(0.36, 0.44),
        degrees=rng.uniform(-1, 1) * kind.tilt,
        shear=rng.uniform(-0.05, 0.05),
        mirror=kind.may_mirror and bool(rng.random() < 0.5),
    )
    canvas = Canvas(side, pose, rng)
    SHAPES[product.kind](canvas, dress_surface(product.color, product.material, product.pattern, rng), product.size)
    return photograph(place(canvas, background, standing=kind.standing), rng), canvas.cover
