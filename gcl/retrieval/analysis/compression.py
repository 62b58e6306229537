"""The cost of smaller vectors: truncated, int8 and binary against float32 of full width, on the same queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any

from gcl.retrieval.embedding.quantize import VectorFormat, parse_format
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import Comparison, compare
from gcl.retrieval.report import interval_text
from gcl.table import Table, Value

TITLE = "Smaller vectors: bytes per product, and the change against the full ones"


@dataclass(frozen=True)
class Compressed:
    """One vector format: bytes per document, of all its vectors, and, for each metric, the comparison with float32 of
    full width."""

    form: VectorFormat
    bytes: int
    comparisons: dict[str, Comparison]


ByModel = dict[str, dict[str, list[Compressed]]]  # model -> task -> forms


def of_result(result: TaskResult, metrics: Sequence[str]) -> list[Compressed]:
    """The formats that `evaluate(forms=…)` measured in addition to the full vectors; empty if there were none."""
    return [
        Compressed(
            form,
            form.bytes(result.width) * result.fields,
            {name: compare(result.values[name], values[name]) for name in metrics if name in values},
        )
        for form, values in result.smaller.items()
    ]


def of_records(records: Iterable[Mapping[str, Any]]) -> ByModel:
    """What `compression_records` made of the formats, as results.json has it."""
    by_model: ByModel = {}
    for record in records:
        rows = by_model.setdefault(record["model"], {}).setdefault(record["task"], [])
        form = parse_format(record["vectors"])
        if not rows or rows[-1].form != form:
            rows.append(Compressed(form, record["bytes"], {}))
        rows[-1].comparisons[record["metric"]] = Comparison(**{f.name: record[f.name] for f in fields(Comparison)})
    return by_model


def of_models(models: Mapping[str, Mapping[str, TaskResult]], metrics: Sequence[str]) -> ByModel:
    """{model: {task: formats}} of everything that was measured with smaller vectors."""
    by_model = {
        label: {task: of_result(result, metrics) for task, result in results.items() if result.smaller}
        for label, results in models.items()
    }
    return {label: by_task for label, by_task in by_model.items() if by_task}


def compression_table(models: ByModel, *, all_metrics: bool = True) -> Table:
    """A row per task, form, model and metric, in this order. all_metrics=False: the first metric alone."""
    tasks = list(dict.fromkeys(task for by_task in models.values() for task in by_task))
    forms = list(dict.fromkeys(row.form for by_task in models.values() for rows in by_task.values() for row in rows))
    rows: list[list[Value]] = []
    for task, form, (label, by_task) in product(tasks, forms, models.items()):
        for row in (row for row in by_task.get(task, ()) if row.form == form):
            for metric, c in list(row.comparisons.items())[: None if all_metrics else 1]:
                rows.append([task, form.words, label, metric, row.bytes, c.before, c.after, c.change, interval_text(c)])
    header = ("task", "vectors", "model", "metric", "bytes", "full", "small", "change", "95 % interval")
    return Table(header, rows, title=TITLE, align="llll", formats={"bytes": ",", "change": "+.4f"})


def compression_records(models: ByModel) -> list[dict[str, Value]]:
    """A record per form and metric, in full precision."""
    return [
        {"model": label, "task": task, "vectors": str(row.form), "bytes": row.bytes, "metric": name, **asdict(c)}
        for label, by_task in models.items()
        for task, rows in by_task.items()
        for row in rows
        for name, c in row.comparisons.items()
    ]
