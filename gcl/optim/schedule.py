"""Learning-rate factors as functions of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, warmup: int, total: int, floor: float = 0.0) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine down to `floor` at `total` (Loshchilov & Hutter 2017).

    Step 0 is the first optimiser step and already moves: factor 1 / warmup.

    >>> [round(warmup_cosine(s, warmup=2, total=6), 3) for s in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_constant(step: int, *, warmup: int, total: int, floor: float = 0.0) -> float:
    """Linear warm-up, then the full rate.

    >>> [warmup_constant(s, warmup=2, total=6) for s in range(4)]
    [0.5, 1.0, 1.0, 1.0]
    """
    return (step + 1) / warmup if step < warmup else 1.0


def warmup_linear(step: int, *, warmup: int, total: int, floor: float = 0.0) -> float:
    """Linear warm-up, then a straight line down to `floor` at `total`.

    >>> [warmup_linear(s, warmup=0, total=4) for s in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 1 - (1 - floor) * min(1.0, (step - warmup) / max(1, total - warmup))
