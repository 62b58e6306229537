"""Score-to-weight functions: `score[B] -> weight[B]` (Zhu, Jung and Clark 2024, https://arxiv.org/abs/2404.08535).

A score says how good a (query, document) pair is, higher is better; a weight says how much the pair counts in the loss.
`low` and `high` are the ends of the scores' range, 1 and 100 by default as in Marqo-GS-10M, and every function gives 1
to the best score. A score outside the range is refused: a wrong range would otherwise flatten all weights without a
word.

The functions of the rank see a score as a place in a result list: `high` is place 1, `low` is place `ranks`, and equal
steps of score are equal steps of place. For scores 1..100 and 100 ranks the score s is place 101 - s.

In a config: `_target_: gcl.loss.weight.reciprocal`, `_partial_: true`, and the parameters that differ. A new function
is one record in FUNCTIONS at the end. Imports no torch: ranges are checked before it is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def constant(score: Tensor, value: float = 1.0) -> Tensor:
    """weight[B] = value: every pair counts the same, which is plain CLIP or SigLIP. Any score is allowed.

    >>> import torch
    >>> constant(torch.tensor([1.0, 50.0, 100.0]))
    tensor([1., 1., 1.])
    """
    return score.new_full(score.shape, value)


def identity(score: Tensor) -> Tensor:
    """weight[B] = score[B]: the column already is the weight, in its own range; the loss refuses negative ones.

    >>> import torch
    >>> identity(torch.tensor([0.0, 0.25, 7.0]))
    tensor([0.0000, 0.2500, 7.0000])
    """
    return score


def linear(score: Tensor, low: float = 1.0, high: float = 100.0, floor: float = 0.01) -> Tensor:
    """weight[B] = a straight line from `floor` at `low` to 1 at `high`; by default score / 100, so 0.01 to 1.

    >>> import torch
    >>> linear(torch.tensor([1.0, 50.0, 100.0]))
    tensor([0.0100, 0.5000, 1.0000])
    """
    return power(score, 1.0, low=low, high=high, floor=floor)


def power(score: Tensor, exponent: float = 2.0, low: float = 1.0, high: float = 100.0, floor: float = 0.01) -> Tensor:
    """weight[B] = floor + (1 - floor) * u^exponent, u = (score - low) / (high - low): `floor` at `low`, 1 at `high`.

    An exponent above 1 favours the best scores, one below 1 lifts the middle.

    >>> import torch
    >>> power(torch.tensor([1.0, 50.5, 100.0]), 2.0)
    tensor([0.0100, 0.2575, 1.0000])
    """
    if not exponent > 0:
        raise ValueError(f"power: exponent is {exponent}; expected a number above 0.")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is {floor}; expected the lowest score's weight, from 0 to 1.")
    return floor + (1 - floor) * _share(score, low, high) ** exponent


def reciprocal(score: Tensor, low: float = 1.0, high: float = 100.0, ranks: float = 100.0) -> Tensor:
    """weight[B] = 1 / rank: 1 at `high`, 1 / ranks at `low`; by default 1, 1/2, 1/3 for 100, 99, 98, and 0.01 for 1.

    >>> import torch
    >>> reciprocal(torch.tensor([1.0, 99.0, 100.0]))
    tensor([0.0100, 0.5000, 1.0000])
    """
    return 1 / _rank(score, low, high, ranks)


def inverse_sqrt(score: Tensor, low: float = 1.0, high: float = 100.0, ranks: float = 100.0) -> Tensor:
    """weight[B] = 1 / sqrt(rank): 1 at `high`, 1 / sqrt(ranks) at `low`, by default 0.1.

    >>> import torch
    >>> inverse_sqrt(torch.tensor([1.0, 97.0, 100.0]))
    tensor([0.1000, 0.5000, 1.0000])
    """
    return _rank(score, low, high, ranks).rsqrt()


def log(score: Tensor, low: float = 1.0, high: float = 100.0, ranks: float = 100.0) -> Tensor:
    """weight[B] = 1 / log2(1 + rank), the discount of nDCG: 1 at `high`, 1 / log2(1 + ranks) at `low`, by default
    0.1502.

    >>> import torch
    >>> log(torch.tensor([1.0, 98.0, 100.0]))
    tensor([0.1502, 0.5000, 1.0000])
    """
    return 1 / (1 + _rank(score, low, high, ranks)).log2()


def piecewise(
    score: Tensor, points: Sequence[tuple[float, float]] = ((1.0, 0.01), (50.0, 0.1), (90.0, 0.5), (100.0, 1.0))
) -> Tensor:
    """weight[B] = straight lines through `points`, each (score, weight); two points of one score make a step (the later
    holds there).

    The first and the last point are the ends of the range: 0.01 at 1 and 1 at 100 by default.

    >>> import torch
    >>> piecewise(torch.tensor([1.0, 50.0, 70.0, 100.0]))
    tensor([0.0100, 0.1000, 0.3000, 1.0000])
    >>> piecewise(torch.tensor([0.0, 1.0, 2.0, 3.0]), points=[(0, 0), (2, 0), (2, 1), (3, 1)])
    tensor([0., 0., 1., 1.])
    """
    starts = [point[0] for point in points]
    if len(points) < 2 or starts != sorted(starts) or not starts[0] < starts[-1]:
        raise ValueError(
            f"piecewise: points are {points}; expected at least two (score, weight) in ascending order of score."
        )
    _check_scores(score, starts[0], starts[-1])
    knots, values = score.new_tensor(starts), score.new_tensor([point[1] for point in points])
    right = (knots <= score[..., None]).sum(-1).clamp(1, len(points) - 1)  # the first knot beyond the score
    left = right - 1
    width = knots[right] - knots[left]
    share = ((score - knots[left]) / width.where(width > 0, 1.0)).where(width > 0, 1.0)
    return values[left].lerp(values[right], share.clamp(0, 1))


def _share(score: Tensor, low: float, high: float) -> Tensor:
    """Where score[B] lies between low (0) and high (1)."""
    _check_scores(score, low, high)
    return ((score - low) / (high - low)).clamp(0, 1)


def _rank(score: Tensor, low: float, high: float, ranks: float) -> Tensor:
    """score[B] as a place in a list: 1 at high, `ranks` at low."""
    if not ranks >= 1:
        raise ValueError(f"ranks is {ranks}; expected a number of at least 1.")
    _check_scores(score, low, high)
    return (1 + (high - score) * ((ranks - 1) / (high - low))).clamp(1, ranks)


def _check_scores(score: Tensor, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"The range of scores is low={low}, high={high}; expected low < high.")
    if score.numel():
        least, most = (float(bound) for bound in score.detach().aminmax())
        if not _inside(least, most, low, high):
            raise ValueError(
                f"Scores lie in {least:g}…{most:g}, outside low={low:g}, high={high:g}: give the range of the data."
            )


def _inside(least: float, most: float, low: float, high: float) -> bool:
    slack = 1e-5 * (high - low)  # a float32 column that was rescaled may miss its end by a rounding
    return low - slack <= least and most <= high + slack


@dataclass(frozen=True)
class WeightFunction:
    """A score-to-weight function: what a config names it by, and a line about it for people."""

    function: Callable[..., Tensor]
    explanation: str

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def target(self) -> str:
        """Its `_target_` in a config."""
        return f"{self.function.__module__}.{self.name}"

    @property
    def defaults(self) -> dict[str, Any]:
        """{parameter: default}."""
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def range(self, parameters: Mapping[str, Any]) -> tuple[float, float] | None:
        """The lowest and the highest score that it takes with these parameters; None: any score.

        >>> FUNCTIONS["linear"].range({"high": 5.0})
        (1.0, 5.0)
        """
        given = self.defaults | dict(parameters)
        if "points" in given:
            return float(given["points"][0][0]), float(given["points"][-1][0])
        return (float(given["low"]), float(given["high"])) if "low" in given else None


FUNCTIONS = {
    record.name: record
    for record in (
        WeightFunction(constant, "every pair counts the same: plain CLIP or SigLIP"),
        WeightFunction(identity, "the score is the weight already"),
        WeightFunction(linear, "a straight line from `floor` for the lowest score to 1 for the highest"),
        WeightFunction(power, "the same line raised to `exponent`: above 1 favours the best scores"),
        WeightFunction(reciprocal, "1 / rank, with the highest score at rank 1 and the lowest at `ranks`"),
        WeightFunction(inverse_sqrt, "1 / sqrt(rank)"),
        WeightFunction(log, "1 / log2(1 + rank), the discount of nDCG"),
        WeightFunction(piecewise, "straight lines through `points`, each (score, weight)"),
    )
}


def check_range(node: Mapping[str, Any], least: float, most: float) -> None:
    """node: `loss.score_to_weight` of a config. Raises ValueError if scores from `least` to `most` are outside the
    range of the function that it names. Somebody's own function takes any score.

    >>> check_range({"_target_": "gcl.loss.weight.log", "high": 3.0}, 1.0, 5.0)
    Traceback (most recent call last):
    ...
    ValueError: The training scores lie in 1 … 5, but log turns 1 … 3 into weights: set loss.score_to_weight.low=1 \
loss.score_to_weight.high=5, or loss=constant.
    """
    record = next((record for record in FUNCTIONS.values() if record.target == node["_target_"]), None)
    ends = record and record.range({key: value for key, value in node.items() if not key.startswith("_")})
    if not record or not ends or _inside(least, most, *ends):
        return
    cure = (
        f"let loss.score_to_weight.points begin at {least:g} and end at {most:g}"
        if "points" in record.defaults
        else f"set loss.score_to_weight.low={least:g} loss.score_to_weight.high={most:g}"
    )
    raise ValueError(
        f"The training scores lie in {least:g} … {most:g}, but {record.name} turns {ends[0]:g} … {ends[1]:g} into "
        f"weights: {cure}, or loss=constant."
    )


_LEAST, _MOST = 1e-30, 1e30  # weights between them can be multiplied and added up in float32


def check_weights(function: Callable[[Tensor], Tensor], score: Any, *, probabilities: bool = False) -> None:
    """score: an array of all scores. Raises ValueError if their weights cannot be computed with in float32: only their
    ratios count, so nobody needs weights that overflow or vanish. probabilities: or if one is above 1.

    >>> check_weights(identity, [1.0, 1e35])
    Traceback (most recent call last):
    ...
    ValueError: The score 1e+35 gets the weight 1e+35, which float32 cannot compute with (1e-30 … 1e+30, or 0): only \
ratios of weights count, so scale the scores, or choose another loss.score_to_weight.
    """
    import torch

    scores = torch.as_tensor(score, dtype=torch.float64).unique()
    if not len(scores):
        return
    weights, single = function(scores).double(), function(scores.float()).double()
    largest, smallest = torch.maximum(weights.abs(), single.abs()), torch.minimum(weights.abs(), single.abs())
    bad = ~(largest <= _MOST) | ((smallest < _LEAST) & (weights != 0))
    if bad.any():
        place = int(bad.int().argmax())
        raise ValueError(
            f"The score {float(scores[place]):g} gets the weight {float(weights[place]):g}, which float32 cannot "
            f"compute with ({_LEAST:g} … {_MOST:g}, or 0): only ratios of weights count, so scale the scores, or "
            "choose another loss.score_to_weight."
        )
    if probabilities and float(weights.max()) > 1 + 1e-5:
        raise ValueError(
            f"The score {float(scores[weights.argmax()]):g} gets the weight {float(weights.max()):g}, but with "
            "loss.target=sigmoid weights are probabilities, from 0 to 1: choose another loss.score_to_weight."
        )
    if not (weights > 0).any():
        raise ValueError("Every training score gets the weight 0, so nothing is learned: see loss.score_to_weight.")
