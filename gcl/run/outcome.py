"""What a measurement leaves in a folder, the same after train.py and evaluate.py:

metrics.json     {model: {task: {metric: mean}}}
results.csv      a line for every task, metric and model: value, interval, change against the first model, p
results.md       the printed table with its notes, for people
results.json     the same with provenance: versions, fingerprints of data and weights, seeds, settings, command
queries.parquet  every query's value of every metric, a row for every task, query and model
tasks/<task>/    run.<model>.trec and qrels.trec
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.importers.vectors import write_columns
from gcl.data.titles import title_within
from gcl.files.atomic import write_json, write_text
from gcl.retrieval.analysis.verdict import Verdict, verdicts_of
from gcl.retrieval.report import contest_rows, results_records, results_table
from gcl.retrieval.settings import EvaluateConfig
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.retrieval.tasks.trec import write_qrels, write_run
from gcl.run.environment import describe_environment
from gcl.run.extras import Extras
from gcl.run.tables import TIES, Results, averages_of, averages_table, only, reading_notes, table_rows
from gcl.table import plain_markdown

_MOST_METRICS = 20  # that a page lists
_STATISTICS = (
    "intervals: 95 %, percentile bootstrap over queries, 2,000 samples, seed 0; p: two-sided paired randomisation "
    "test, 10,000 samples, seed 0, Holm-corrected over headline metrics x tasks x models"
)


@dataclass
class Outcome:
    """Everything that was measured. models: {label: {task: result}}, the first is what the others are compared with.
    sources: fingerprints of the data by catalog; contestants: where each model's figures come from."""

    settings: EvaluateConfig
    part: str
    title: str
    tasks: list[RetrievalTask] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)
    contestants: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    seconds: float | None = None  # that a run took
    extras: Extras = field(default_factory=Extras)

    def name_of(self, task: RetrievalTask) -> str:
        return task.name.removesuffix(f".{self.part}")

    @property
    def audits(self) -> dict[str, Any]:
        first = next(iter(self.models.values()))
        return {task: result.audit.as_dict() for task, result in first.items() if result.audit is not None}

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """What to do with each model but the first, by the rule of gcl/retrieval/analysis/verdict.py."""
        first = next(iter(self.models.values()))
        titles = {task: title_within(task, result.title) for task, result in first.items()}
        return verdicts_of(self.models, self.settings.headline[0], titles, self.extras.forgotten)

    def provenance(self) -> dict[str, Any]:
        return {
            **describe_environment(),
            "data": self.sources,
            "models": self.contestants,
            "settings": asdict(self.settings, dict_factory=_plain),
            "part": self.part,
            "ties": TIES[self.settings.ties],
            "seeds": {"run": self.seed, "queries": self.settings.seed, "statistics": 0},
            "statistics": _STATISTICS,
        }

    def write(self, folder: Path) -> None:
        """All files; whole ones only, each under its name when it is complete."""
        self._write_trec(folder / "tasks")  # first: what cannot be written is a note of the others
        headline = self.settings.headline
        records = results_records(contest_rows(self.models, headline))
        averages = averages_of(self.models, headline)
        means = {label: means_of(results) for label, results in self.models.items()}
        write_json(folder / "metrics.json", self.extras.add_to(means))
        self.extras.write(folder)
        write_text(folder / "results.csv", records.csv())
        write_text(folder / "results.md", self._markdown(averages))
        write_json(
            folder / "results.json",
            {
                "title": self.title,
                "seconds": self.seconds,
                "provenance": self.provenance(),
                "notes": [*reading_notes(self.models), *self.notes],
                "audits": self.audits,
                "verdicts": {label: verdict.as_dict() for label, verdict in self.verdicts.items()},
                "averages": averages,
                **self.extras.as_dict(),
                "results": records.records(),
            },
        )
        self._write_queries(folder / "queries.parquet")

    def write_page(self, path: Path, facts: Mapping[str, Any], *, curve: Path | None = None, seed: int = 0) -> None:
        """The page, with all metrics, or of a hundred those of the headline alone. facts: in addition to the catalogs
        and the versions. curve: metrics.csv."""
        from gcl.retrieval.page.page import write_page

        settings, extras = self.settings, self.extras
        metrics = settings.metrics if len(settings.metrics) <= _MOST_METRICS else settings.headline
        write_page(
            path, title=self.title, tasks=self.tasks,
            models={label: only(results, metrics) for label, results in self.models.items()},
            catalog=" ".join(source["fingerprint"] for source in self.sources.values()), curve=curve,
            facts={"catalog": ", ".join(self.sources), **facts, **describe_environment()["packages"]},
            metrics=settings.headline, slices=extras.columns, verdicts=self.verdicts, warnings=extras.warnings,
            extra=extras.page_tables, seed=seed,
        )  # fmt: skip

    def _markdown(self, averages: Mapping[str, Any]) -> str:
        parts = [
            f"# {plain_markdown(self.title)}",
            "",
            results_table(table_rows(self.models, self.settings.headline)).markdown(),
        ]
        if averages:
            parts += ["", averages_table(averages).markdown()]
        parts += [self.extras.markdown()]
        parts += ["", *(f"- {plain_markdown(line)}" for line in [*reading_notes(self.models), *self.notes])]
        packages = describe_environment()["packages"]
        named = ("gcl-trainer", "torch", "open_clip_torch", "numpy")
        versions = ", ".join(f"{name} {packages[name]}" for name in named if packages[name])
        return "\n".join([*parts, f"- {TIES[self.settings.ties]}", f"- {_STATISTICS}", f"- {versions}", ""])

    def _write_queries(self, path: Path) -> None:
        """One row a task, query and model."""
        columns: dict[str, list[str]] = {"task": [], "query_id": [], "model": []}
        metrics: dict[str, list[np.ndarray]] = {}
        for label, results in self.models.items():
            for task, result in results.items():
                columns["task"] += [task] * result.queries
                columns["query_id"] += [str(name) for name in result.query_ids]
                columns["model"] += [label] * result.queries
                for metric, values in result.values.items():
                    metrics.setdefault(metric, []).append(values)
        values_of = {metric: np.concatenate(parts) for metric, parts in metrics.items()}
        write_columns(path, {**columns, **values_of})

    def _write_trec(self, folder: Path) -> None:
        for task in self.tasks:
            name = self.name_of(task)
            try:
                place = folder / task_folder(name)
                write_qrels(place / "qrels.trec", task.qrels)
                for label, results in self.models.items():
                    tag = file_name(label)
                    write_run(place / f"run.{tag}.trec", results[name].run, tag=tag)
            except ValueError as error:  # after hours of measuring, an id with a space is no reason to lose the rest
                note = f"{name}: no TREC files. {error}"
                self.notes += [note] if note not in self.notes else []


def means_of(results: Results) -> dict[str, dict[str, Any]]:
    """{task: {metric: mean, "queries": n}} for metrics.json."""
    return {task: {**result.means, "queries": result.queries} for task, result in results.items()}


def file_name(label: str) -> str:
    """A contestant's label as part of a file's name and as a TREC tag.

    >>> file_name("run:outputs/demo/tiny/1")
    'run-outputs-demo-tiny-1'
    """
    return re.sub(r"[^\w.-]+", "-", label).strip("-")


def task_folder(name: str) -> str:
    """Where a task's files lie below tasks/, for a name of `<catalog>/<task>`; never anywhere else.

    >>> task_folder("judged/kind"), task_folder("../../x"), task_folder("/etc")
    ('judged/kind', '-/-/x', '-/etc')
    """
    return "/".join(part if part.strip(".") else "-" for part in name.split("/"))


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in items}
