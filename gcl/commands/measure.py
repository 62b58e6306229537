"""Measuring a model on a prepared catalog: the one call behind validation, train.py's tables and evaluate.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.lock import locked
from gcl.data.prepared import Prepared
from gcl.model.dual_encoder import DualEncoder
from gcl.model.features import cached_features
from gcl.retrieval.evaluate import TaskResult, evaluate
from gcl.retrieval.task import RetrievalTask, from_prepared

Features = Mapping[str, Mapping[str, np.ndarray]]  # side -> field -> one row a record


@dataclass
class Measurement:
    """Which tasks, metrics and settings measure a model on a prepared catalog. Tasks are opened once and kept."""

    prepared: Prepared
    metrics: Sequence[str]
    tasks: Sequence[str] | None = None
    batch_size: int = 256
    workers: int = 0
    features: Features = field(default_factory=dict)
    _opened: dict[str, list[RetrievalTask]] = field(default_factory=dict, repr=False)

    def opened(self, part: str) -> list[RetrievalTask]:
        """The tasks that have a query in this part."""
        if part not in self._opened:
            counts = self.prepared.counts["tasks"]
            unknown = [name for name in self.tasks or () if name not in counts]
            if unknown:
                raise ValueError(f"evaluate.tasks: there is no task {unknown[0]!r}; there is {', '.join(counts)}.")
            names = [name for name in self.tasks or counts if counts[name][part]["queries"]]
            self._opened[part] = [from_prepared(self.prepared, name, part) for name in names]
        return self._opened[part]

    def __call__(
        self, encoder: DualEncoder, part: str, metrics: Sequence[str] | None = None, *, k: int | None = None
    ) -> dict[str, TaskResult]:
        """{task: TaskResult} of one part, names without the part."""
        results = evaluate(
            encoder, self.opened(part), metrics or self.metrics, k=k, features=self.features,
            batch_size=self.batch_size, workers=self.workers,
        )  # fmt: skip
        return {name.removesuffix(f".{part}"): result for name, result in results.items()}


def frozen_features(encoder: DualEncoder, prepared: Prepared, cache_dir: str | Path, *, workers: int = 0) -> Features:
    """Outputs of the encoder's frozen trunks, run once over the catalog and kept: training and evaluation read them."""
    folder = Path(cache_dir) / "features"
    folder.mkdir(parents=True, exist_ok=True)
    stores = {"query": prepared.queries, "document": prepared.documents}
    with locked(folder / ".lock", waiting_for="the features of the frozen trunks"):
        return {
            side: {
                name: cached_features(encoder, store, name, field, folder, workers=workers)
                for name, field in encoder.schema.side(side).items()
                if encoder.frozen_trunk(field.modality)
            }
            for side, store in stores.items()
        }


def means_of(results: Mapping[str, TaskResult]) -> dict[str, dict[str, Any]]:
    """{task: {metric: mean, "queries": n}} for metrics.json."""
    return {task: {**result.means, "queries": result.queries} for task, result in results.items()}


def write_task_files(
    folder: Path, measurement: Measurement, results: Mapping[str, Mapping[str, TaskResult]], part: str = "test"
) -> None:
    """tasks/<task>/run.<model>.trec for each model and qrels.trec, of one part."""
    from gcl.retrieval.trec import write_qrels, write_run

    for task in measurement.opened(part):
        name = task.name.removesuffix(f".{part}")
        write_qrels(folder / name / "qrels.trec", task.qrels)
        for model, by_task in results.items():
            if name in by_task:
                write_run(folder / name / f"run.{_file_name(model)}.trec", by_task[name].run, tag=_file_name(model))


def _file_name(label: str) -> str:
    """A contestant's label as part of a file's name and as a TREC tag.

    >>> _file_name("run:outputs/demo/tiny/1")
    'run-outputs-demo-tiny-1'
    """
    return re.sub(r"[^\w.-]+", "-", label).strip("-")
