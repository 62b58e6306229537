"""Score-to-weight functions: `score[B] -> weight[B]` (Zhu, Jung and Clark 2024, https://arxiv.org/abs/2404.08535).

A score says how good a (query, document) pair is, higher is better; a weight says how much the pair counts in the loss.
`low` and `high` are the ends of the scores' range, 1 and 100 by default as in Marqo-GS-10M, and every function gives 1
to the best score. A score outside the range is refused: a wrong range would otherwise flatten all weights without a
word.

The functions of the rank see a score as a place in a result list: `high` is place 1, `low` is place `ranks`, and equal
steps of score are equal steps of place. For scores 1..100 and 100 ranks the score s is place 101 - s.

In a config: `_target_: gcl.loss.weight.reciprocal`, `_partial_: true`, and the parameters that differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constant(score: Tensor, value: float = 1.0) -> Tensor:
    """weight[B] = value: every pair counts the same, which is plain CLIP or SigLIP. Any score is allowed.

    >>> constant(torch.tensor([1.0, 50.0, 100.0]))
    tensor([1., 1., 1.])
    """
    return torch.full_like(score, value)


def identity(score: Tensor) -> Tensor:
    """weight[B] = score[B]: the column already is the weight, in its own range; the loss refuses negative ones.

    >>> identity(torch.tensor([0.0, 0.25, 7.0]))
    tensor([0.0000, 0.2500, 7.0000])
    """
    return score


def linear(score: Tensor, low: float = 1.0, high: float = 100.0, floor: float = 0.01) -> Tensor:
    """weight[B] = a straight line from `floor` at `low` to 1 at `high`; by default score / 100, so 0.01 to 1.

    >>> linear(torch.tensor([1.0, 50.0, 100.0]))
    tensor([0.0100, 0.5000, 1.0000])
    """
    return power(score, 1.0, low=low, high=high, floor=floor)


def power(score: Tensor, exponent: float = 2.0, low: float = 1.0, high: float = 100.0, floor: float = 0.01) -> Tensor:
    """weight[B] = floor + (1 - floor) * u^exponent, u = (score - low) / (high - low): `floor` at `low`, 1 at `high`.

    An exponent above 1 favours the best scores, one below 1 lifts the middle.

    >>> power(torch.tensor([1.0, 50.5, 100.0]), 2.0)
    tensor([0.0100, 0.2575, 1.0000])
    """
    if not exponent > 0:
        raise ValueError(f"power: exponent is {exponent}, expected a number above 0.")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is {floor}, expected a weight from 0 to 1 for the lowest score.")
    return floor + (1 - floor) * _share(score, low, high) ** exponent


def reciprocal(score: Tensor, low: float = 1.0, high: float = 100.0, ranks: float = 100.0) -> Tensor:
    """weight[B] = 1 / rank: 1 at `high`, 1 / ranks at `low`; by default 1, 1/2, 1/3 for 100, 99, 98, and 0.01 for 1.

    >>> reciprocal(torch.tensor([1.0, 99.0, 100.0]))
    tensor([0.0100, 0.5000, 1.0000])
    """
    return 1 / _rank(score, low, high, ranks)


def inverse_sqrt(score: Tensor, low: float = 1.0, high: float = 100.0, ranks: float = 100.0) -> Tensor:
    """weight[B] = 1 / sqrt(rank): 1 at `high`, 1 / sqrt(ranks) at `low`, by default 0.1.

    >>> inverse_sqrt(torch.tensor([1.0, 97.0, 100.0]))
    tensor([0.1000, 0.5000, 1.0000])
    """
    return _rank(score, low, high, ranks).rsqrt()


def log(score: Tensor, low: float = 1.0, high: float = 100.0, ranks: float = 100.0) -> Tensor:
    """weight[B] = 1 / log2(1 + rank), the discount of nDCG: 1 at `high`, 1 / log2(1 + ranks) at `low`, by default
    0.1502.

    >>> log(torch.tensor([1.0, 98.0, 100.0]))
    tensor([0.1502, 0.5000, 1.0000])
    """
    return 1 / torch.log2(1 + _rank(score, low, high, ranks))


def piecewise(
    score: Tensor, points: Sequence[tuple[float, float]] = ((1.0, 0.01), (50.0, 0.1), (90.0, 0.5), (100.0, 1.0))
) -> Tensor:
    """weight[B] = straight lines through `points`, each (score, weight); two points of one score make a step (the later
    holds there).

    The first and the last point are the ends of the range: 0.01 at 1 and 1 at 100 by default.

    >>> piecewise(torch.tensor([1.0, 50.0, 70.0, 100.0]))
    tensor([0.0100, 0.1000, 0.3000, 1.0000])
    >>> piecewise(torch.tensor([0.0, 1.0, 2.0, 3.0]), points=[(0, 0), (2, 0), (2, 1), (3, 1)])
    tensor([0., 0., 1., 1.])
    """
    knots = torch.tensor([point[0] for point in points], dtype=score.dtype, device=score.device)
    values = torch.tensor([point[1] for point in points], dtype=score.dtype, device=score.device)
    if (
        len(points) < 2
        or any(a[0] > b[0] for a, b in zip(points, list(points)[1:], strict=False))
        or not knots[0] < knots[-1]
    ):
        raise ValueError(
            f"piecewise: points are {points}, expected at least two (score, weight), scores in rising order."
        )
    _check_range(score, float(knots[0]), float(knots[-1]))
    right = torch.searchsorted(knots, score.contiguous(), right=True).clamp(1, len(points) - 1)
    left = right - 1
    width = knots[right] - knots[left]
    share = torch.where(width > 0, (score - knots[left]) / width.clamp_min(torch.finfo(score.dtype).tiny), 1.0)
    return torch.lerp(values[left], values[right], share.clamp(0, 1))


def _share(score: Tensor, low: float, high: float) -> Tensor:
    """Where score[B] lies between low (0) and high (1)."""
    _check_range(score, low, high)
    return ((score - low) / (high - low)).clamp(0, 1)


def _rank(score: Tensor, low: float, high: float, ranks: float) -> Tensor:
    """score[B] as a place in a list: 1 at high, `ranks` at low."""
    if not ranks >= 1:
        raise ValueError(f"ranks is {ranks}, expected a number of at least 1.")
    _check_range(score, low, high)
    return (1 + (high - score) * ((ranks - 1) / (high - low))).clamp(1, ranks)


def _check_range(score: Tensor, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"The range of scores is low={low}, high={high}: expected low < high.")
    if score.numel() == 0:
        return
    least, most = (float(bound) for bound in score.detach().aminmax())
    slack = 1e-5 * (high - low)  # a float32 column that was rescaled may miss its end by a rounding
    if not (low - slack <= least and most <= high + slack):
        raise ValueError(
            f"Scores lie in {least:g}…{most:g}, outside low={low:g}, high={high:g}: give the range of the data."
        )
