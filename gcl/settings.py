"""Everything a run's config may say, typed: the ground that conf/ is composed on. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gcl.data.catalog import Catalog
from gcl.model.settings import ModelConfig

MISSING: Any = "???"  # OmegaConf's word for a value that a YAML or the command line must give


class Form(Enum):
    softmax = "softmax"
    sigmoid = "sigmoid"


class Direction(Enum):
    both = "both"
    query = "query"
    document = "document"


class Normalizer(Enum):
    weight = "weight"
    count = "count"


class Repeat(Enum):
    """What another pair of the same query (or the same document) is to this one."""

    ignore = "ignore"
    negative = "negative"
    positive = "positive"


class NonFinitePolicy(Enum):
    """What happens at a step whose loss or gradient is no number. It never reaches the weights."""

    stop = "stop"
    skip = "skip"
    rollback = "rollback"


@dataclass
class TermConfig:
    """One contrast of the loss: a part of the query ("fused" or a field) against a part of the document."""

    query: str = "fused"
    document: str = "fused"
    weight: float = 1.0


@dataclass
class LossConfig:
    """Generalized contrastive loss. scale and bias null: the checkpoint's own."""

    form: Form = Form.softmax
    score_to_weight: Any = MISSING
    direction: Direction = Direction.both
    normalizer: Normalizer = Normalizer.weight
    same_query: Repeat = Repeat.ignore
    same_document: Repeat = Repeat.ignore
    terms: list[TermConfig] = field(default_factory=lambda: [TermConfig()])
    scale: float | None = None
    bias: float | None = None
    learn_scale: bool = True
    learn_bias: bool = True
    max_scale: float = 100.0
    tile: Any = "auto"


@dataclass
class RuleConfig:
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
    rules: dict[str, RuleConfig] = field(default_factory=dict)
    optimizer: Any = MISSING
    schedule: Any = MISSING


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
    drop_last: bool = False
    cache_features: bool = True
    augment: bool = False
    compile: Any = False
    unique: str | None = None
    documents_per_query: int | None = None
    resume: str | None = None
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
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """Which tasks and metrics; monitor is the metric that chooses the best checkpoint (mean over the dev tasks)."""

    metrics: list[str] = MISSING
    headline: list[str] = MISSING
    monitor: str = "ndcg@10"
    tasks: list[str] | None = None
    monitor_tasks: list[str] | None = None
    depth: int = 1000
    batch_size: int = 256
    part: str = "test"


@dataclass
class RunConfig:
    """A run, complete. `cache_dir` holds prepared catalogs and cached features, shared by all runs."""

    data: Catalog = field(default_factory=Catalog)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    logger: Any = None
    callbacks: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    run_dir: str | None = None
    cache_dir: str = "prepared"
    run: str | None = None
    models: list[str] = field(default_factory=list)
    out: str | None = None
