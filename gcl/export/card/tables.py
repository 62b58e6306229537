"""Tables of a card, in Markdown, from a run folder's plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gcl.schema import SIDES, Schema


def metric_table(
    results: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], headline: Sequence[str]
) -> list[str]:
    """The headline metrics. results: rows of results.json, with intervals; without them the means of metrics.json."""
    if results:
        lines = ["| task | metric | model | value (95 % interval) | change (95 % interval) | p, Holm | searches |",
                 "|---|---|---|---:|---:|---:|---:|"]  # fmt: skip
        for row in (row for row in results if row["metric"] in headline):
            change = p = ""
            if row.get("change") is not None:
                change = f"{row['change']:+.3f} ({row['change_low']:+.3f} … {row['change_high']:+.3f})"
                p = _p(row["p_holm"])
            value = f"{row['value']:.3f} ({row['low']:.3f} … {row['high']:.3f})"
            lines.append(
                f"| {row['task']} | {row['metric']} | {row['model']} | {value} | {change} | {p} | {row['n']} |"
            )
        return lines
    models = [name for name, by_task in metrics.items() if name != "retention"]
    if not models:
        return ["This model was not measured."]
    lines = ["| task | metric | " + " | ".join(models) + " |", "|---|---|" + "---:|" * len(models)]
    for task in metrics[models[0]]:
        for metric in headline:
            values = [_number(metrics[model].get(task, {}).get(metric)) for model in models]
            lines.append(f"| {task} | {metric} | " + " | ".join(values) + " |")
    return lines


def retention_table(retention: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """{model: {set: what became of it}} as metrics.json has it."""
    lines = ["| general set | model | metric | base | now | lost | limit | |", "|---|---|---|---:|---:|---:|---:|---|"]
    for model, sets in retention.items():
        for name, one in sets.items():
            verdict = "**more than the limit**" if one["exceeded"] else "kept"
            lines.append(
                f"| {name} | {model} | {one['metric']} | {one['base']:.3f} | {one['tuned']:.3f} | {one['loss']:+.3f} "
                f"| {one['limit']:g} | {verdict} |"
            )
    return lines


def field_table(schema: Schema) -> list[str]:
    return [
        "| side | field | modality | weight | prompt |",
        "|---|---|---|---:|---|",
        *(
            f"| {side} | {name} | {spec.modality.value} | {spec.weight:g} | "
            f"{'`' + spec.prompt + '`' if spec.modality.value == 'text' else ''} |"
            for side in SIDES
            for name, spec in schema.side(side).items()
        ),
    ]


def data_lines(counts: Mapping[str, Any], score: np.ndarray) -> list[str]:
    """counts: of a prepared catalog; score[P]: those of the training pairs."""
    lines = [
        f"- {counts['pairs']:,} pairs of {counts['queries']:,} queries and {counts['products']:,} products",
        f"- training saw {counts['training_pairs']:,} pairs, {counts['queries_of_training']:,} queries and "
        f"{counts['products_of_training']:,} products of them; the rest is held out",
    ]
    if len(score):
        least, low, middle, high, most = np.percentile(score, [0, 25, 50, 75, 100])
        values = len(np.unique(score))
        lines.append(
            f"- scores of the training pairs: {least:g} to {most:g}, quartiles {low:g}, {middle:g}, {high:g}, mean "
            f"{score.mean():.4g}, {values:,} different value{'' if values == 1 else 's'}"
        )
    lines += ["", "| task | corpus | dev searches | dev judgments | test searches | test judgments |",
              "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, task in counts["tasks"].items():
        halves = " | ".join(f"{task[half][key]:,}" for half in ("dev", "test") for key in ("queries", "judgments"))
        lines.append(f"| {name} | {task['corpus']:,} | {halves} |")
    return lines


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else ""
