"""A rotation of the embeddings after which the first k numbers are the best k.

Principal components, uncentred (Pearson 1901): the eigenvectors of the Gram matrix of unit vectors, largest eigenvalue
first. Cosines are compared, so the mean is nothing to be removed. Scores of full length do not change but by rounding,
for every field and for whatever is fused of fields; gcl/model/rotated.py puts the rotation into both towers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_ROWS = 1024  # vectors added to a Gram matrix at once


@dataclass(frozen=True)
class Rotation:
    """axes[D, D] float64, orthogonal: row i is the axis that gives number i. x @ axes.T is x rotated."""

    axes: np.ndarray

    @property
    def digest(self) -> str:
        """Twelve letters that name these coordinates."""
        return hashlib.sha256(np.ascontiguousarray(self.axes, dtype="<f8").tobytes()).hexdigest()[:12]

    def turn(self, vectors: np.ndarray, width: int | None = None) -> np.ndarray:
        """vectors[n, D] -> [n, width] float32: rotated and cut, not made unit vectors again."""
        return (vectors.astype(np.float64) @ self.axes[:width].T).astype(np.float32)


def gram(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Sum of the outer products of all vectors, float64 [D, D]. blocks: float32 [n, D] each.

    Added up in float64, a fixed number of vectors at a time and in their order: the same vectors give the same bits.
    """
    total: np.ndarray | None = None
    for block in blocks:
        for start in range(0, len(block), _ROWS):
            part = np.asarray(block[start : start + _ROWS], dtype=np.float64)
            product = part.T @ part
            total = product if total is None else total + product
    if total is None:
        raise ValueError("A rotation is computed from vectors, and there are none.")
    return total


def principal_axes(gram: np.ndarray, *, keep_ones: bool = False) -> Rotation:
    """gram[D, D] -> its eigenvectors, those of the largest eigenvalues first, each with its largest number positive.

    keep_ones: the rotation leaves the vector of ones where it is, which some towers need (gcl/model/rotated.py). The
        axes are reflected for it; of any first k numbers this spoils one direction at most.

    >>> principal_axes(np.diag([1.0, 4.0])).axes.round(6) + 0.0
    array([[0., 1.],
           [1., 0.]])
    """
    axes = np.linalg.eigh(gram)[1].T[::-1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes = np.where(largest < 0, -axes, axes)
    if keep_ones:
        ones = np.full(len(axes), len(axes) ** -0.5)
        mirror = axes @ ones - ones
        if (length := np.linalg.norm(mirror)) > 1e-12:
            mirror /= length
            axes = axes - 2 * np.outer(mirror, mirror @ axes)
    return Rotation(np.ascontiguousarray(axes))
