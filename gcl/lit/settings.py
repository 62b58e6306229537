"""What `train:` and `trainer:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gcl.options import MISSING, node, path


class NonFinitePolicy(Enum):
    """What happens at a step whose loss or gradient is no number. It never reaches the weights."""

    stop = "stop"
    skip = "skip"
    rollback = "rollback"


@dataclass
class TrainConfig:
    """How long and how wide. batch_size counts pairs over all GPUs: it is the contrastive batch.

    spike_factor: a loss or gradient norm above this many times its running median is recorded with its batch.
    loader_patience: seconds without a batch after which the watchdog speaks. allow_change: keys that a resumed run may
    have other values of than it began with. compile: true, or a backend's name for torch.compile. micro_batch: rows,
    or "auto" for the most that fit.
    """

    batch_size: int = MISSING
    epochs: float = MISSING
    max_steps: int | None = None
    micro_batch: Any = None
    accumulate: int = 1
    checkpoint_every: int | None = None
    validate_every: Any = 1.0
    patience: int | None = None
    workers: int = 2
    cache_features: bool = True
    augment: bool = False
    compile: Any = False
    resume: str | None = path()
    allow_change: list[str] = field(default_factory=list)
    nonfinite: NonFinitePolicy = NonFinitePolicy.stop
    max_skips: int = 10
    spike_factor: float | None = 5.0
    loader_patience: float | None = 60.0


@dataclass
class TrainerConfig:
    """Where it runs: the arguments of lightning.Trainer that name machines; `options` passes any other on."""

    accelerator: str = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    strategy: Any = "auto"
    precision: Any = "auto"
    log_every_n_steps: int = 5
    options: dict[str, Any] = node({})
