"""What `optim:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gcl.options import MISSING, mapping, node


@dataclass
class RuleConfig:
    """Parameters that a pattern names: their share of the learning rate, and their weight decay."""

    rate: float = 1.0
    weight_decay: float | None = None


@dataclass
class OptimConfig:
    """optimizer and schedule are nodes; freeze and rules are patterns over parameter names (shell wildcards)."""

    learning_rate: float = MISSING
    weight_decay: float = 0.02
    clip_norm: float | None = 1.0
    warmup: float = 0.05
    layer_decay: float = 1.0
    freeze: list[str] = field(default_factory=list)
    rules: dict[str, RuleConfig] = mapping()
    optimizer: Any = node(MISSING)
    schedule: Any = node(MISSING)
