"""Numbers in words: what a change means to someone who does not read intervals for a living."""

from __future__ import annotations

from collections.abc import Sequence

from gcl.retrieval.metrics.statistics import Comparison


def of_hundred(counts: Sequence[int]) -> list[int]:
    """Counts as whole numbers that sum to 100 (largest remainders).

    >>> of_hundred([1, 1, 1])
    [34, 33, 33]
    """
    total = sum(counts)
    exact = [100 * count / total for count in counts]
    whole = [int(share) for share in exact]
    by_remainder = sorted(range(len(counts)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: 100 - sum(whole)]:
        whole[i] += 1
    return whole


def outcome(comparison: Comparison) -> str:
    """
    >>> outcome(Comparison(0.4, 0.5, 0.05, 0.15, 0.001, 200, 126, 40, 34))
    'Of 100 searches, 63 got better, 20 stayed the same and 17 got worse.'
    """
    counts = [comparison.wins, comparison.ties, comparison.losses]
    if comparison.n < 100:
        better, same, worse, of = *counts, comparison.n
    else:
        (better, same, worse), of = of_hundred(counts), 100
    searches = "search" if of == 1 else "searches"
    return f"Of {of} {searches}, {better} got better, {same} stayed the same and {worse} got worse."


def signed(value: float, digits: int = 3) -> str:
    """With a sign, a true minus, and no sign on zero.

    >>> signed(0.1), signed(-0.25), signed(-0.00001)
    ('+0.100', '−0.250', '0.000')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(low: float, high: float, digits: int = 3) -> str:
    return f"{signed(low, digits)} to {signed(high, digits)}"
