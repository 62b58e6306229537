"""What `optim:` in a run's config may say. Imports nothing heavy: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gcl.options import MISSING, mapping, node


@dataclass
class Rule:
    """What parameters whose name matches a pattern get in place of the run's values."""

    rate: float = 1.0
    """Factor on the learning rate."""
    weight_decay: float | None = None
    """Weight decay; null: the run's."""


@dataclass
class OptimConfig:
    """The optimiser, its schedule, and which parameter learns how fast. Patterns are shell wildcards over names."""

    learning_rate: float = MISSING
    """Highest learning rate of the schedule."""
    weight_decay: float = 0.02
    """Decoupled weight decay of matrices; vectors and scalars (norms, biases, the scale) never decay."""
    clip_norm: float | None = 1.0
    """Largest norm of the gradient before a step; null: no clipping."""
    warmup: float = 0.05
    """Linear warm-up: a share of all optimiser steps below 1, from 1 on a number of them."""
    layer_decay: float = 1.0
    """Factor on the learning rate per transformer block below a tower's top."""
    freeze: list[str] = field(default_factory=list)
    """Patterns of parameters that are not trained."""
    rules: dict[str, Rule] = mapping()
    """{pattern: {rate, weight_decay}}; the last pattern that matches a name wins."""
    optimizer: Any = node(MISSING)
    """The optimiser: a `_target_` that takes parameter groups."""
    schedule: Any = node(MISSING)
    """The schedule: a `_target_` of gcl.optim.schedule, `(step, warmup, total) -> factor`."""
