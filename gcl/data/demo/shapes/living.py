"""Lamp, clock, chair, sofa, headphones."""

from __future__ import annotations

import numpy as np

from gcl.data.demo.outline import curve, ellipse, flipped, mirrored, polygon, rounded, smooth, stroke
from gcl.data.demo.paint import FLAT, SOFT, THIN, Canvas, Form
from gcl.data.demo.surface import MATERIALS, Surface, plain

FOOT = {
    "ceramic": (228, 224, 214),
    "wood": (166, 116, 70),
    "steel": (176, 178, 182),
}


def draw_lamp(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    material = body.material.name
    foot = plain(FOOT.get(material, (176, 178, 182)), material)
    shade = Surface(body.color, MATERIALS["cotton"], body.pattern)
    if material == "ceramic":
        canvas.part(
            smooth(mirrored([(0, 0.0), (0.1, 0.02), (0.1, 0.2), (0.3, 0.5), (0.26, 0.84), (0, 0.86)]), 5),
            foot,
            form=Form(0.05, 0.4, ball=(0, 0.52, 0.34, 0.42)),
        )
        canvas.part(mirrored([(0, 0.82), (0.2, 0.82), (0.22, 0.9), (0, 0.92)]), foot.darker(0.85), form=THIN)
    elif material == "wood" and rng.random() < 0.5:
        for line in ([(-0.02, 0.0), (-0.34, 0.92)], [(0.02, 0.0), (0.34, 0.92)], [(0, 0.0), (0.02, 0.9)]):
            canvas.part(stroke(polygon(*line), 0.075), foot, form=THIN, lift=0.2)
    else:
        canvas.part(rounded(-0.04, -0.1, 0.04, 0.86, 0.02), foot, form=Form(0.02, 0.5, barrel=(0, 0.045)))
        canvas.part(
            np.concatenate([ellipse(0, 0.84, 0.36, 0.09, 180, 360), ellipse(0, 0.88, 0.36, 0.09, 0, 180)]),
            foot,
            form=Form(0.08, 1.0),
        )
    top, bottom = rng.uniform(0.26, 0.46), rng.uniform(0.58, 0.68)
    low, high = 0.1, -0.84
    canvas.part(ellipse(0, high, top, 0.07), shade.plain().darker(0.7), form=FLAT)
    outline = np.concatenate([ellipse(0, high, top, 0.07, 180, 0), ellipse(0, low, bottom, 0.11, 0, 180)])
    canvas.part(outline, shade, form=Form(0.04, 0.3, barrel=(0, bottom * 1.3)), lift=0.4, shade=1.06)
    for y, r, thick in ((high, top, 0.025), (low, bottom, 0.03)):
        canvas.part(stroke(ellipse(0, y, r, 0.07 if y < 0 else 0.11, 0, 180), thick), shade.darker(0.8), form=FLAT)
    lit = 0.9 if rng.random() < 0.55 else 0.15
    canvas.shine(ellipse(0, -0.3, 0.42, 0.34), lit)


def draw_clock(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    r = 0.88
    frames = {"wood": (150, 104, 62), "steel": (190, 192, 196), "plastic": (46, 46, 50)}
    material = body.material.name
    colored_face = rng.random() < 0.5
    if colored_face:
        frame = plain(frames.get(material, (46, 46, 50)), material)
        face = Surface(body.color, MATERIALS["plastic"])
    else:
        frame, face = body, plain((244, 242, 236), "plastic")
    width = 0.1 if colored_face else 0.24
    ink = plain((246, 244, 238) if face.color.mean() < 0.55 else (34, 34, 38), "plastic")
    canvas.part(ellipse(0, 0, r, r), frame, form=Form(0.14, 1.2))
    canvas.part(ellipse(0, 0, r - width, r - width), frame.darker(0.55), form=FLAT)
    inner = r - width - 0.025
    canvas.part(ellipse(0, 0.01, inner, inner), face, form=FLAT)
    for hour in range(12):
        angle = np.radians(30 * hour)
        out = np.array([np.sin(angle), -np.cos(angle)])
        long = 0.17 if hour % 3 == 0 else 0.09
        canvas.part(
            stroke(np.stack([out * (inner - 0.07), out * (inner - 0.07 - long)]), 0.055 if hour % 3 == 0 else 0.035),
            ink,
            form=FLAT,
        )
    hour, minute = rng.uniform(0, 12), rng.uniform(0, 60)
    for turn, reach, thick in ((hour / 12, 0.5, 0.075), (minute / 60, 0.78, 0.05)):
        out = np.array([np.sin(2 * np.pi * turn), -np.cos(2 * np.pi * turn)])
        canvas.part(stroke(np.stack([-out * 0.1, out * inner * reach]), thick, thick * 0.6), ink, form=FLAT, lift=0.35)
    out = np.array([np.sin(hour), -np.cos(hour)])
    canvas.part(stroke(np.stack([-out * 0.14, out * inner * 0.8]), 0.02), plain((206, 50, 44), "plastic"), form=FLAT)
    canvas.part(ellipse(0, 0, 0.05, 0.05), ink, form=THIN)


def draw_chair(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    wooden = body.material.grain == "wood"
    legs = body if wooden else plain((158, 110, 66), "wood")
    low = 0.98
    for line in ([(-0.34, 0.2), (-0.4, low - 0.12)], [(0.34, 0.2), (0.4, low - 0.12)]):
        canvas.part(stroke(polygon(*line), 0.075, 0.06), legs, form=THIN, shade=0.72)
    style = int(rng.integers(2)) if wooden else 2
    if style < 2:
        for x in (-0.4, 0.4):
            canvas.part(stroke(polygon((x, -0.94), (x * 0.96, 0.2)), 0.085), body, form=THIN)
        rails = [(-0.9, 0.13)] if style == 0 else [(-0.9, 0.11), (-0.62, 0.09), (-0.34, 0.09)]
        for y, thick in rails:
            canvas.part(stroke(curve([(-0.4, y), (0, y - 0.05), (0.4, y)]), thick), body, form=THIN, lift=0.2)
        if style == 0:
            for x in np.linspace(-0.25, 0.25, 4):
                canvas.part(stroke(polygon((x, -0.86), (x * 0.96, 0.16)), 0.05), body, form=THIN, shade=0.92)
    else:
        back = smooth(mirrored([(0, -0.96), (0.34, -0.92), (0.46, -0.66), (0.42, -0.1), (0.4, 0.2), (0, 0.22)]), 5)
        canvas.part(back, body, form=Form(0.16, 1.0))
        if body.material.grain == "nap":
            for x in (-0.2, 0.0, 0.2):
                canvas.part(stroke(polygon((x * 0.9, -0.84), (x, 0.1)), 0.025), body.darker(0.72), form=FLAT)
    seat = polygon((-0.41, 0.13), (0.41, 0.13), (0.53, 0.4), (0.5, 0.45), (-0.5, 0.45), (-0.53, 0.4))
    for line in ([(-0.44, 0.4), (-0.5, low)], [(0.44, 0.4), (0.5, low)]):
        canvas.part(stroke(polygon(*line), 0.09, 0.065), legs, form=THIN)
    if wooden:
        canvas.part(stroke(polygon((-0.46, 0.7), (0.46, 0.7)), 0.05), legs, form=THIN, shade=0.9)
    canvas.part(seat, body, form=Form(0.07, 0.9), lift=0.5)
    canvas.part(stroke(curve([(-0.5, 0.45), (0, 0.46), (0.5, 0.45)]), 0.05), body.darker(0.72), form=THIN)


def draw_sofa(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    seats = {"1-seater": 1, "2-seater": 2, "3-seater": 3}.get(size, 2)
    wide = {1: 0.6, 2: 0.84, 3: 1.04}[seats]
    arm = 0.2
    wood = plain((118, 78, 48), "wood")
    for x in (-wide + 0.1, wide - 0.1):
        canvas.part(polygon((x - 0.05, 0.5), (x + 0.05, 0.5), (x + 0.03, 0.68), (x - 0.03, 0.68)), wood, form=THIN)
    canvas.part(rounded(-wide + 0.06, -0.52, wide - 0.06, 0.3, 0.14), body, form=Form(0.16, 1.0), shade=0.9)
    canvas.part(rounded(-wide + 0.05, 0.2, wide - 0.05, 0.56, 0.05), body, form=SOFT, shade=0.82)
    inner = wide - arm
    each = 2 * inner / seats
    for at in range(seats):
        x = -inner + at * each
        canvas.part(rounded(x + 0.008, -0.42, x + each - 0.008, 0.12, 0.1), body, form=Form(0.16, 1.4), lift=0.3)
    for at in range(seats):
        x = -inner + at * each
        canvas.part(
            rounded(x + 0.006, 0.04, x + each - 0.006, 0.32, 0.07), body, form=Form(0.1, 1.3), lift=0.5, shade=1.06
        )
    arms = rounded(wide - arm - 0.02, -0.18, wide + 0.04, 0.56, 0.12)
    for side in (arms, flipped(arms)):
        canvas.part(side, body, form=Form(0.14, 1.3), lift=0.4)
    if rng.random() < 0.5:
        tone = plain((236, 226, 204) if body.color.mean() < 0.6 else (70, 84, 104), "linen")
        x = rng.choice([-1, 1]) * (inner - 0.24)
        cushion = smooth(
            [(x - 0.2, -0.26), (x, -0.24), (x + 0.2, -0.27), (x + 0.19, 0.1), (x, 0.09), (x - 0.2, 0.11)], 4
        )
        canvas.part(cushion, tone, form=SOFT, lift=0.5)


def draw_headphones(canvas: Canvas, body: Surface, size: str) -> None:
    pad = plain((40, 40, 44), "leather") if body.color.mean() > 0.3 else plain((96, 94, 92), "leather")
    metal = plain((190, 192, 196), "steel")
    arc = ellipse(0, 0.0, 0.7, 0.8, 186, 354)
    canvas.part(stroke(arc, 0.15), body, form=Form(0.07, 1.2))
    canvas.part(stroke(ellipse(0, 0.02, 0.63, 0.72, 215, 325), 0.09), pad, form=THIN)
    for side in (-1, 1):
        canvas.part(stroke(polygon((0.7 * side, -0.14), (0.72 * side, 0.2)), 0.075), metal, form=THIN)
        cushion = smooth(
            [
                (0.36 * side, 0.12),
                (0.5 * side, 0.02),
                (0.6 * side, 0.12),
                (0.6 * side, 0.78),
                (0.5 * side, 0.88),
                (0.36 * side, 0.78),
            ],
            5,
        )
        cup = smooth(
            [
                (0.54 * side, 0.08),
                (0.74 * side, 0.04),
                (0.9 * side, 0.22),
                (0.94 * side, 0.45),
                (0.9 * side, 0.68),
                (0.74 * side, 0.86),
                (0.54 * side, 0.82),
            ],
            5,
        )
        canvas.part(cushion, pad, form=Form(0.1, 1.2))
        canvas.part(cup, body, form=Form(0.2, 1.3), lift=0.4)
        canvas.part(
            stroke(curve([(0.8 * side, 0.24), (0.84 * side, 0.45), (0.8 * side, 0.66)]), 0.035), metal, form=THIN
        )
