"""Outlines in object coordinates: arrays[n, 2] of (x, y), x to the right, y down, an object filling about [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    return points + [x, y]


def flipped(points: np.ndarray) -> np.ndarray:
    """Mirrored left to right."""
    return points * [-1.0, 1.0]
