"""A run's config, complete and typed: the ground that conf/ is composed on. Each room has the settings it acts on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gcl.data.batches.settings import PlanConfig
from gcl.data.catalog import Catalog
from gcl.lit.settings import TrainConfig, TrainerConfig
from gcl.loss.settings import LossConfig, TeacherConfig
from gcl.model.settings import ModelConfig
from gcl.optim.settings import OptimConfig
from gcl.options import mapping, node, number, path
from gcl.retrieval.settings import EvaluateConfig


@dataclass
class RunConfig:
    """A run, complete."""

    data: Catalog = field(default_factory=Catalog)
    """The catalog: its tables, which columns make a query and a document, how it is split, its tasks."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model that is fine-tuned or measured, and the recipe it is usually fine-tuned with."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The contrastive loss, and the function that turns scores into weights."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """A model or a reranker whose opinion the loss learns from, besides the pairs."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer, schedule, and what is frozen."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    """Which pairs meet in a batch."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How long and with which batch it is trained, and when it is validated and saved."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """The machines it runs on: arguments of lightning.Trainer."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Tasks and metrics, during training and after it."""
    logger: Any = node()
    """A Lightning logger, as a `_target_` with its arguments; null: metrics.csv alone."""
    callbacks: dict[str, Any] = node({})
    """Additional Lightning callbacks by name, each a `_target_` with its arguments."""
    seed: int = number(0, least=0, most=2**32 - 1)
    """Seed of the weights of models from scratch, of the order of pairs and of augmentation."""
    name: str | None = None
    """What the run is called: its folder is outputs/<data>/<model>/<name>; null: the time."""
    run_dir: str | None = path()
    """The run folder, wherever it is; null: outputs/<data>/<model>/<name>."""
    cache_dir: str = path("prepared")
    """The folder of prepared catalogs, cached features and embeddings, shared by all runs."""
    run: str | None = path()
    """A run folder whose base and best model are measured; gcl embed takes the best, the doctor its catalog."""
    merged: dict[str, float] = mapping(above=0, most=1)
    """Written by gcl merge: the runs whose weights were averaged and the share of each."""
    models: list[str] = field(default_factory=list)
    """Models to measure, each compared with the first: names of conf/model, run:<folder>, local-dir:<folder>,
    hf-hub:<owner>/<name>, open_clip:<architecture>/<weights>, embeddings:<file>.parquet, trec:<file>. Tables call each
    what you put before it: ours=run:<folder>."""
    out: str | None = path()
    """The folder that a command writes; null: next to what it measured."""
    trust: list[str] = field(default_factory=list)
    """Packages whose objects the config of a run folder may name, for example [my_package]."""
