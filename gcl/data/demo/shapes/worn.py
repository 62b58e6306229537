"""What people wear and carry: T-shirt, hoodie, dress, trousers, cap; sneakers, boots, handbag, backpack, umbrella."""

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
    moved,
    polygon,
    rounded,
    smooth,
    stroke,
)
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
    for hand, drop in ((1, rng.uniform(-0.1, 0.1)), (-1, rng.uniform(-0.1, 0.1))):
        string = curve([(0.1 * hand, -0.4), (0.13 * hand, -0.2), (0.1 * hand, 0.03 + drop)])
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


PUFFED = Form(bevel=0.2, relief=1.1)


def _sneaker(
    canvas: Canvas, body: Surface, sole: Surface, band: Surface, at: tuple[float, float], shade: float
) -> None:
    def put(points: np.ndarray, surface: Surface, **options) -> None:
        canvas.part(moved(points, *at), surface, shade=shade, **options)

    upper = curve(
        [(-0.86, 0.36), (-0.85, 0.05), (-0.88, -0.28), (-0.82, -0.36), (-0.7, -0.26), (-0.5, -0.14), (-0.3, -0.2)], 5
    )
    front = curve(
        [(-0.14, -0.36), (-0.02, -0.34), (0.18, -0.14), (0.44, 0.02), (0.76, 0.1), (0.9, 0.26), (0.9, 0.38)], 5
    )
    tongue = smooth([(-0.34, -0.16), (-0.24, -0.44), (-0.14, -0.5), (-0.02, -0.42), (0.1, -0.2), (-0.1, -0.1)], 5)
    put(
        smooth([(-0.86, -0.3), (-0.66, -0.36), (-0.3, -0.3), (-0.26, -0.1), (-0.6, -0.04)], 5),
        body.darker(0.35),
        form=FLAT,
    )
    put(tongue, body.darker(0.82), form=THIN)
    put(np.concatenate([upper, front]), body, form=PUFFED)
    put(
        smooth([(0.5, 0.05), (0.76, 0.12), (0.91, 0.28), (0.9, 0.4), (0.52, 0.4), (0.44, 0.24)], 5),
        sole,
        form=SOFT,
        lift=0.2,
    )
    put(
        smooth([(-0.86, 0.0), (-0.87, -0.26), (-0.8, -0.3), (-0.72, -0.06), (-0.68, 0.36), (-0.86, 0.36)], 5),
        body.darker(0.7),
        form=THIN,
        lift=0.2,
    )
    swoop = np.concatenate(
        [curve([(-0.56, 0.3), (-0.2, 0.22), (0.12, 0.02)]), curve([(0.26, 0.06), (0.02, 0.28), (-0.44, 0.38)])]
    )
    put(swoop, band, form=THIN, lift=0.25)
    for step in np.linspace(0, 1, 4):
        x, y = -0.08 + 0.4 * step, -0.24 + 0.24 * step
        put(
            stroke(polygon((x - 0.1, y + 0.07), (x + 0.07, y - 0.06)), 0.042),
            plain((242, 242, 238), "cotton"),
            form=THIN,
            lift=0.4,
        )
    ground = smooth(
        [
            (-0.9, 0.32),
            (-0.4, 0.36),
            (0.3, 0.36),
            (0.88, 0.3),
            (0.95, 0.4),
            (0.9, 0.52),
            (0.4, 0.54),
            (-0.4, 0.54),
            (-0.88, 0.53),
            (-0.94, 0.42),
        ],
        5,
    )
    put(ground, sole, form=SOFT, lift=0.3)
    put(stroke(curve([(-0.88, 0.43), (0, 0.45), (0.92, 0.42)]), 0.022), band, form=FLAT)


def draw_sneakers(canvas: Canvas, body: Surface, size: str) -> None:
    light = body.color.mean() > 0.75
    sole = plain((206, 172, 122) if light else (240, 239, 234), "rubber")
    band = body.darker(0.55) if light else plain((240, 238, 232), "leather")
    if canvas.rng.random() < 0.6:
        _sneaker(canvas, body, sole, band, (0.08, -0.2), 0.8)
        _sneaker(canvas, body, sole, band, (-0.05, 0.18), 1.0)
    else:
        _sneaker(canvas, body, sole, band, (0.0, 0.1), 1.0)


def _boot(canvas: Canvas, body: Surface, rubber: bool, x: float, shade: float) -> None:
    def put(points: np.ndarray, surface: Surface, **options) -> None:
        canvas.part(moved(points, x, 0.0), surface, shade=shade, **options)

    sole = plain((52, 44, 40), "rubber")
    put(polygon((-0.46, 0.82), (-0.1, 0.82), (-0.12, 0.96), (-0.46, 0.96)), sole, form=THIN)
    put(ellipse(-0.2, -0.88, 0.25, 0.07), body.darker(0.35), form=FLAT)
    back = curve([(-0.46, 0.8), (-0.5, 0.5), (-0.44, 0.1), (-0.46, -0.4), (-0.46, -0.88)], 5)
    front = curve([(0.06, -0.88), (0.05, -0.4), (0.08, 0.1), (0.3, 0.36), (0.56, 0.46), (0.7, 0.66), (0.68, 0.82)], 5)
    put(np.concatenate([back, front]), body, form=PUFFED)
    ground = smooth([(-0.5, 0.78), (0.1, 0.82), (0.7, 0.76), (0.75, 0.86), (0.6, 0.92), (-0.1, 0.9), (-0.48, 0.9)], 5)
    put(ground, sole, form=THIN, lift=0.3)
    if rubber:
        put(stroke(curve([(-0.46, -0.8), (-0.2, -0.77), (0.06, -0.8)]), 0.09), body.darker(0.72), form=THIN)
        put(polygon((-0.08, -0.6), (0.05, -0.6), (0.05, -0.44), (-0.08, -0.44)), body.darker(0.72), form=THIN)
        return
    put(stroke(curve([(0.3, 0.46), (0.36, 0.62), (0.3, 0.8)]), 0.02), body.darker(0.6), form=FLAT)
    put(stroke(curve([(-0.47, 0.4), (-0.3, 0.44), (-0.2, 0.6), (-0.2, 0.8)]), 0.02), body.darker(0.6), form=FLAT)
    put(stroke(curve([(-0.46, -0.84), (-0.2, -0.8), (0.06, -0.84)]), 0.1), body.darker(0.78), form=THIN, lift=0.2)
    put(
        polygon((-0.1, -0.7), (0.06, -0.7), (0.1, 0.1), (0.3, 0.34), (0.16, 0.4), (-0.04, 0.14)),
        body.darker(0.74),
        form=THIN,
    )
    for y in np.linspace(-0.6, 0.2, 6):
        lean = 0.12 if y > 0.1 else 0.0
        put(
            stroke(polygon((-0.13 + lean, y + 0.05), (0.08 + lean, y - 0.03)), 0.045),
            plain((226, 208, 168), "cotton"),
            form=THIN,
            lift=0.4,
        )


def draw_boots(canvas: Canvas, body: Surface, size: str) -> None:
    rubber = body.material.name == "rubber"
    _boot(canvas, body, rubber, 0.26, 0.8)
    _boot(canvas, body, rubber, -0.3, 1.0)


def draw_handbag(canvas: Canvas, body: Surface, size: str) -> None:
    rng = canvas.rng
    metal = plain((214, 180, 98) if rng.random() < 0.7 else (200, 202, 206), "steel")
    wide = {"small": 0.66, "medium": 0.76, "large": 0.86}.get(size, 0.76)
    high = rng.uniform(-0.98, -0.82)
    strap = body.darker(0.78)
    for offset, shade in ((-0.06, 0.7), (0.0, 1.0)):
        handle = curve(
            [
                (-0.44, -0.06),
                (-0.42, high * 0.7 + offset),
                (0, high + offset),
                (0.42, high * 0.7 + offset),
                (0.44, -0.06),
            ]
        )
        canvas.part(stroke(handle, 0.085), strap, form=THIN, shade=shade)
        if not offset:
            continue
        canvas.part(
            smooth(mirrored([(0, -0.17), (wide - 0.22, -0.19), (wide - 0.12, -0.06), (0, 0.1)]), 5),
            body.darker(0.4),
            form=FLAT,
        )
        half = [
            (0, -0.12),
            (wide - 0.2, -0.14),
            (wide - 0.08, -0.1),
            (wide, 0.6),
            (wide - 0.04, 0.8),
            (wide - 0.2, 0.86),
            (0, 0.87),
        ]
        canvas.part(smooth(mirrored(half), 4), body, form=Form(0.26, 1.0))
    if rng.random() < 0.6:
        flap = [(0, -0.15), (wide - 0.2, -0.17), (wide - 0.07, -0.12), (wide - 0.1, 0.16), (0.3, 0.34), (0, 0.38)]
        canvas.part(smooth(mirrored(flap), 4), body.darker(0.92) if body.pattern else body, form=THIN, lift=0.5)
        canvas.part(rounded(-0.1, 0.26, 0.1, 0.46, 0.04), metal, form=THIN, lift=0.5)
        canvas.part(rounded(-0.035, 0.32, 0.035, 0.4, 0.02), metal.darker(0.5), form=FLAT)
    else:
        canvas.part(stroke(curve([(-wide + 0.14, -0.05), (0, -0.02), (wide - 0.14, -0.05)]), 0.035), metal, form=THIN)
        canvas.part(polygon((0.3, -0.02), (0.37, -0.02), (0.4, 0.2), (0.28, 0.2)), strap, form=THIN, lift=0.4)
    for x in (-0.44, 0.44):
        canvas.part(rounded(x - 0.06, -0.12, x + 0.06, 0.1, 0.03), strap, form=THIN, lift=0.4)
        canvas.part(ellipse(x, -0.1, 0.055, 0.055), metal, form=THIN, holes=[ellipse(x, -0.1, 0.03, 0.03)])
    base = curve([(-wide + 0.02, 0.74), (0, 0.78), (wide - 0.02, 0.74)])
    canvas.part(stroke(base, 0.02), body.darker(0.65), form=FLAT)


def draw_backpack(canvas: Canvas, body: Surface, size: str) -> None:
    dark, zipper = body.darker(0.6), plain((196, 196, 198), "steel")
    for x in (-0.66, 0.66):
        strap = curve([(x * 0.5, -0.7), (x * 1.12, -0.3), (x * 1.2, 0.3), (x * 0.92, 0.74)])
        canvas.part(stroke(strap, 0.13), dark, form=THIN)
    canvas.part(stroke(ellipse(0, -0.86, 0.17, 0.13, 180, 360), 0.075), dark, form=THIN)
    for points in (smooth([(0.5, 0.2), (0.74, 0.24), (0.76, 0.76), (0.52, 0.84)], 5),):
        for side in (points, flipped(points)):
            canvas.part(side, body.darker(0.8), form=SOFT)
    half = [(0, -0.9), (0.3, -0.88), (0.5, -0.72), (0.58, -0.4), (0.6, 0.4), (0.58, 0.84), (0.4, 0.93), (0, 0.94)]
    canvas.part(smooth(mirrored(half), 4), body, form=Form(0.24, 1.1), lift=0.3)
    canvas.part(
        stroke(
            curve([(-0.5, -0.16), (-0.46, -0.56), (-0.26, -0.72), (0.26, -0.72), (0.46, -0.56), (0.5, -0.16)]), 0.034
        ),
        dark,
        form=FLAT,
    )
    canvas.part(
        rounded(-0.43, 0.1, 0.43, 0.82, 0.14),
        body if canvas.rng.random() < 0.6 else body.darker(0.85),
        form=Form(0.14, 1.3),
        lift=0.5,
    )
    canvas.part(stroke(curve([(-0.38, 0.22), (0, 0.2), (0.38, 0.22)]), 0.034), dark, form=FLAT)
    canvas.part(stroke(polygon((0.3, 0.22), (0.32, 0.36)), 0.04), zipper, form=THIN, lift=0.4)
    canvas.part(rounded(-0.15, -0.38, 0.15, -0.16, 0.04), plain((150, 104, 62), "leather"), form=THIN, lift=0.4)
    for x in (-0.28, 0.28):
        canvas.part(
            rounded(x - 0.045, -0.08, x + 0.045, 0.36, 0.03), plain((150, 104, 62), "leather"), form=THIN, lift=0.3
        )


def draw_umbrella(canvas: Canvas, body: Surface, size: str) -> None:
    wide = 0.86 if size == "compact" else 0.98
    wood = plain((140, 90, 50), "wood")
    steel = plain((176, 178, 184), "steel")
    canvas.part(stroke(polygon((0, -0.9), (0, -0.66)), 0.035), steel, form=THIN)
    canvas.part(stroke(polygon((0, -0.3), (0, 0.66)), 0.036), steel, form=THIN)
    canvas.part(
        stroke(np.concatenate([polygon((0, 0.5), (0, 0.8)), ellipse(-0.13, 0.8, 0.13, 0.13, 0, 165)]), 0.078),
        wood,
        form=THIN,
    )
    tips = np.linspace(-1, 1, 7) * wide
    low = [0.06 - 0.09 * (1 - (x / wide) ** 2) for x in tips]
    under = np.concatenate([curve(list(zip(tips, low, strict=True))), curve([(wide, 0.06), (0, 0.02), (-wide, 0.06)])])
    canvas.part(under, body.darker(0.45), form=FLAT)
    for first in (0, 5, 1, 4, 2, 3):
        left, right = tips[first], tips[first + 1]
        y0, y1 = low[first], low[first + 1]
        dome = [
            (x * s, -0.78 + 0.84 * (1 - np.sqrt(max(0.0, 1 - s * s))) + (y - 0.06) * s) for x, y, s in _ribs(left, y0)
        ]
        back = [
            (x * s, -0.78 + 0.84 * (1 - np.sqrt(max(0.0, 1 - s * s))) + (y - 0.06) * s) for x, y, s in _ribs(right, y1)
        ]
        middle = (left + right) / 2
        sag = curve([(left, y0), (middle, (y0 + y1) / 2 - 0.085), (right, y1)])
        panel = np.concatenate([dome, sag, back[::-1]])
        shade = 1.0 - 0.1 * (first % 2) - 0.05 * abs(first - 2.5)
        canvas.part(panel, body, form=Form(0.16, 0.9, ball=(0.0, 0.1, wide * 1.25, 1.1)), shade=shade, lift=0.15)
    for x, y in zip(tips, low, strict=True):
        canvas.part(ellipse(x, y, 0.018, 0.018), steel, form=FLAT)


def _ribs(x: float, y: float) -> list[tuple[float, float, float]]:
    return [(x, y, float(s)) for s in np.linspace(0, 1, 8)]
