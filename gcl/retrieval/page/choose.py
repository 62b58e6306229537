"""Which queries are shown in full: the worst changes, the best, and some at random, in turn."""

from __future__ import annotations

import numpy as np


def chosen(change: np.ndarray, count: int, *, seed: int = 0) -> list[int]:
    """`count` of the n queries of change[n]: of every five two worst, two best and one drawn from the rest.

    The order is one of importance: a page that must be smaller drops from the end and keeps the mixture. Queries that
    did not change are only drawn at random.

    >>> chosen(np.array([0.0, -0.5, 0.3, 0.9, -0.1]), 4)
    [1, 3, 4, 2]
    """
    count = min(count, len(change))
    ranked = np.argsort(change, kind="stable")
    worst = [int(i) for i in ranked if change[i] < 0]
    best = [int(i) for i in ranked[::-1] if change[i] > 0]
    drawn = [int(i) for i in np.random.default_rng(seed).permutation(len(change))]
    taken: dict[int, None] = {}
    sources = [iter(worst), iter(best), iter(worst), iter(best), iter(drawn)]
    while len(taken) < count:
        for source in sources:
            following = next((i for i in source if i not in taken), None)
            if following is not None and len(taken) < count:
                taken[following] = None
    return list(taken)
