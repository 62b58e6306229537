"""The run's curves: training loss and the dev metric over steps, out of metrics.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gcl.data.titles import title_of
from gcl.retrieval.metrics.metrics import spelled
from gcl.retrieval.page.markup import Line, Markup, chart, legend, tag

_MOST_POINTS = 200
_MOST_LINES = 6

OF_AVERAGE = "ema/"
"""Before the columns of what validations measured of the average of the weights (train.ema)."""

Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def read_curves(path: str | Path) -> Curves:
    """{column: (step[n], value[n])} of every numeric column of a metrics.csv; cells left empty are left out."""
    points: dict[str, dict[int, float]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, cell in row.items():
                value = _number(cell)
                if step is not None and value is not None and name not in (None, "step", "epoch"):
                    points.setdefault(name, {})[int(step)] = value  # a resumed run writes a step again: the last counts
    return {name: _in_order(values) for name, values in points.items()}


def curves_section(path: str | Path | None, metric: str, titles: Mapping[str, str]) -> Markup | None:
    """Two charts with their stories in words, or None where there is nothing to draw. titles: those of the tasks."""
    if path is None or not Path(path).is_file():
        return None
    curves = read_curves(path)
    figures = [figure for figure in (_loss(curves), _dev(curves, metric, titles), _kept(curves)) if figure is not None]
    return tag("div", *figures, class_="charts") if figures else None


def _loss(curves: Curves) -> Markup | None:
    name = next((name for name in curves if name.removesuffix("_step") == "train/loss"), None)
    if name is None:
        return None
    step, loss = thinned(*curves[name])
    steps = int(curves[name][0][-1]) + 1
    story = f"Training loss: {loss[0]:.3g} at the start, {loss[-1]:.3g} at the end, over {steps:,} steps."
    return _figure("Training loss", [Line("loss", step, loss)], story)


def _dev(curves: Curves, metric: str, titles: Mapping[str, str]) -> Markup | None:
    """`dev/<metric>` is the mean over the tasks, `dev/<task>/<metric>` one of them."""
    by_metric: dict[str, list[str]] = {}
    for name in curves:
        if name.startswith("dev/"):
            by_metric.setdefault(name.rpartition("/")[2], []).append(name)
    overall = next((shown for shown, names in by_metric.items() if f"dev/{shown}" in names), None)
    shown = metric if metric in by_metric else overall
    if shown is None:
        return None
    mean = f"dev/{shown}"
    names = [name for name in by_metric[shown] if name != mean][:_MOST_LINES] or [mean]
    watched = mean if mean in curves else names[0]
    names += [f"{OF_AVERAGE}{name}" for name in names if f"{OF_AVERAGE}{name}" in curves]
    rivals = [name for name in (watched, f"{OF_AVERAGE}{watched}") if name in curves]
    watched = max(rivals, key=lambda name: curves[name][1].max())
    step, value = curves[watched]
    best = int(value.argmax())
    average = "" if watched in names else "averaged over tasks "
    weights = " with the average of the weights" if watched.startswith(OF_AVERAGE) else ""
    story = (
        f"Dev {spelled(shown)} {average}was best at step {int(step[best]):,}{weights}: {value[best]:.3f}. "
        "That checkpoint was measured for this page."
    )
    mark = (float(step[best]), float(value[best])) if watched in names else None
    return _figure(
        f"{spelled(shown)} on the dev searches", [Line(_of_task(n, titles), *curves[n]) for n in names], story, mark
    )


def _figure(title: str, lines: list[Line], story: str, mark: tuple[float, float] | None = None) -> Markup:
    return tag(
        "figure",
        tag("h3", title),
        chart(lines, label=story, mark=mark),
        legend([line.name for line in lines]) if len(lines) > 1 else None,
        tag("figcaption", story),
    )


def _kept(curves: Curves) -> Markup | None:
    names = [name for name in curves if name.startswith("retention/") and name.count("/") > 1][:_MOST_LINES]
    if not names:
        return None
    lines = [Line(name.removeprefix("retention/").replace("/", ": "), *curves[name]) for name in names]
    ends = "; ".join(
        f"{line.name} {line.y[0]:.3f} at the first validation, {line.y[-1]:.3f} at the last" for line in lines
    )
    story = f"What must not be forgotten, on a sample: {ends}."
    return _figure("What must not be forgotten", lines, story)


def thinned(step: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 200 points, each the mean of its neighbourhood."""
    if len(step) <= _MOST_POINTS:
        return step, value
    groups = np.array_split(np.arange(len(step)), _MOST_POINTS)
    return np.array([step[g].mean() for g in groups]), np.array([value[g].mean() for g in groups])


def _of_task(column: str, titles: Mapping[str, str]) -> str:
    name = column.removeprefix(OF_AVERAGE)
    title = title_of(name.removeprefix("dev/").rpartition("/")[0], titles)
    return title if name == column else f"{title}, average of the weights"


def _in_order(values: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    steps = sorted(values)
    return np.array(steps, dtype=np.float64), np.array([values[step] for step in steps])


def _number(cell: object) -> float | None:
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
