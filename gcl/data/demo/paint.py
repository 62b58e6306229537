"""Outlines, and a canvas on which an object is built of shaded parts, then set on a background with its shadow.

Outlines are arrays[n, 2] of (x, y) in object coordinates: x to the right, y down, an object filling about [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gcl.data.demo.surface import TILE, Surface, grain, lay, softened, white_noise

Points = Sequence[tuple[float, float]] | np.ndarray


def polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, dtype=np.float64)


def mirrored(half: Points) -> np.ndarray:
    """A closed outline from its right half, given from top to bottom."""
    right = np.asarray(half, dtype=np.float64)
    return np.concatenate([right, right[::-1] * [-1.0, 1.0]])


def _spline(before: np.ndarray, start: np.ndarray, end: np.ndarray, after: np.ndarray, steps: int) -> np.ndarray:
    t = (np.arange(steps) / steps)[:, None, None]
    line = 2 * start + (end - before) * t
    bend = (2 * before - 5 * start + 4 * end - after) * t**2 + (3 * start - before - 3 * end + after) * t**3
    return (0.5 * (line + bend)).transpose(1, 0, 2).reshape(-1, 2)


def smooth(points: Points, steps: int = 7) -> np.ndarray:
    """Closed Catmull-Rom curve through the points."""
    p = np.asarray(points, dtype=np.float64)
    return _spline(np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0), steps)


def curve(points: Points, steps: int = 8) -> np.ndarray:
    """Open Catmull-Rom curve from the first point to the last."""
    p = np.asarray(points, dtype=np.float64)
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    return np.concatenate([_spline(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], steps), p[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> np.ndarray:
    """Arc in degrees, 0 to the right, turning clockwise (y points down); a full turn by default."""
    angle = np.radians(np.linspace(start, end, max(10, int(abs(end - start) / 8))))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def rounded(x0: float, y0: float, x1: float, y1: float, radius: float) -> np.ndarray:
    """Rectangle with rounded corners."""
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    corners = [(x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180), (x1 - r, y0 + r, 270)]
    return np.concatenate([ellipse(x, y, r, r, turn, turn + 90) for x, y, turn in corners])


def stroke(points: Points, width: float, end_width: float | None = None) -> np.ndarray:
    """The outline of a line of the given width, tapering to `end_width`, with round ends."""
    p = np.asarray(points, dtype=np.float64)
    ahead = np.gradient(p, axis=0)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    aside = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    half = np.linspace(width, width if end_width is None else end_width, len(p))[:, None] / 2
    turn = np.radians(np.linspace(90, -90, 7))[:, None]
    last = p[-1] + half[-1] * (np.cos(turn) * ahead[-1] + np.sin(turn) * aside[-1])
    first = p[0] - half[0] * (np.cos(turn) * ahead[0] + np.sin(turn) * aside[0])
    return np.concatenate([p + half * aside, last, (p - half * aside)[::-1], first])


def turned(points: np.ndarray, degrees: float, center: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    angle = np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return (points - center) @ np.array([[cos, sin], [-sin, cos]]) + center


def moved(points: np.ndarray, x: float, y: float) -> np.ndarray:
    return points + np.array([x, y])


def flipped(points: np.ndarray) -> np.ndarray:
    """Mirrored left to right."""
    return points * [-1.0, 1.0]


SUPER = 2


@dataclass(frozen=True)
class Pose:
    """Where object coordinates land: pixels = center + scale · rotation · (x mirrored or not)."""

    center: tuple[float, float]
    scale: float
    degrees: float = 0.0
    shear: float = 0.0
    mirror: bool = False

    @property
    def matrix(self) -> np.ndarray:
        angle = np.radians(self.degrees)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        flip = np.array([[-1.0 if self.mirror else 1.0, self.shear], [0.0, 1.0]])
        return self.scale * rotation @ flip


@dataclass(frozen=True)
class Form:
    """What a part's surface does in depth: a rounded rim `bevel` wide (object units) and `relief` high; `barrel`: a
    cylinder upright at (x, half width); `ball`: an ellipsoid at (x, y, half width, half height)."""

    bevel: float = 0.12
    relief: float = 1.0
    barrel: tuple[float, float] | None = None
    ball: tuple[float, float, float, float] | None = None


FLAT = Form(bevel=0.0, relief=0.0)
SOFT = Form()
THIN = Form(bevel=0.04, relief=0.7)


class Canvas:
    """Builds one object. color[S, S, 3] is premultiplied by cover[S, S]."""

    def __init__(self, side: int, pose: Pose, rng: np.random.Generator) -> None:
        self.side, self.pose, self.rng = side, pose, rng
        self.color = np.zeros((side, side, 3), dtype=np.float32)
        self.cover = np.zeros((side, side), dtype=np.float32)
        self.glow = np.zeros((side, side), dtype=np.float32)
        inverse = np.linalg.inv(pose.matrix)
        at = np.arange(side, dtype=np.float64) + 0.5
        x, y = at[None, :] - pose.center[0], at[:, None] - pose.center[1]
        self.u = (inverse[0, 0] * x + inverse[0, 1] * y).astype(np.float32)
        self.v = (inverse[1, 0] * x + inverse[1, 1] * y).astype(np.float32)
        light = np.array([rng.uniform(-0.62, -0.32) * rng.choice([-1, 1]), rng.uniform(-0.62, -0.42), 0.75])
        self.light = (light / np.linalg.norm(light)).astype(np.float32)
        half = self.light + np.array([0, 0, 1], dtype=np.float32)
        self.half = half / np.linalg.norm(half)

    def _mask(
        self, outlines: list[np.ndarray], holes: list[np.ndarray], pad: int
    ) -> tuple[Image.Image, tuple[slice, slice]] | None:
        pixels = [points @ self.pose.matrix.T + self.pose.center for points in outlines]
        every = np.concatenate(pixels)
        low = np.clip(np.floor(every.min(0)).astype(int) - pad, 0, self.side)
        high = np.clip(np.ceil(every.max(0)).astype(int) + pad, 0, self.side)
        width, height = (int(n) for n in high - low)
        if width < 2 or height < 2:
            return None
        image = Image.new("L", (width * SUPER, height * SUPER))
        pen = ImageDraw.Draw(image)
        for points in pixels:
            pen.polygon(((points - low) * SUPER).ravel().tolist(), fill=255)
        for points in holes:
            points = points @ self.pose.matrix.T + self.pose.center
            pen.polygon(((points - low) * SUPER).ravel().tolist(), fill=0)
        return image.reduce(SUPER), (slice(low[1], high[1]), slice(low[0], high[0]))

    def _tile(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        y, x = self.rng.integers(0, TILE - np.array(shape) + 1)
        return grain(name)[y : y + shape[0], x : x + shape[1]]

    def part(
        self,
        outline: np.ndarray | list[np.ndarray],
        surface: Surface,
        *,
        form: Form = SOFT,
        lift: float = 0.0,
        shade: float = 1.0,
        holes: list[np.ndarray] | None = None,
    ) -> None:
        """Lays a part over what is there. lift: how strongly it shadows the parts below; shade: overall brightness."""
        drawn = self._mask(outline if isinstance(outline, list) else [outline], holes or [], pad=8 if lift else 3)
        if drawn is None:
            return
        image, box = drawn
        alpha = np.asarray(image, dtype=np.float32) / 255
        reach = form.bevel * self.pose.scale
        height = alpha
        if reach or lift:
            height = np.asarray(image.filter(ImageFilter.GaussianBlur(max(reach * 0.5, 1.0))), dtype=np.float32) / 255
        if lift:
            drop = max(1, round(0.022 * self.pose.scale))
            fall = np.roll(height, (drop, -drop if self.light[0] > 0 else drop), (0, 1))
            self.color[box] *= 1 - (lift * fall * (1 - alpha))[..., None]
        material = surface.material
        nx, ny, u, v = self._slope(height, box, form, material.wrinkle)
        tone = (
            shade
            if not material.amount
            else shade + (shade * material.amount) * self._tile(material.grain, alpha.shape)
        )
        length = np.sqrt(nx * nx + ny * ny + 1)
        lit = np.maximum((nx * self.light[0] + ny * self.light[1] + self.light[2]) / (length * self.light[2]), 0)
        tone = tone * (material.ambient + (1 - material.ambient) * lit)
        base = surface.color
        if surface.pattern is not None:
            base = lay(surface.pattern, base, u, v, 1 / self.pose.scale)
        paint = base * tone[..., None]
        if material.gloss:
            paint += (material.gloss * 0.62 * shade * self._facing(nx, ny, length, form) ** material.focus)[..., None]
        if material.opacity < 1:
            alpha = alpha * np.clip(material.opacity + 0.9 * (1 - 1 / length), 0, 1)
        keep = 1 - alpha
        self.color[box] *= keep[..., None]
        self.color[box] += np.clip(paint, 0, 1, out=paint) * alpha[..., None]
        self.cover[box] *= keep
        self.cover[box] += alpha

    def _slope(
        self, height: np.ndarray, box: tuple[slice, slice], form: Form, wrinkle: float
    ) -> tuple[np.ndarray, ...]:
        """How the surface leans, nx, ny[h, w], and where a pattern on it is read, u, v[h, w]."""
        u, v = self.u[box], self.v[box]
        nx, ny = np.zeros_like(height), np.zeros_like(height)
        steep = -form.bevel * form.relief * self.pose.scale
        if steep:
            nx[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * (steep / 2)
            ny[1:-1] = (height[2:] - height[:-2]) * (steep / 2)
        if wrinkle and form.relief:
            fold = self._tile("folds", (height.shape[0] + 1, height.shape[1] + 1))
            nx += (fold[:-1, 1:] - fold[:-1, :-1]) * (1.6 * wrinkle)
            ny += (fold[1:, :-1] - fold[:-1, :-1]) * (1.2 * wrinkle)
        if round_across := form.barrel or (form.ball and (form.ball[0], form.ball[2])):
            x, half_width = round_across
            t = np.clip((u - x) / half_width, -0.98, 0.98)
            ball = None if form.barrel else form.ball
            s = np.clip((v - ball[1]) / ball[3], -0.98, 0.98) if ball else np.zeros_like(t)
            depth = np.sqrt(np.maximum(1 - t * t - s * s, 0.05))
            nx += (-0.85 if self.pose.mirror else 0.85) * t / depth
            ny += 0.85 * s / depth
            u, v = x + half_width * np.arcsin(t), v - 0.1 * depth
        return nx, ny, u, v

    def _facing(self, nx: np.ndarray, ny: np.ndarray, length: np.ndarray, form: Form) -> np.ndarray:
        """Cosine between the surface and the direction in which it mirrors the light."""
        if form.barrel:  # a tall lamp lights an upright cylinder: the highlight runs along it
            x, z = self.half[[0, 2]] / np.hypot(self.half[0], self.half[2])
            return np.maximum(nx * x + z, 0) / length
        return np.maximum(nx * self.half[0] + ny * self.half[1] + self.half[2], 0) / length

    def shine(self, outline: np.ndarray, strength: float) -> None:
        """Light that a part gives off, laid over the finished picture."""
        drawn = self._mask([outline], [], pad=0)
        if drawn is not None:
            self.glow[drawn[1]] += np.asarray(drawn[0], dtype=np.float32) * np.float32(strength / 255)


def _squashed(cover: np.ndarray, base: float, lean: float) -> np.ndarray:
    """The silhouette laid on the ground: flattened towards row `base` and leaning sideways."""
    image = Image.fromarray((cover * 255).astype(np.uint8))
    flat = 0.2
    affine = (1, lean / flat, -lean / flat * base, 0, 1 / flat, base - base / flat)
    shadow = image.transform(image.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(shadow, dtype=np.float32) / 255


def place(canvas: Canvas, background: np.ndarray, *, standing: bool) -> np.ndarray:
    """The object on the background[S, S, 3] with its shadow; standing on the ground or lying flat, hanging."""
    side, cover = canvas.side, canvas.cover
    unit = side / 224
    away = 1.0 if canvas.light[0] < 0 else -1.0
    if standing:
        rows = np.flatnonzero(cover.max(axis=1) > 0.5)
        base = float(rows[-1]) if len(rows) else side * 0.9
        cast = softened(_squashed(cover, base, away * canvas.rng.uniform(0.3, 0.7)), 5 * unit)
        touch = _squashed(cover, base - 1.5 * unit, 0.0)
        touch[: max(0, int(base - 7 * unit))] = 0
        shadow = 0.42 * cast + 0.6 * softened(touch, 2.5 * unit)
    else:
        drop = int(round(canvas.rng.uniform(3, 7) * unit))
        fall = np.roll(cover, (drop, int(away * drop * 0.8)), (0, 1))
        shadow = 0.38 * softened(fall, 4 * unit) + 0.22 * softened(fall, 12 * unit)
    picture = background * (1 - np.clip(shadow, 0, 0.85))[..., None]
    picture = picture * (1 - cover)[..., None] + canvas.color
    if canvas.glow.any():
        halo = softened(np.clip(canvas.glow, 0, 1), 16 * unit)[..., None]
        picture = picture + halo * np.array([0.34, 0.27, 0.14], dtype=np.float32)
    return picture


def photograph(picture: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """What a camera makes of it: exposure, white balance, vignette, a little blur at times, sensor noise."""
    side = picture.shape[0]
    warmth = rng.uniform(-0.025, 0.025)
    gain = rng.uniform(0.93, 1.06) * np.array([1 + warmth, 1, 1 - warmth], dtype=np.float32)
    at = np.linspace(-1, 1, side, dtype=np.float32)
    vignette = 1 - rng.uniform(0.05, 0.2) * 0.5 * (at[:, None] ** 2 + at[None, :] ** 2)
    y, x = rng.integers(0, 128, 2)
    noise = white_noise(1, (TILE, TILE))[y % 100 : y % 100 + side, x % 100 : x % 100 + side]
    if noise.shape != (side, side):
        noise = np.resize(noise, (side, side))
    picture = picture * (gain * vignette[..., None]) + (noise * rng.uniform(0.004, 0.014))[..., None]
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(0.5)) if rng.random() < 0.25 else image
