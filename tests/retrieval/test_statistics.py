"""Intervals and tests against enumeration, scipy and simulation."""

import itertools

import numpy as np
import pytest

from gcl.retrieval.metrics.statistics import bootstrap, compare, holm, randomization_test


def enumerated(difference):
    sums = [
        abs(sum(s * d for s, d in zip(signs, difference, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(difference))
    ]
    return np.mean([total >= abs(sum(difference)) - 1e-12 for total in sums])


@pytest.mark.parametrize("seed", range(4))
def test_few_queries_are_enumerated(seed):
    difference = np.round(np.random.default_rng(seed).normal(0.2, 1, 9), 1)
    assert randomization_test(difference) == pytest.approx(enumerated(difference))
    with_ties = np.concatenate([difference, np.zeros(40)])
    assert randomization_test(with_ties) == pytest.approx(enumerated(difference))


def test_many_queries_agree_with_scipy_and_with_themselves():
    stats = pytest.importorskip("scipy.stats")
    difference = np.random.default_rng(1).normal(0.15, 1, 200)
    p = randomization_test(difference, samples=20_000, seed=0)
    theirs = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=20_000, rng=2)
    assert p == pytest.approx(theirs.pvalue, abs=0.01)
    assert p == randomization_test(difference, samples=20_000, seed=0)
    assert randomization_test(np.ones(50), samples=99) == pytest.approx(0.01)  # the least it can say
    assert randomization_test(np.zeros(5)) == 1.0


def test_the_test_is_level_when_there_is_no_difference():
    generator = np.random.default_rng(0)
    p = [randomization_test(generator.normal(size=30), samples=500, seed=s) for s in range(300)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = 0
    for trial in range(300):
        interval = bootstrap(generator.exponential(1.0, 80), samples=500, seed=trial)
        assert interval.low <= interval.mean <= interval.high
        inside += interval.low <= 1.0 <= interval.high
    assert 0.88 < inside / 300 < 0.98


def test_holm_equals_the_definition():
    p = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.005, "e": 0.6}
    assert holm(p) == pytest.approx({"d": 0.025, "a": 0.04, "b": 0.06, "c": 0.06, "e": 0.6})
    assert holm({}) == {} and holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_comparison_counts_every_query():
    before, after = np.array([0.5, 0.5, 0.5, 0.0]), np.array([0.75, 0.5, 0.25, 1.0])
    found = compare(before, after)
    assert (found.wins, found.ties, found.losses, found.n) == (2, 1, 1, 4)
    assert found.change == pytest.approx(0.25) and found.low <= 0.25 <= found.high
    assert (found.before, found.after) == (0.375, 0.625)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="3 and 2 queries"):
        compare(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="no query"):
        bootstrap(np.zeros(0))
    with pytest.raises(ValueError, match="1 of 2 values"):
        bootstrap(np.array([0.0, np.nan]))


def test_bootstrap_of_several_metrics_at_once_is_that_of_each(monkeypatch):
    from gcl.retrieval.metrics import statistics

    values = np.random.default_rng(0).random((57, 5))
    monkeypatch.setattr(statistics, "_VALUES", 57 * 300)  # several blocks of draws
    for column, interval in zip(values.T, statistics.bootstrap_together(values, seed=3), strict=True):
        alone = statistics.bootstrap(column, seed=3)
        assert [interval.mean, interval.low, interval.high] == pytest.approx(
            [alone.mean, alone.low, alone.high], abs=1e-12
        )
    with pytest.raises(ValueError, match="not finite"):
        statistics.bootstrap_together(np.array([[1.0, np.nan]]))
