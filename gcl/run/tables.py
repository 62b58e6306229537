"""The tables that a command prints, and the notes below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.metrics import parse_metric
from gcl.retrieval.report import AnyRow, audit_lines, comparison_rows, contest_rows, results_table, single_rows
from gcl.run.console import terminal_width
from gcl.table import Table, Value

Results = Mapping[str, TaskResult]
TIES = {
    "ascending": "equal scores by document id ascending",
    "descending": "equal scores by document id descending, as trec_eval orders them",
    "listed": "equal scores in the order in which they were found",
    "published": "nDCG, MAP, recall and precision with equal scores by document id descending, the others in the order "
    "of the list, as the published GCL evaluator mixes them",
}


def summary(models: Mapping[str, Results], metrics: Sequence[str], notes: Sequence[str] = ()) -> str:
    """base / tuned / change for a run, the values of a single model, or one line per model for several; then notes on
    the tasks and models."""
    lines = [results_table(table_rows(models, metrics)).text(terminal_width())]
    if averages := averages_of(models, metrics):
        lines += ["", averages_table(averages).text()]
    return "\n".join([*lines, *(f"note: {line}" for line in [*reading_notes(models), *notes])])


def table_rows(models: Mapping[str, Results], metrics: Sequence[str]) -> Sequence[AnyRow]:
    chosen = {label: only(results, metrics) for label, results in models.items()}
    if len(chosen) == 1:
        return single_rows(*chosen.values())
    if list(chosen) == ["base", "tuned"]:
        return comparison_rows(*chosen.values())
    return contest_rows(chosen)


def reading_notes(models: Mapping[str, Results]) -> list[str]:
    """The findings of the audits, and the share of results without a judgment."""
    first = next(iter(models.values()))
    return [*audit_lines(first.values()), *_unjudged(models)]


def _unjudged(models: Mapping[str, Results]) -> list[str]:
    """One line per cutoff, about the tasks that are not judged completely."""
    found: dict[int | None, list[str]] = {}
    for task, result in next(iter(models.values())).items():
        name = next((name for name in result.values if name.startswith("judged@")), None)
        if name is None:
            continue
        shares = {label: 1 - float(np.mean(results[task].values[name])) for label, results in models.items()}
        if any(shares.values()):
            shown = ", ".join(f"{label} {share:.0%}" for label, share in shares.items())
            found.setdefault(parse_metric(name).cutoff, []).append(f"{result.title} ({shown})")
    return [
        f"unjudged in the top {top}, where they count as irrelevant: {'; '.join(tasks)}."
        for top, tasks in found.items()
    ]


def averages_of(models: Mapping[str, Results], metrics: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """{task: {model: {metric: mean over the data sets that have this task}}} where several sets were measured."""
    sets: dict[str, list[str]] = {}
    for key in next(iter(models.values())):
        if "/" in key:
            sets.setdefault(key.rpartition("/")[2], []).append(key)
    return {
        f"{task} ({len(keys)} sets)": {
            label: {metric: float(np.mean([results[key].means[metric] for key in keys])) for metric in metrics}
            for label, results in models.items()
        }
        for task, keys in sets.items()
        if len(keys) > 1
    }


def averages_table(averages: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    metrics = list(next(iter(next(iter(averages.values())).values())))
    rows: list[list[Value]] = [
        [task, label, *(values[metric] for metric in metrics)]
        for task, models in averages.items()
        for label, values in models.items()
    ]
    return Table(["mean of", "model", *metrics], rows, align="ll")


def only(results: Results, metrics: Sequence[str]) -> dict[str, TaskResult]:
    return {task: replace(r, values={m: v for m, v in r.values.items() if m in metrics}) for task, r in results.items()}
