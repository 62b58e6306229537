"""A rotation of the embeddings after which the first 128 numbers, or however many are kept, are the best.

1. Principal components, uncentred (Pearson 1901): the eigenvectors of the Gram matrix of unit vectors, largest
   eigenvalue first. Cosines are compared, so the mean is nothing to be removed.
2. A random rotation of what is kept spreads it evenly (PCA-RR of Gong and Lazebnik 2011, "Iterative Quantization"):
   one bit per number suits numbers of like size, and principal components count as much if they are small. At full
   length it stays within the first 128 numbers, those up to 256, up to 512 and so on, so that an engine can cut there.

Scores of full length do not change but by rounding, for every field and for whatever is fused of fields;
gcl/model/rotated.py puts the rotation into both towers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_ROWS = 1024  # vectors added to a Gram matrix at once
_BLOCK = 128  # the first block whose numbers are spread evenly; each later edge is at twice the one before


@dataclass(frozen=True)
class Rotation:
    """principal[D, D] float64, orthogonal: the principal axes, best first. keep_ones: at full length the rotation
    leaves the vector of ones where it is, which some towers need (gcl/model/rotated.py)."""

    principal: np.ndarray
    keep_ones: bool = False

    @property
    def digest(self) -> str:
        """Twelve letters that name these coordinates."""
        content = np.ascontiguousarray(self.principal, dtype="<f8").tobytes()
        return hashlib.sha256(b"evenly spread" + content).hexdigest()[:12]

    def axes(self, width: int | None = None) -> np.ndarray:
        """[width, D] float64, orthonormal rows: x @ axes.T is x rotated, and cut to the best `width` numbers.

        Where the vector of ones is kept, the axes are reflected for it; of any first k numbers this spoils one
        direction at most.
        """
        axes = self.principal[:width].copy()
        for start, end in _blocks(len(axes)) if len(axes) == axes.shape[1] else [(0, len(axes))]:
            axes[start:end] = _evenly(end - start) @ axes[start:end]
        if self.keep_ones and len(axes) == axes.shape[1]:
            ones = np.full(len(axes), len(axes) ** -0.5)
            mirror = axes @ ones - ones
            if (length := np.linalg.norm(mirror)) > 1e-12:
                mirror /= length
                axes -= 2 * np.outer(mirror, mirror @ axes)
        return axes

    def turn(self, vectors: np.ndarray, width: int | None = None) -> np.ndarray:
        """vectors[n, D] -> [n, width] float32: rotated and cut, not made unit vectors again."""
        return (vectors.astype(np.float64) @ self.axes(width).T).astype(np.float32)


def _blocks(width: int) -> list[tuple[int, int]]:
    """Whose numbers are spread evenly at full length.

    >>> _blocks(384), _blocks(64)
    ([(0, 128), (128, 256), (256, 384)], [(0, 64)])
    """
    edges = [0]
    while (after := max(_BLOCK, 2 * edges[-1])) < width:
        edges.append(after)
    return list(zip(edges, [*edges[1:], width], strict=True))


@lru_cache(maxsize=32)
def _evenly(width: int) -> np.ndarray:
    """A random orthogonal matrix, always the same. RandomState: its numbers are the same in every version of NumPy."""
    q, r = np.linalg.qr(np.random.RandomState(width).standard_normal((width, width)))
    return q * np.sign(np.diag(r))


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


def principal_axes(gram: np.ndarray) -> np.ndarray:
    """gram[D, D] -> its eigenvectors as rows, those of the largest eigenvalues first, each with its largest number
    positive.

    >>> principal_axes(np.diag([1.0, 4.0])).round(6) + 0.0
    array([[0., 1.],
           [1., 0.]])
    """
    axes = np.linalg.eigh(gram)[1].T[::-1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return np.ascontiguousarray(np.where(largest < 0, -axes, axes))
