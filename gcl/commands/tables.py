"""The tables a command prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.report import as_text, audit_lines, comparison_rows, single_rows

Results = Mapping[str, TaskResult]


def summary(models: Mapping[str, Results], metrics: Sequence[str]) -> str:
    """base / tuned / change for two models, values for one; then what the reader must know about the tasks."""
    chosen = [_only(results, metrics) for results in models.values()]
    rows = comparison_rows(*chosen) if len(chosen) == 2 else single_rows(chosen[0])
    return "\n".join([as_text(rows), *(f"note: {line}" for line in audit_lines(chosen[0].values()))])


def _only(results: Results, metrics: Sequence[str]) -> Results:
    return {task: replace(r, values={m: v for m, v in r.values.items() if m in metrics}) for task, r in results.items()}
