"""The picture of one product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from gcl.data.demo.background import LYING, STANDING, draw_background
from gcl.data.demo.paint import Canvas, Pose, photograph, place
from gcl.data.demo.products import PICTURE, Product, stream
from gcl.data.demo.shapes.clothing import draw_cap, draw_dress, draw_hoodie, draw_t_shirt, draw_trousers
from gcl.data.demo.shapes.kitchen import draw_bottle, draw_mug, draw_plant_pot, draw_teapot
from gcl.data.demo.shapes.living import draw_chair, draw_clock, draw_headphones, draw_lamp, draw_sofa
from gcl.data.demo.shapes.outdoors import draw_backpack, draw_boots, draw_handbag, draw_sneakers, draw_umbrella
from gcl.data.demo.surface import Surface, dress_surface

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
