"""T-shirt, hoodie, dress, trousers, cap: laid flat or hung on a wall."""

from __future__ import annotations

import numpy as np

from gcl.data.demo.outline import curve, ellipse, flipped, mirrored, polygon, smooth, stroke
from gcl.data.demo.paint import FLAT, THIN, Canvas, Form
from gcl.data.demo.surface import Surface, plain

CLOTH = Form(bevel=0.14, relief=0.7)


def _sides(points: np.ndarray) -> list[np.ndarray]:
    return [points, flipped(points)]


def draw_t_shirt(canvas: Canvas, body: Surface, size: str) -> None:
    length = {"XS": 0.76, "S": 0.8, "M": 0.84, "L": 0.88, "XL": 0.92, "XXL": 0.95}.get(size, 0.84)
    flare = canvas.rng.uniform(0.0, 0.08)
    sleeve = smooth(
        [(0.5, -0.76), (0.66, -0.68), (1.0, -0.24), (0.98, -0.16), (0.73, 0.0), (0.66, -0.03), (0.48, -0.3)], 5
    )
    seam = curve([(0.53, -0.72), (0.52, -0.5), (0.56, -0.16)])
    canvas.part(ellipse(0, -0.76, 0.29, 0.13), body.darker(0.5), form=FLAT)
    for turn, side in zip((38, -38), _sides(sleeve), strict=True):
        canvas.part(side, body.turned(turn), form=CLOTH, shade=0.93)
    neck = ellipse(0, -0.78, 0.27, 0.22, 90, 0)
    torso = [(0.3, -0.83), (0.54, -0.74), (0.58, -0.3), (0.56, 0.2), (0.58 + flare, length), (0.3, length + 0.03)]
    half = np.concatenate([neck, curve(torso, 5), [(0.0, length + 0.035)]])
    canvas.part(mirrored(half), body, form=CLOTH, lift=0.12)
    for line in (seam, flipped(seam)):
        canvas.part(stroke(line, 0.018), body.darker(0.62), form=FLAT)
    collar = ellipse(0, -0.79, 0.29, 0.24, 0, 180)
    canvas.part(stroke(collar, 0.075), body.darker(0.9), form=THIN, lift=0.3)
    hem = curve([(-0.56 - flare, length - 0.075), (0, length - 0.04), (0.56 + flare, length - 0.075)])
    canvas.part(stroke(hem, 0.014), body.darker(0.68), form=FLAT)
    for cuff in _sides(polygon((0.93, -0.2), (0.68, -0.045))):
        canvas.part(stroke(cuff, 0.014), body.darker(0.68), form=FLAT)


def draw_hoodie(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    spread = rng.uniform(-0.06, 0.06)
    rib = body.darker(0.8)
    arm = smooth(
        [
            (0.46, -0.55),
            (0.62, -0.42),
            (0.8, 0.1),
            (0.93 + spread, 0.62),
            (0.74 + spread, 0.68),
            (0.6, 0.3),
            (0.45, 0.0),
        ],
        5,
    )
    cuff = polygon((0.95 + spread, 0.6), (0.97 + spread, 0.78), (0.78 + spread, 0.82), (0.72 + spread, 0.66))
    for turn, side, end in zip((14, -14), _sides(arm), _sides(cuff), strict=True):
        canvas.part(end, rib, form=THIN)
        canvas.part(side, body.turned(turn), form=CLOTH, shade=0.94)
    canvas.part(
        mirrored([(0, -0.92), (0.24, -0.86), (0.38, -0.66), (0.36, -0.4), (0, -0.34)]), body.darker(0.9), form=CLOTH
    )
    half = [(0.0, -0.42), (0.22, -0.5), (0.36, -0.66), (0.52, -0.54), (0.56, -0.2), (0.55, 0.3), (0.57, 0.8), (0, 0.82)]
    canvas.part(mirrored(half), body, form=CLOTH, lift=0.4)
    canvas.part(mirrored([(0, 0.77), (0.56, 0.76), (0.54, 0.93), (0, 0.94)]), rib, form=THIN, lift=0.2)
    hood = smooth(mirrored([(0, -0.95), (0.25, -0.9), (0.41, -0.66), (0.33, -0.46), (0.12, -0.34), (0, -0.32)]), 5)
    inside = smooth(mirrored([(0, -0.84), (0.18, -0.8), (0.27, -0.64), (0.2, -0.5), (0, -0.42)]), 5)
    canvas.part(hood, body, form=CLOTH, lift=0.35)
    canvas.part(inside, body.darker(0.42), form=THIN)
    pocket = mirrored([(0, 0.27), (0.25, 0.27), (0.4, 0.52), (0.4, 0.71), (0, 0.72)])
    canvas.part(pocket, body, form=Form(0.05, 1.1), lift=0.4)
    for line in _sides(polygon((0.25, 0.28), (0.4, 0.52))):
        canvas.part(stroke(line, 0.03), body.darker(0.6), form=FLAT)
    cord = plain((232, 230, 224) if body.color.mean() < 0.7 else (60, 60, 66), "cotton")
    for side, drop in ((1, rng.uniform(-0.1, 0.1)), (-1, rng.uniform(-0.1, 0.1))):
        string = curve([(0.1 * side, -0.4), (0.13 * side, -0.2), (0.1 * side, 0.03 + drop)])
        canvas.part(stroke(string, 0.035), cord, form=THIN, lift=0.4)


def draw_dress(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    flare, length = rng.uniform(0.52, 0.74), rng.uniform(0.86, 0.98)
    straps = rng.random() < 0.5
    canvas.part(mirrored([(0, -0.78), (0.2, -0.8), (0.2, -0.66), (0, -0.6)]), body.darker(0.5), form=FLAT)
    if straps:
        for strap in _sides(curve([(0.19, -0.62), (0.18, -0.8), (0.13, -0.98)])):
            canvas.part(stroke(strap, 0.055), body.darker(0.92), form=THIN)
        top = [(0, -0.56), (0.1, -0.62), (0.2, -0.7), (0.25, -0.62), (0.3, -0.5)]
    else:
        sleeve = smooth([(0.24, -0.9), (0.4, -0.84), (0.56, -0.52), (0.4, -0.42), (0.28, -0.56)], 5)
        for turn, side in zip((32, -32), _sides(sleeve), strict=True):
            canvas.part(side, body.turned(turn), form=CLOTH, shade=0.92)
        top = [(0, -0.62), (0.1, -0.7), (0.16, -0.92), (0.28, -0.88), (0.3, -0.5)]
    skirt = mirrored(
        [
            (0, -0.12),
            (0.21, -0.13),
            *curve([(0.23, -0.1), (0.4, 0.3), (flare, length)], 6),
            (0.3, length + 0.04),
            (0, length + 0.05),
        ]
    )
    canvas.part(skirt, body, form=CLOTH)
    for x in np.linspace(-0.75, 0.75, 6) + rng.uniform(-0.06, 0.06, 6):
        fold = curve([(x * 0.22, 0.02), (x * 0.5, 0.42), (x * flare, length)])
        canvas.part(stroke(fold, 0.012, 0.075), body, form=Form(0.06, 1.2), shade=0.86)
    canvas.part(mirrored([*top, (0.24, -0.3), (0.22, -0.1), (0, -0.09)]), body, form=CLOTH, lift=0.2)
    belt = body.darker(0.62) if body.color.mean() > 0.25 else plain((150, 120, 84), "leather")
    canvas.part(mirrored([(0, -0.17), (0.235, -0.18), (0.235, -0.08), (0, -0.07)]), belt, form=THIN, lift=0.2)


def draw_trousers(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    apart, hem = rng.uniform(0.0, 0.08), rng.uniform(0.17, 0.25)
    stitch = plain((206, 152, 84), "cotton") if body.material.grain == "twill" else body.darker(0.6)
    x = 0.3 + apart
    leg = [
        (0.0, -0.9),
        (0.4, -0.9),
        (0.48, -0.5),
        (0.47, 0.1),
        (x + hem, 0.94),
        (x - hem + 0.05, 0.95),
        (0.1, 0.1),
        (0.0, -0.34),
    ]
    canvas.part(ellipse(0, -0.9, 0.38, 0.06), body.darker(0.45), form=FLAT)
    canvas.part(flipped(np.array(leg)), body, form=CLOTH)
    canvas.part(np.array(leg), body, form=CLOTH, lift=0.3)
    for crease in _sides(curve([(0.25, -0.3), (0.3, 0.2), (x + 0.02, 0.93)])):
        canvas.part(stroke(crease, 0.022), body, form=THIN, shade=0.82)
    for edge in _sides(polygon((x + hem - 0.01, 0.88), (x - hem + 0.05, 0.89))):
        canvas.part(stroke(edge, 0.014), stitch, form=FLAT)
    band = mirrored([(0, -0.87), (0.2, -0.88), (0.405, -0.93), (0.42, -0.8), (0.2, -0.76), (0, -0.75)])
    canvas.part(band, body.darker(0.93), form=THIN, lift=0.3)
    for at in (-0.27, 0.27):
        canvas.part(
            polygon((at - 0.025, -0.93), (at + 0.025, -0.93), (at + 0.025, -0.74), (at - 0.025, -0.74)),
            body.darker(0.8),
            form=THIN,
        )
    canvas.part(ellipse(0.0, -0.81, 0.035, 0.035), plain((190, 180, 160), "steel"), form=THIN)
    canvas.part(stroke(curve([(0.11, -0.75), (0.12, -0.5), (0.0, -0.36)]), 0.016), stitch, form=FLAT)
    for pocket in _sides(curve([(0.24, -0.76), (0.3, -0.6), (0.46, -0.54)])):
        canvas.part(stroke(pocket, 0.022), stitch, form=FLAT)


def draw_cap(canvas: Canvas, body: Surface, size: str) -> None:
    brim = smooth([(-0.2, 0.24), (0.3, 0.14), (0.72, 0.22), (1.0, 0.42), (0.86, 0.56), (0.4, 0.5), (-0.1, 0.46)], 6)
    crown = np.concatenate(
        [
            curve(
                [
                    (-0.72, 0.42),
                    (-0.74, 0.02),
                    (-0.52, -0.42),
                    (-0.08, -0.58),
                    (0.32, -0.42),
                    (0.52, -0.02),
                    (0.56, 0.26),
                ]
            ),
            curve([(0.2, 0.34), (-0.3, 0.44), (-0.72, 0.42)]),
        ]
    )
    canvas.part(crown, body, form=Form(ball=(-0.1, 0.05, 0.72, 0.72), bevel=0.12, relief=0.5))
    for seam in ([(-0.08, -0.57), (-0.3, -0.1), (-0.26, 0.43)], [(-0.08, -0.57), (0.18, -0.2), (0.26, 0.34)]):
        canvas.part(stroke(curve(seam), 0.02), body.darker(0.72), form=FLAT)
    for x, y in ((-0.42, -0.2), (0.0, -0.22), (0.34, -0.14)):
        canvas.part(ellipse(x, y, 0.03, 0.03), body.darker(0.5), form=FLAT)
    canvas.part(ellipse(-0.08, -0.59, 0.07, 0.035), body.darker(0.85), form=THIN)
    canvas.part(brim, body.darker(0.88) if body.pattern else body, form=Form(0.12, 1.2), lift=0.5)
    for inset in (0.06, 0.12):
        line = curve(
            [
                (-0.05, 0.43 - inset * 0.6),
                (0.4, 0.48 - inset),
                (0.84 - inset, 0.53 - inset),
                (0.95 - inset, 0.43 - inset * 0.4),
            ]
        )
        canvas.part(stroke(line, 0.012), body.darker(0.66), form=FLAT)
