"""Mug, teapot, bottle, plant pot: things turned on a wheel."""

from __future__ import annotations

import numpy as np

from gcl.data.demo.outline import curve, ellipse, mirrored, polygon, rounded, smooth, stroke, turned
from gcl.data.demo.paint import FLAT, SOFT, THIN, Canvas, Form
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
                turned(leaf, np.degrees(angle) + 90 + rng.uniform(-40, 40)) + [x, y],
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
