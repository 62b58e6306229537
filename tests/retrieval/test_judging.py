"""What is judged first, how far judges agree, and the grade they make together."""

import itertools
import math

import numpy as np
import pytest

from gcl.retrieval.analysis.pool import in_order, pooled
from gcl.retrieval.metrics.agreement import krippendorff_alpha, median_grade
from gcl.retrieval.tasks.task import JudgedPairs

NONE = math.nan
# The example of Krippendorff 2011, section E: four observers, twelve units; for ordinal data alpha is 0.815.
PUBLISHED = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
])  # fmt: skip


def slow_alpha(grades):
    """The definition, pair by pair."""
    units = [[g for g in unit if not math.isnan(g)] for unit in grades.T.tolist()]
    units = [unit for unit in units if len(unit) > 1]
    pairable = [g for unit in units for g in unit]
    often = {value: pairable.count(value) for value in sorted(set(pairable))}

    def distance(a, b):
        low, high = sorted((a, b))
        return (sum(n for value, n in often.items() if low <= value <= high) - (often[a] + often[b]) / 2) ** 2

    n = len(pairable)
    observed = sum(distance(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)) / n
    expected = sum(distance(a, b) for a, b in itertools.permutations(pairable, 2)) / (n * (n - 1))
    return 1 - observed / expected


def test_alpha_is_the_published_one_and_that_of_the_definition():
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(0.815, abs=5e-4)
    random = np.random.default_rng(0)
    for _ in range(20):
        grades = random.integers(0, 5, (3, 30)) + 0.0
        grades[random.random(grades.shape) < 0.4] = NONE
        assert krippendorff_alpha(grades) == pytest.approx(slow_alpha(grades), abs=1e-12)


def test_alpha_knows_agreement_from_chance_and_from_no_knowledge():
    random = np.random.default_rng(1)
    same = np.repeat(random.integers(0, 5, (1, 500)), 2, axis=0) + 0.0
    assert krippendorff_alpha(same) == 1
    assert abs(krippendorff_alpha(random.integers(0, 5, (2, 5000)) + 0.0)) < 0.05
    near, far = same.copy(), same.copy()
    near[1, :50] = np.clip(near[1, :50] + 1, 0, 4)
    far[1, :50] = 4 - far[1, :50]
    assert 1 > krippendorff_alpha(near) > krippendorff_alpha(far)
    for unknown in (np.full((2, 3), NONE), np.array([[1.0, NONE], [NONE, 2.0]]), np.full((2, 4), 3.0)):
        assert math.isnan(krippendorff_alpha(unknown))


def test_the_median_is_one_of_the_grades_given_and_at_most_half_lie_on_either_side():
    grades = np.random.default_rng(2).integers(0, 5, (5, 200)) + 0.0
    grades[np.random.default_rng(3).random(grades.shape) < 0.5] = NONE
    for unit, median in zip(grades.T, median_grade(grades), strict=True):
        given = unit[~np.isnan(unit)]
        if len(given):
            assert median in given
            assert (given < median).sum() <= len(given) / 2 and (given > median).sum() <= len(given) / 2
        else:
            assert math.isnan(median)


def test_the_pool_is_what_any_model_shows_and_nobody_judged_the_largest_difference_first():
    random = np.random.default_rng(4)
    queries, documents, depth = 20, 30, 5
    rows = [np.array([random.permutation(documents)[:8] for _ in range(queries)]) for _ in range(3)]
    rows[1][3, 2:] = -1  # a list that ends early
    judged = JudgedPairs(np.repeat(np.arange(queries), 3), np.tile([0, 1, 2], queries), np.ones(3 * queries))
    pool = pooled(rows, judged, documents=documents, depth=depth)
    expected = {(q, int(d)) for row in rows for q in range(queries) for d in row[q, :depth] if d > 2}
    given = list(zip(pool.query.tolist(), pool.document.tolist(), strict=True))
    assert set(given) == expected and len(given) == len(expected)
    for (query, document), moves in zip(given, pool.moves, strict=True):
        places = [np.flatnonzero(row[query, :depth] == document) for row in rows]
        weights = [1 / math.log2(place[0] + 2) if len(place) else 0.0 for place in places]
        assert moves == pytest.approx(max(weights) - min(weights))
    groups = [list(group) for _, group in itertools.groupby(zip(pool.query, pool.moves, strict=True), lambda p: p[0])]
    assert len(groups) == len(set(pool.query.tolist())), "a query's pairs stay together"
    totals = [sum(moves for _, moves in group) for group in groups]
    assert totals == sorted(totals, reverse=True)
    assert all(group == sorted(group, key=lambda pair: -pair[1]) for group in groups)


def test_one_model_alone_is_judged_from_the_top():
    pool = pooled([np.array([[7, 3, 5]])], JudgedPairs([], [], []), documents=9, depth=3)
    assert pool.document.tolist() == [7, 3, 5] and not pool.moves.any()


def test_judgments_that_are_complete_leave_nothing_to_judge():
    everything = JudgedPairs([0], [7], [1], complete=True)
    pool = pooled([np.array([[7, 3, 5]])], everything, documents=9, depth=3)
    assert not len(pool.query) and in_order([pool, pool]) == []
