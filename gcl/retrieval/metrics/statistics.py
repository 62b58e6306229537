"""Is the difference between two models more than the luck of the queries? Paired: both answered the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FEWEST = 20  # queries; with fewer, an interval says more about the queries than about the models
_SAMPLES = 2000  # of a bootstrap
_ENDS = [(1 - 0.95) / 2, (1 + 0.95) / 2]  # quantiles of an interval
_EXACT = 14  # up to 2^14 sign patterns are all looked at
_VALUES = 1 << 22  # numbers held at once by a resampling


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that resampling the queries gives it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same n queries.

    change = after - before; low, high: its bootstrap interval; p: of the randomisation test; wins, ties, losses:
    queries on which `after` is better, equal, worse.
    """

    before: float
    after: float
    low: float
    high: float
    p: float
    n: int
    wins: int
    ties: int
    losses: int

    @property
    def change(self) -> float:
        return self.after - self.before


def bootstrap(values: np.ndarray, *, samples: int = _SAMPLES, seed: int = 0) -> Interval:
    """95 % percentile bootstrap of the mean (Efron 1979): resamples queries with replacement.

    >>> bootstrap(np.array([1.0, 1.0, 1.0]))
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    values = _clean(values)
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    step = max(1, _VALUES // len(values))
    for start in range(0, samples, step):
        drawn = generator.integers(len(values), size=(min(step, samples - start), len(values)))
        means[start : start + step] = values[drawn].mean(axis=1)
    low, high = np.quantile(means, _ENDS)
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_together(values: np.ndarray, *, seed: int = 0) -> list[Interval]:
    """`bootstrap` of each column of values[Q, C], to rounding the same, in the time of a few: the draws are shared.

    >>> bootstrap_together(np.array([[1.0, 0.0], [1.0, 0.0]]))
    [Interval(mean=1.0, low=1.0, high=1.0), Interval(mean=0.0, low=0.0, high=0.0)]
    """
    columns = [_clean(column) for column in np.asarray(values).T]
    matrix, n = np.stack(columns, axis=1), len(columns[0])
    generator = np.random.default_rng(seed)
    means, step = np.empty((_SAMPLES, len(columns))), max(1, _VALUES // n)
    for start in range(0, _SAMPLES, step):
        count = min(step, _SAMPLES - start)
        drawn = generator.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=count * n).reshape(count, n)
        means[start : start + count] = times @ matrix / n
    low, high = np.quantile(means, _ENDS, axis=0)
    return [Interval(*map(float, each)) for each in zip(matrix.mean(axis=0), low, high, strict=True)]


def randomization_test(difference: np.ndarray, *, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired randomisation test of mean 0 (Fisher 1935; for retrieval Smucker, Allan, Carterette 2007).

    Under the null hypothesis the sign of each query's difference is a coin. With up to 14 differing queries every
    pattern of signs is counted; beyond, `samples` random ones, and p = (1 + hits) / (1 + samples), which is never 0.

    >>> randomization_test(np.array([1.0, 1.0, 1.0]))
    0.25
    """
    difference = _clean(difference)
    difference = difference[difference != 0]
    n = len(difference)
    if n == 0:
        return 1.0
    observed = abs(float(difference.sum())) * (1 - 1e-12)  # equal sums in another order of addition count as equal
    if n <= _EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ difference) >= observed).mean())
    generator = np.random.default_rng(seed)
    hits, step = 0, max(1, _VALUES // n)
    for start in range(0, samples, step):
        signs = generator.integers(2, size=(min(step, samples - start), n), dtype=np.int8) * np.int8(2) - np.int8(1)
        hits += int((np.abs(signs @ difference) >= observed).sum())
    return (1 + hits) / (1 + samples)


def holm(p_values: Mapping[object, float]) -> dict[object, float]:
    """Holm's step-down correction (1979) for testing several hypotheses at once, over metrics and tasks alike.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    corrected: dict[object, float] = {}
    highest = 0.0
    for position, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - position)))
        corrected[key] = highest
    return {key: corrected[key] for key in p_values}


def compare(before: np.ndarray, after: np.ndarray, *, samples: int = 10_000, seed: int = 0) -> Comparison:
    """Two models' values of one metric on the same queries, in the same order."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} queries: a paired comparison needs the same queries in both.")
    difference = _clean(after) - _clean(before)
    interval = bootstrap(difference, samples=min(samples, _SAMPLES), seed=seed)
    # fmt: off
    return Comparison(
        before=float(np.mean(before)), after=float(np.mean(after)), low=interval.low, high=interval.high,
        p=randomization_test(difference, samples=samples, seed=seed), n=len(difference),
        wins=int((difference > 0).sum()), ties=int((difference == 0).sum()), losses=int((difference < 0).sum()),
    )
    # fmt: on


def _clean(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("There is no query to compare.")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite numbers.")
    return values
