"""What smaller vectors cost: truncated, int8 and binary ones against float32 of full width, on the same queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gcl.retrieval.embedding.quantize import Form, compress, parse_form
from gcl.retrieval.evaluate import TaskResult, result_of
from gcl.retrieval.metrics.statistics import Comparison, compare
from gcl.retrieval.report import aligned
from gcl.retrieval.search.search import search
from gcl.retrieval.tasks.task import RetrievalTask


@dataclass(frozen=True)
class Compressed:
    """One form: bytes a document and, for each metric, the comparison with float32 vectors of full width."""

    form: Form
    bytes: int
    comparisons: dict[str, Comparison]


def default_forms(width: int) -> list[Form]:
    """Halves of the width down to 64, then int8 and binary of the whole."""
    halves = [width >> step for step in range(1, 6) if width >> step >= 64]
    return [*(Form(half) for half in halves), Form(None, "int8"), Form(None, "binary"), Form(None, "binary both")]


def forms_of(words: Sequence[Any]) -> list[Form]:
    """The forms that a config names, each once.

    >>> [str(form) for form in forms_of(["int8", 128, "int8"])]
    ['all x int8', '128 x float32']
    """
    return list(dict.fromkeys(map(parse_form, words)))


def compression_table(
    task: RetrievalTask,
    query: np.ndarray,
    corpus: np.ndarray,
    metrics: Sequence[str] = ("ndcg@10", "recall@10"),
    *,
    k: int = 100,
    forms: Sequence[Form] | None = None,
) -> list[Compressed]:
    """One entry a form. query[Q, D], corpus[M, D]: the fused embeddings of the task's queries and documents."""

    def measured(form: Form) -> TaskResult:
        score, row = search(*compress(query, corpus, form), k, rank=task.id_ranks)
        return result_of(task, score, row, metrics)

    width = corpus.shape[1]
    full = measured(Form()).values
    found = []
    for form in default_forms(width) if forms is None else forms:
        values = measured(form).values
        comparisons = {name: compare(full[name], values[name]) for name in metrics}
        found.append(Compressed(form, form.bytes(width), comparisons))
    return found


def of_result(result: TaskResult, metrics: Sequence[str]) -> list[Compressed]:
    """The forms that `evaluate(forms=…)` measured beside the full vectors; nothing where it did not."""
    return [
        Compressed(
            form,
            form.bytes(result.width),
            {name: compare(result.values[name], values[name]) for name in metrics if name in values},
        )
        for form, values in result.smaller.items()
    ]


Table = dict[str, dict[str, list[Compressed]]]  # model -> task -> forms


def of_models(models: Mapping[str, Mapping[str, TaskResult]], metrics: Sequence[str]) -> Table:
    """{model: {task: forms}} of everything that was measured in smaller forms."""
    found = {
        label: {task: of_result(result, metrics) for task, result in results.items() if result.smaller}
        for label, results in models.items()
    }
    return {label: tasks for label, tasks in found.items() if tasks}


HEADER = ("task", "vectors", "model", "metric", "bytes", "full", "small", "change", "95 % interval")


def cells(table: Table, *, all_metrics: bool = True) -> list[tuple[str, ...]]:
    """The lines of a table under HEADER: by task, then form, then model. all_metrics=False: the first alone."""
    tasks = list(dict.fromkeys(task for by_task in table.values() for task in by_task))
    forms = list(dict.fromkeys(row.form for by_task in table.values() for rows in by_task.values() for row in rows))
    lines = []
    for task in tasks:
        for form in forms:
            for label, by_task in table.items():
                for row in (row for row in by_task.get(task, ()) if row.form == form):
                    shown = list(row.comparisons.items())[: None if all_metrics else 1]
                    lines += [_line(task, label, row, name, c) for name, c in shown]
    return lines


def _line(task: str, label: str, row: Compressed, metric: str, c: Comparison) -> tuple[str, ...]:
    # fmt: off
    return (task, str(row.form), label, metric, f"{row.bytes:,}", f"{c.before:.4f}", f"{c.after:.4f}",
            f"{c.change:+.4f}", f"{c.low:+.4f} … {c.high:+.4f}")
    # fmt: on


def table_text(table: Table) -> str:
    """For a terminal: one metric; the files have all."""
    return aligned(HEADER, cells(table, all_metrics=False), words=4)


def table_records(table: Table) -> list[dict[str, Any]]:
    """Plain values, a form and metric each, for JSON and CSV."""
    return [
        {"model": label, "task": task, "vectors": str(row.form), "bytes": row.bytes, "metric": name, **asdict(c)}
        for label, by_task in table.items()
        for task, rows in by_task.items()
        for row in rows
        for name, c in row.comparisons.items()
    ]


def as_text(rows: Sequence[Compressed]) -> str:
    header = ["vectors", "bytes", *(cell for name in rows[0].comparisons for cell in (name, "change"))] if rows else []
    body = [
        [str(row.form), str(row.bytes)]
        + [cell for c in row.comparisons.values() for cell in (f"{c.after:.4f}", f"{c.change:+.4f}")]
        for row in rows
    ]
    return aligned(header, body, words=1)
