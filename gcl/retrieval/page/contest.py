"""What is compared on a page: the tasks, each with the results of every model, the base first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcl.data.titles import SITUATIONS, described, short_name
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.tasks.task import RetrievalTask


@dataclass(frozen=True)
class Entry:
    """One task and what each model answered, in the order of the models."""

    task: RetrievalTask
    results: dict[str, TaskResult]

    @property
    def key(self) -> str:
        return self.task.name

    @property
    def name(self) -> str:
        return short_name(self.task.name)

    @property
    def title(self) -> str:
        return self.task.title

    @property
    def description(self) -> str:
        return described(self.task.name)

    def values(self, label: str, metric: str) -> np.ndarray:
        return np.asarray(self.results[label].values[metric], dtype=np.float64)

    def change(self, metric: str) -> np.ndarray | None:
        """[Q] last model minus the base; None if there is one model only."""
        labels = list(self.results)
        return None if len(labels) < 2 else self.values(labels[-1], metric) - self.values(labels[0], metric)


def entries_of(tasks: Sequence[RetrievalTask], models: Mapping[str, Mapping[str, TaskResult]]) -> list[Entry]:
    """The tasks with their results, what matters most first: held-out tasks before what training has seen.

    Raises ValueError if a model lacks a task or answered other queries.
    """
    if not models:
        raise ValueError("A page needs the results of at least one model.")
    results_of = {label: {result.task: result for result in results.values()} for label, results in models.items()}
    entries = []
    for task in tasks:
        for label, results in results_of.items():
            if task.name not in results:
                raise ValueError(
                    f"Task {task.name!r} was not measured for {label!r}; measured: {', '.join(results) or 'none'}."
                )
            if list(results[task.name].query_ids) != list(task.queries.ids):
                raise ValueError(f"Task {task.name!r}: the results of {label!r} are of other queries than the task's.")
        if len(task.queries):
            entries.append(Entry(task, {label: results[task.name] for label, results in results_of.items()}))
    if not entries:
        raise ValueError("No task has a query: there is nothing to show.")
    order = list(SITUATIONS)
    own = [entry.name.rpartition("/")[2] for entry in entries]
    place = [order.index(name) if name in order else -1 for name in own]
    return [entries[number] for number in sorted(range(len(entries)), key=place.__getitem__)]


def common_metrics(entries: Sequence[Entry], wanted: Sequence[str] | None) -> list[str]:
    """The metrics that every model has on every task; `wanted` ones (or ndcg@10) first and required."""
    values = [result.values for entry in entries for result in entry.results.values()]
    shared = [name for name in values[0] if all(name in other for other in values)]
    if missing := [name for name in wanted or () if name not in shared]:
        raise ValueError(
            f"Metric {missing[0]!r} was not measured for every model and task; there is {', '.join(shared)}."
        )
    if not shared:
        raise ValueError("The models and tasks have no metric in common.")
    first = list(wanted or [name for name in ("ndcg@10",) if name in shared] or shared[:1])
    return first + [name for name in shared if name not in first]
