"""Scores in 8-bit integers with a bound on their error: a quarter of the time of float32, and nothing is lost.

q . (d - c) ranks documents as q . d does, whatever the vector c. With q = a + r (a: on a grid of 255 steps, r: the
rest) and d - c = b + s likewise, the error of a . b is at most |a| |s| + |r| |d - c| (Cauchy-Schwarz). The lengths of
the rests are computed, not assumed, so clipping large numbers is allowed where it makes the grid finer.

a . b is an exact sum of integers (`torch._int_mm`: oneDNN, AVX-512 VNNI or newer). Where sums saturate, as on older
processors, `exact` says so, and where it is not fast, `usable`: everything is computed in float32. That is one shape;
every other is probed when it first occurs (with PyTorch 2.14 all products of vectors of one number are wrong on some
processors), and Inexact sends it to float32.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

logger = logging.getLogger(__name__)

_CLIPS = (None, 5.0, 4.5, 4.0, 3.5, 3.0)  # numbers beyond this many root mean squares are cut; None: no number is
_ROWS = 256  # documents made small at once: they stay in a core's cache
_ROOM = 1.05  # the first documents' grid is coarser by this factor, so that it fits the next ones as well
_WORSE = 1.1  # a rest longer than the first documents' by this factor makes documents have a grid of their own
_SLACK = 1e-4  # for the rounding of the bound's own arithmetic, which is in float32
_LOST = 1e-18  # the length of what has no squares in float32
_PROBED = 16  # rows of the first product of a shape that are computed once more, in float64
_SOUND: set[tuple[int, int, int]] = set()  # the shapes whose products were exact: queries, documents, width


class Inexact(ArithmeticError):
    """This machine's integer products of some shape are wrong."""


@lru_cache(maxsize=1)
def usable() -> bool:
    """Whether this machine multiplies 8-bit integers exactly and at least twice as fast as float32; measured and told
    once."""
    exact_and_fast = exact() and _fast()
    kind = "8-bit integers" if exact_and_fast else "float32"
    logger.info("Nearest documents are searched in %s on this machine.", kind)
    return exact_and_fast


@lru_cache(maxsize=1)
def exact() -> bool:
    """Whether this machine's sums of 8-bit products are exact, however large the numbers; looked at once."""
    if not hasattr(torch, "_int_mm"):
        return False
    left, right = _operands()
    try:
        product = torch._int_mm(left, right.T)
    except RuntimeError:
        return False
    wanted = left.numpy().astype(np.int64) @ right.numpy().astype(np.int64).T
    return product.dtype == torch.int32 and np.array_equal(product.numpy(), wanted)


def _fast() -> bool:
    left, right = _operands()
    whole = left.float(), right.float().T
    return 2 * _fastest(lambda: torch._int_mm(left, right.T)) < _fastest(lambda: whole[0] @ whole[1])


def _operands() -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [256, 512] twice, with sums that saturate where intermediates have 16 bits."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randint(-127, 128, (256, 512), generator=generator).to(torch.int8) for _ in range(2))
    left[:8], right[:4], right[4:8] = 127, 127, -127
    return left, right


def _fastest(action: Callable[[], object]) -> float:
    taken = []
    for _ in range(7):
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return min(taken)


class Int8Scan:
    """Approximate scores of all queries with a block of documents. centre[D] is subtracted from every document."""

    def __init__(self, query: np.ndarray, first: np.ndarray) -> None:
        """query[Q, D] float32; first: some documents [n, D], from which centre and grid are chosen."""
        self.centre = first.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._slack = 1 + _SLACK + query.shape[1] * 2.0**-24
        self._query, self.scale, self._length, self._rest = _queries_on_a_grid(query)
        self._centre_length = float(np.linalg.norm(self.centre.astype(np.float64)))
        self._part, self._grid = (torch.empty(_ROWS, query.shape[1]) for _ in range(2))
        self._clip = min(_CLIPS, key=lambda clip: self._rest_of(first, clip))
        self._step = _ROOM * _step(torch.from_numpy(first - self.centre), self._clip)
        self._usual = self._on_grid(first, self._step)[2]
        self._own_length = np.sqrt(np.einsum("qd,qd->q", query, query, dtype=np.float64))

    def small(self, documents: np.ndarray) -> tuple[torch.Tensor, float, float, float]:
        """documents[B, D] float32 -> on the grid int8 [B, D], its step, the longest rest, the longest d - c."""
        best = self._on_grid(documents, self._step)
        if best[2] > _WORSE * self._usual:  # these documents are of another kind than the first
            own = self._on_grid(documents, _step(torch.from_numpy(documents - self.centre), self._clip))
            best = min(best, own, key=lambda one: one[2])
        return best

    def _on_grid(self, documents: np.ndarray, step: float) -> tuple[torch.Tensor, float, float, float]:
        out = torch.empty(documents.shape, dtype=torch.int8)
        rest = longest = 0.0
        for start in range(0, len(documents), _ROWS):
            rows = documents[start : start + _ROWS]
            part, grid = self._part[: len(rows)], self._grid[: len(rows)]
            np.subtract(rows, self.centre, out=part.numpy())
            torch.mul(part, 1 / step, out=grid).round_().clamp_(-127, 127)
            out[start : start + _ROWS] = grid
            longest = max(longest, _most_square(part))
            rest = max(rest, _most_square(grid.mul_(step).sub_(part)))
        return out, step, rest**0.5 * self._slack + _LOST, longest**0.5 * self._slack + _LOST

    def scores(self, some: slice, small: torch.Tensor, out: torch.Tensor) -> np.ndarray:
        """int32 [q, B]: times scale[q] and the step, the approximate scores. Raises Inexact."""
        part = self._query[some]
        out = out[: len(part) * len(small)].view(len(part), len(small))
        try:
            product = torch._int_mm(part, small.T, out=out).numpy()
        except RuntimeError as error:
            raise Inexact(f"{list(part.shape)} by {list(small.shape)}: {error}") from error
        _probe(part, small, product)
        return product

    def margin(self, some: slice, rest: float, longest: float) -> np.ndarray:
        """[q]: no approximate score of these queries is further from q . (d - c) than this.

        The last term is for float32: the difference d - c, the scaled integer, the threshold it is compared with, and
        scores that tie after rounding.
        """
        error = self._length[some] * rest + self._rest[some] * longest
        return self._slack * error + 2.0**-19 * self._own_length[some] * (longest + rest + self._centre_length)

    def _rest_of(self, documents: np.ndarray, clip: float | None) -> float:
        centred = torch.from_numpy(documents - self.centre)
        step = _step(centred, clip)
        rest = (centred / step).round_().clamp_(-127, 127).mul_(step).sub_(centred)
        return float(torch.linalg.vector_norm(rest, dim=1).max())


def _probe(left: torch.Tensor, right: torch.Tensor, product: np.ndarray) -> None:
    """Raises Inexact if the first product of a shape is wrong in one of the rows that are looked at."""
    shape = (*left.shape, len(right))
    if shape in _SOUND:
        return
    rows = np.unique(np.linspace(0, len(left) - 1, _PROBED).astype(int))
    wanted = left[rows].numpy().astype(np.float64) @ right.numpy().astype(np.float64).T  # whole numbers below 2^53
    if not np.array_equal(product[rows], wanted):
        raise Inexact(f"{list(left.shape)} by {list(right.shape)} is not what float64 says")
    _SOUND.add(shape)


def _most_square(rows: torch.Tensor) -> float:
    values = rows.numpy()
    return float(np.einsum("md,md->m", values, values).max())


def _step(values: torch.Tensor, clip: float | None) -> float:
    largest = float(values.abs().max())
    if clip is not None:
        largest = min(largest, clip * float(values.square().mean()) ** 0.5)
    return max(largest, 1e-30) / 127


def _queries_on_a_grid(query: np.ndarray) -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Each query on the grid that fits it best: int8 [Q, D]; its step, length on the grid, length of the rest, [Q]."""
    given = query.astype(np.float64)
    largest, mean_square = np.abs(given).max(axis=1), np.sqrt(np.square(given).mean(axis=1))
    best = np.full(len(query), np.inf)
    grid, scale = np.zeros(query.shape, dtype=np.int8), np.ones(len(query))
    for clip in _CLIPS:
        step = np.maximum(largest if clip is None else np.minimum(largest, clip * mean_square), 1e-30) / 127
        tried = np.clip(np.rint(given / step[:, None]), -127, 127)
        rest = np.linalg.norm(given - tried * step[:, None], axis=1)
        better = rest < best
        best[better], scale[better], grid[better] = rest[better], step[better], tried[better]
    length = np.linalg.norm(grid * scale[:, None], axis=1)
    return torch.from_numpy(grid), scale, length, best
