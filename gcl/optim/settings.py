"""What `optim:` in a run's config may say. Imports nothing heavy: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gcl.options import MISSING, Range, check_given, mapping, node, number


@dataclass
class Rule:
    """What parameters whose name matches a pattern get in place of the run's values."""

    rate: float = number(1.0, least=0, most=1e6)
    """Factor on the learning rate."""
    weight_decay: float | None = number(None, least=0, most=1e3)
    """Weight decay; null: the run's."""


@dataclass
class OptimConfig:
    """The optimiser, its schedule, and which parameter learns how fast. Patterns are shell wildcards over names."""

    learning_rate: float = number(MISSING, above=0, most=1)
    """Highest learning rate of the schedule."""
    weight_decay: float = number(0.02, least=0, most=1e3)
    """Decoupled weight decay of matrices; vectors and scalars (norms, biases, the scale) never decay."""
    clip_norm: float | None = number(1.0, above=0)
    """Largest norm of the gradient before a step; null: no clipping."""
    warmup: float = number(0.05, least=0)
    """Linear warm-up: a share of all optimiser steps below 1, from 1 on a number of them."""
    layer_decay: float = number(1.0, above=0, most=1)
    """Factor on the learning rate per transformer block below a tower's top."""
    freeze: list[str] = field(default_factory=list)
    """Patterns of parameters that are not trained."""
    rules: dict[str, Rule] = mapping()
    """{pattern: {rate, weight_decay}}; the last pattern that matches a name wins."""
    optimizer: Any = node(MISSING)
    """The optimiser: a `_target_` that takes parameter groups."""
    schedule: Any = node(MISSING)
    """The schedule: a `_target_` of gcl.optim.schedule, `(step, warmup, total) -> factor`."""


_OPTIMIZER = {"betas": Range(least=0, below=1), "eps": Range(least=0, most=1), "momentum": Range(least=0, below=1)}
_SCHEDULE = {"floor": Range(least=0, most=1)}


def check_optim(optim: OptimConfig, max_steps: int | None) -> None:
    """Raises ValueError, with the key, for numbers that cannot be, or not together. max_steps: train.max_steps."""
    check_given("optim.optimizer.", optim.optimizer, _OPTIMIZER)
    check_given("optim.schedule.", optim.schedule, _SCHEDULE)
    if optim.learning_rate * optim.weight_decay >= 1:
        raise ValueError(
            f"optim.weight_decay={optim.weight_decay} with optim.learning_rate={optim.learning_rate}: each step takes "
            "their product off every weight, and 1 leaves nothing: lower one of them."
        )
    if max_steps is not None:
        check_warmup(optim.warmup, max_steps)


def check_warmup(warmup: float, steps: int) -> None:
    """Raises ValueError for a warm-up of more steps than the run has: it would never get to its learning rate."""
    if warmup > max(steps, 1):
        raise ValueError(
            f"optim.warmup={warmup:g}: the run has {steps:,} optimiser steps and would never get to its learning rate. "
            "Below 1 it is a share of the steps."
        )
