"""Mug, teapot, bottle, plant pot, which are turned on a wheel; lamp, clock, chair, sofa, headphones."""

from __future__ import annotations

import numpy as np

from gcl.data.demo.paint import (
    FLAT,
    SOFT,
    THIN,
    Canvas,
    Form,
    curve,
    ellipse,
    flipped,
    mirrored,
    polygon,
    rounded,
    smooth,
    stroke,
    turned,
)
from gcl.data.demo.surface import MATERIALS, Surface, plain, shifted_color


def draw_mug(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    high = {"250 ml": -0.5, "350 ml": -0.62, "450 ml": -0.76}.get(size, -0.62)
    bottom, taper = 0.74, rng.uniform(0.0, 0.12)
    r, x = 0.56, -0.14
    enamel = body.material.name == "enamel"
    rim = plain((44, 46, 60), "enamel") if enamel else body.plain()
    middle = (high + bottom) / 2
    handle = curve(
        [
            (x + r - 0.06, high + 0.26),
            (x + r + 0.24, high + 0.2),
            (x + r + 0.36, middle),
            (x + r + 0.2, bottom - 0.26),
            (x + r - 0.08, bottom - 0.28),
        ]
    )
    canvas.part(stroke(handle, 0.14, 0.12), body.plain(), form=Form(0.07, 1.2))
    left = curve([(x - r, high), (x - r + taper * 0.4, middle), (x - r + taper + 0.03, bottom - 0.06)], 6)
    base = ellipse(x, bottom - 0.08, r - taper - 0.03, 0.13, 180, 0)
    right = curve([(x + r - taper - 0.03, bottom - 0.06), (x + r - taper * 0.4, middle), (x + r, high)], 6)
    canvas.part(
        np.concatenate([left, base, right, ellipse(x, high, r, 0.15, 0, 180)]),
        body,
        form=Form(0.05, 0.4, barrel=(x, r * 1.02)),
    )
    canvas.part(ellipse(x, high, r, 0.15), rim, form=THIN)
    canvas.part(ellipse(x, high + 0.012, r - 0.055, 0.12), body.plain().darker(0.62), form=FLAT)
    if rng.random() < 0.6:
        coffee = [(74, 44, 26), (150, 104, 66), (120, 60, 24)][int(rng.integers(3))]
        drink = ellipse(x, high + 0.045, r - 0.085, 0.088)
        canvas.part(drink, plain(coffee, "enamel"), form=FLAT)


def draw_teapot(canvas: Canvas, body: Surface, size: str) -> None:
    round_body = ellipse(-0.02, 0.22, 0.6, 0.52)
    spout = np.concatenate(
        [
            curve([(0.34, 0.42), (0.62, 0.24), (0.72, -0.1), (0.9, -0.26)]),
            curve([(1.0, -0.2), (0.88, 0.0), (0.8, 0.36), (0.4, 0.62)]),
        ]
    )
    handle = curve([(-0.44, -0.08), (-0.78, -0.16), (-0.96, 0.14), (-0.84, 0.46), (-0.5, 0.5)])
    canvas.part(stroke(handle, 0.13, 0.1), body.plain(), form=Form(0.06, 1.3))
    canvas.part(spout, body.plain(), form=Form(0.12, 1.3))
    canvas.part(mirrored([(0, 0.62), (0.3, 0.64), *ellipse(0, 0.74, 0.34, 0.07, 0, 90)]), body.darker(0.85), form=THIN)
    canvas.part(round_body, body, form=Form(0.06, 0.4, ball=(-0.02, 0.22, 0.62, 0.54)), lift=0.3)
    canvas.part(ellipse(-0.02, -0.25, 0.36, 0.085), body.darker(0.6), form=FLAT)
    lid = np.concatenate([ellipse(-0.02, -0.27, 0.33, 0.2, 180, 360), ellipse(-0.02, -0.27, 0.33, 0.07, 0, 180)])
    canvas.part(lid, body.plain(), form=Form(0.14, 1.2), lift=0.3)
    canvas.part(ellipse(-0.02, -0.53, 0.085, 0.085), body.darker(0.9), form=Form(0.08, 1.4))


def draw_bottle(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    r = {"500 ml": 0.25, "750 ml": 0.28, "1 l": 0.31}.get(size, 0.28)
    steel = body.material.grain == "brushed"
    lid = plain((52, 52, 56), "plastic") if rng.random() < 0.6 else plain((196, 198, 202), "steel")
    loop = ellipse(0, -0.86, 0.13, 0.12, 180, 360)
    canvas.part(stroke(loop, 0.045), lid, form=THIN)
    shoulder = curve([(0.13, -0.62), (0.15, -0.54), (r - 0.04, -0.4), (r, -0.24)], 6)
    half = np.concatenate([[(0, -0.64)], shoulder, [(r, 0.84)], curve([(r, 0.86), (r - 0.03, 0.92), (0, 0.95)], 5)])
    made = body if not steel else Surface(body.color, MATERIALS["enamel"], body.pattern)
    canvas.part(mirrored(half), made, form=Form(0.05, 0.5, barrel=(0, r * 1.03)))
    if steel:
        ring = plain((198, 200, 204), "steel")
        for low, high in ((0.82, 0.95), (-0.66, -0.57)):
            width = r if low > 0 else 0.14
            ends = mirrored([(0, low), (width, low), (width - (0.04 if low > 0 else 0), high), (0, high + 0.01)])
            canvas.part(ends, ring, form=Form(0.0, 0.0, barrel=(0, width * 1.05)))
    elif body.material.opacity < 1:
        canvas.part(
            mirrored([(0, -0.1), (r - 0.035, -0.1), (r - 0.035, 0.86), (0, 0.9)]),
            body.darker(0.85),
            form=Form(0.02, 0.4, barrel=(0, r)),
        )
    canvas.part(rounded(-0.17, -0.86, 0.17, -0.62, 0.04), lid, form=Form(0.02, 0.5, barrel=(0, 0.18)), lift=0.3)
    for x in (-0.1, -0.03, 0.04, 0.11):
        canvas.part(polygon((x, -0.84), (x + 0.012, -0.84), (x + 0.012, -0.65), (x, -0.65)), lid.darker(0.7), form=FLAT)


def draw_plant_pot(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    top, r = 0.06, 0.54
    green = Surface(shifted_color((52, 120, 58), rng, 2.5), MATERIALS["leaf"])
    canvas.part(ellipse(0, top, r, 0.12), plain((58, 40, 30), "terracotta"), form=FLAT)
    kind = int(rng.integers(3))
    if kind == 0:
        for at in np.argsort(-np.abs(np.linspace(-1, 1, 9))):
            lean = np.linspace(-1, 1, 9)[at] + rng.uniform(-0.08, 0.08)
            tip = (lean * 0.62, -0.96 + 0.5 * lean**2 + rng.uniform(0, 0.12))
            spine = curve([(lean * 0.28, 0.1), (lean * 0.4, -0.36), tip])
            half = np.concatenate([np.linspace(0.07, 0.085, 9), np.linspace(0.085, 0.0, len(spine) - 9)])[:, None]
            blade = np.concatenate([spine - half * [1, 0], (spine + half * [1, 0])[::-1]])
            canvas.part(blade, green, form=Form(0.07, 1.3), shade=rng.uniform(0.75, 1.1), lift=0.3)
    elif kind == 1:
        for _ in range(24):
            angle, far = rng.uniform(-np.pi, 0), rng.uniform(0.15, 0.6)
            x, y = 1.05 * far * np.cos(angle), -0.26 + 1.05 * far * np.sin(angle) + 0.2 * abs(np.cos(angle))
            canvas.part(stroke(polygon((x * 0.15, 0.08), (x, y)), 0.02), green.darker(0.6), form=FLAT)
            leaf = smooth([(0, -0.17), (0.11, -0.02), (0.06, 0.14), (0, 0.17), (-0.06, 0.14), (-0.11, -0.02)], 4)
            canvas.part(
                turned(leaf, np.degrees(angle) + 90 + rng.uniform(-40, 40)) + np.array([x, y]),
                green,
                form=Form(0.07, 1.2),
                shade=rng.uniform(0.7, 1.15),
                lift=0.35,
            )
    else:
        for x, h, w in ((0.24, -0.42, 0.13), (-0.24, -0.28, 0.12), (0.0, -0.84, 0.19)):
            canvas.part(rounded(x - w, h, x + w, 0.12, w), green, form=Form(0.05, 0.8, barrel=(x, w * 1.05)), lift=0.3)
            for line in np.linspace(-0.7, 0.7, 4):
                canvas.part(
                    stroke(polygon((x + line * w, h + w), (x + line * w, 0.08)), 0.014), green.darker(0.6), form=FLAT
                )
    front = ellipse(0, top, r, 0.12, 180, 0)
    half = np.concatenate(
        [
            ellipse(0, top, r - 0.05, 0.12, 90, 0),
            [(r - 0.05, top + 0.12), (0.37, 0.88)],
            ellipse(0, 0.88, 0.37, 0.08, 0, 90),
        ]
    )
    canvas.part(mirrored(half), body, form=Form(0.04, 0.5, barrel=(0, r)))
    lip = np.concatenate([front, [(r, top + 0.15)], ellipse(0, top + 0.15, r, 0.12, 0, 180), [(-r, top)]])
    canvas.part(lip, body.plain(), form=Form(0.03, 0.5, barrel=(0, r * 1.04)), lift=0.3)
    if canvas.rng.random() < 0.3:
        canvas.part(ellipse(0, 0.9, 0.46, 0.08, 0, 180), body.darker(0.8), form=SOFT)


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
    hours, minutes = rng.uniform(0, 12), rng.uniform(0, 60)
    for turn, reach, thick in ((hours / 12, 0.5, 0.075), (minutes / 60, 0.78, 0.05)):
        out = np.array([np.sin(2 * np.pi * turn), -np.cos(2 * np.pi * turn)])
        canvas.part(stroke(np.stack([-out * 0.1, out * inner * reach]), thick, thick * 0.6), ink, form=FLAT, lift=0.35)
    out = np.array([np.sin(hours), -np.cos(hours)])
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
