"""Numbers in words: what a change means to someone who does not read intervals for a living."""

from __future__ import annotations

from gcl.retrieval.metrics.statistics import Comparison


def outcome(comparison: Comparison) -> str:
    """
    >>> outcome(Comparison(0.4, 0.5, 0.05, 0.15, 0.001, 112, 102, 1, 9))
    '102 of 112 searches got better, 9 worse, 1 stayed the same'
    """
    c = comparison
    searches = "1 search" if c.n == 1 else f"{c.n:,} searches"
    return f"{c.wins:,} of {searches} got better, {c.losses:,} worse, {c.ties:,} stayed the same"


def signed(value: float, digits: int = 3) -> str:
    """With a sign, a true minus, and no sign on zero.

    >>> signed(0.1), signed(-0.25), signed(-0.00001)
    ('+0.100', '−0.250', '0.000')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(low: float, high: float, digits: int = 3) -> str:
    return f"{signed(low, digits)} to {signed(high, digits)}"
