"""A run's config, complete and typed: the ground that conf/ is composed on. Each room has the settings it acts on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gcl.data.batches.settings import PlanConfig
from gcl.data.catalog import Catalog
from gcl.lit.settings import TrainConfig, TrainerConfig
from gcl.loss.settings import LossConfig
from gcl.model.settings import ModelConfig
from gcl.optim.settings import OptimConfig
from gcl.options import node, path
from gcl.retrieval.settings import EvaluateConfig


@dataclass
class RunConfig:
    """A run, complete. `cache_dir` holds prepared catalogs and cached features, shared by all runs."""

    data: Catalog = field(default_factory=Catalog)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    logger: Any = node()
    callbacks: dict[str, Any] = node({})
    seed: int = 0
    run_dir: str | None = path()
    cache_dir: str = path("prepared")
    run: str | None = path()
    models: list[str] = field(default_factory=list)
    out: str | None = path()
