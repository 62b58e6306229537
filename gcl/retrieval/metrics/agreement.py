"""Grades that several people gave to the same things: how far they agree, and the one grade that they make together.

Grades are ordinal (4 is more than 3, nobody says how much), so both use their order alone.
"""

from __future__ import annotations

import numpy as np


def krippendorff_alpha(grades: np.ndarray) -> float:
    """Krippendorff's alpha for ordinal data: 1 is full agreement, 0 what chance would give, below 0 is worse.

    grades[J, U]: of judges and units, NaN where a judge did not grade a unit; units with one grade say nothing.
    alpha = 1 - D_o / D_e (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability",
    https://repository.upenn.edu/asc_papers/43): the observed disagreement of pairs within a unit over that of all
    pairs. Two ordinal grades differ by the square of the number of grades given between them, both ends counted half.
    NaN where no unit has two grades, or all grades are the same one.

    >>> round(krippendorff_alpha(np.array([[1, 2, 3, 0], [1, 2, 4, np.nan]])), 3)
    0.949
    """
    values, code = np.unique(grades[~np.isnan(grades)], return_inverse=True)
    count = np.zeros((grades.shape[1], len(values)))  # [U, V] how often a unit got a value
    np.add.at(count, (np.nonzero(~np.isnan(grades))[1], code.reshape(-1)), 1)
    given = count.sum(axis=1)
    count, given = count[given > 1], given[given > 1, None]
    share = count / (given - 1)
    together = share.T @ count - np.diag(share.sum(axis=0))  # [V, V] coincidences of two judges within a unit
    total = count.sum(axis=0)
    place = np.cumsum(total) - total / 2
    distance = (place[:, None] - place) ** 2
    expected = (np.outer(total, total) * distance).sum()
    if not expected:
        return float("nan")
    return float(1 - (total.sum() - 1) * (together * distance).sum() / expected)


def median_grade(grades: np.ndarray) -> np.ndarray:
    """One grade for each unit, grades[J, U] -> [U]: the median, of two middle ones the lower; NaN where none is given.

    The median of ordinal grades needs no distance between them, and an outlier among three judges moves nothing.

    >>> median_grade(np.array([[4, 2, np.nan], [0, 3, np.nan], [3, np.nan, np.nan]]))
    array([ 3.,  2., nan])
    """
    given = (~np.isnan(grades)).sum(axis=0)
    middle = np.maximum(given - 1, 0) // 2
    return np.sort(grades, axis=0)[middle, np.arange(grades.shape[1])]
