"""What is measured in addition to the tasks: what chosen field weights are worth, smaller vectors, slices of the
queries, and what must not be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog
from gcl.data.prepare.sources import Columns, read_columns
from gcl.files.atomic import write_text
from gcl.retrieval.analysis import compression as compress
from gcl.retrieval.analysis import retention, slices
from gcl.retrieval.analysis.retention import Kept
from gcl.retrieval.analysis.slices import Sliced
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.settings import EvaluateConfig, needed_columns
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.run.weighing import Weighed
from gcl.table import Table, plain_markdown

Models = Mapping[str, Mapping[str, TaskResult]]


@dataclass
class Extras:
    """Any of the four may be empty."""

    compressed: compress.ByModel = field(default_factory=dict)
    sliced: list[Sliced] = field(default_factory=list)
    kept: dict[str, list[Kept]] = field(default_factory=dict)  # by model
    columns: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # task -> column -> value of each query
    titles: dict[str, str] = field(default_factory=dict)  # of the tasks, as people read them
    weighed: Weighed | None = None

    @property
    def warnings(self) -> list[str]:
        """What is said above everything else."""
        return [one.warning for found in self.kept.values() for one in found if one.warning is not None]

    @property
    def forgotten(self) -> dict[str, list[str]]:
        """By model, the general sets that lost more than their limit, for its verdict."""
        return {label: [text for one in kept if (text := one.forgotten)] for label, kept in self.kept.items()}

    @property
    def tables(self) -> list[Table]:
        """What there is, for files."""
        return self._tables(short=False)

    def _tables(self, *, short: bool) -> list[Table]:
        tables = [] if self.weighed is None else self.weighed.tables
        if kept := [one for by_model in self.kept.values() for one in by_model]:
            tables.append(retention.retention_table(kept))
        if self.compressed:
            tables.append(compress.compression_table(self.compressed, all_metrics=not short))
        if self.sliced:
            tables.append(slices.slices_table(self.sliced, short=short))
        return [table.mapped("task", lambda name: self.titles.get(name, name)) for table in tables]

    @property
    def page_tables(self) -> list[Table]:
        """Those that the page does not draw itself; of smaller vectors one metric, the files have all."""
        return replace(self, sliced=[])._tables(short=True)

    def around(self, table: str) -> str:
        """What a terminal shows: what has to be said loudly, the table of tasks, then the extra tables."""
        loud = [f"{'!' * 8} {warning}" for warning in self.warnings]
        return "\n".join([*loud, *([""] if loud else []), table, *([text] if (text := self._text()) else [])])

    def _text(self) -> str:
        return "\n".join(f"\n{table.text()}" for table in self._tables(short=True))

    def markdown(self) -> str:
        lines = [f"> **{plain_markdown(warning)}**" for warning in self.warnings]
        return "\n".join([*lines, *(f"\n{table.markdown()}" for table in self.tables)])

    def as_dict(self) -> dict[str, Any]:
        """For results.json; what is empty is left out."""
        records = {
            "retention": {label: retention.as_dict(kept) for label, kept in self.kept.items()},
            "compressed": compress.compression_records(self.compressed),
            "slices": slices.slices_records(self.sliced),
            "field_weights": {} if self.weighed is None else self.weighed.as_dict(),
        }
        return {name: value for name, value in records.items() if value}

    def add_to(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """metrics.json with the smaller vectors below their task and the general sets next to the models."""
        for label, by_task in self.compressed.items():
            for task, rows in by_task.items():
                metrics[label][task]["compressed"] = {
                    str(row.form): {"bytes": row.bytes} | {m: asdict(c) for m, c in row.comparisons.items()}
                    for row in rows
                }
        return metrics | (
            {"retention": {label: retention.as_dict(kept) for label, kept in self.kept.items()}} if self.kept else {}
        )

    def write(self, folder: Path) -> None:
        """compressed.csv and slices.csv, full precision."""
        for name, rows in (
            ("compressed.csv", compress.compression_records(self.compressed)),
            ("slices.csv", slices.slices_records(self.sliced)),
        ):
            if rows:
                write_text(folder / name, Table.of_records(rows).csv())


def extras_of(
    settings: EvaluateConfig,
    models: Models,
    tasks: Sequence[RetrievalTask],
    columns: Mapping[str, Columns],
    kept: Mapping[str, list[Kept]],
) -> Extras:
    """tasks: with their full names (the key of their results is without the half's, if they are of one). columns: by
    the prefix of the tasks that they belong to."""
    headline, results = settings.headline, next(iter(models.values()))
    titles = {name: result.title for name, result in results.items()}
    extras = Extras(compress.of_models(models, headline), kept=dict(kept), titles=titles)
    if settings.slices:
        for task in tasks:
            name = task.name if task.name in results else task.name.rpartition(".")[0]
            known = columns[max((prefix for prefix in columns if name.startswith(prefix)), key=len)]
            extras.columns[name] = slices.slice_columns(
                task, settings.slices, documents=known.documents, queries=known.queries
            )
        extras.sliced = _sliced(extras.columns, models, headline[0])
    return extras


def _sliced(columns: Mapping[str, Mapping[str, Sequence[str]]], models: Models, metric: str) -> list[Sliced]:
    base, *others = models
    sliced = []
    for label in others or [base]:
        for task, by_column in columns.items():
            before, after = models[base][task].values[metric], models[label][task].values[metric]
            for column, values in by_column.items():
                parts = slices.slices(values, before, after)
                sliced.append(Sliced(task, label, column, metric, parts, one=not others))
    return sliced


def columns_for(settings: EvaluateConfig, catalog: Catalog, folder: str | Path) -> Columns:
    """The columns of a catalog's tables that evaluate.slices names and no field holds. Raises KeyError for others."""
    return read_columns(catalog, folder, needed_columns(catalog.schema, settings.slices))
