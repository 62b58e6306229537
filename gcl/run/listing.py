"""The runs below a folder as one table: what differs between them, what they reached, and what to do with each.

A run's folder may come from anybody and is read as data: its config as plain YAML, its results as JSON, nothing else.
Neither torch nor the model is loaded, and the verdict is today's, also of runs that an earlier version left.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcl.config.compose import under
from gcl.config.sweep import shortest
from gcl.config.trust import read_untrusted
from gcl.errors import ConfigError
from gcl.files.lock import shows_life
from gcl.lit.whole import done_file
from gcl.options import dotted
from gcl.retrieval.analysis.verdict import Decision, is_seen, verdicts
from gcl.retrieval.metrics.statistics import Comparison
from gcl.run.folder import RunFolder, fact
from gcl.run.resume import FREE
from gcl.table import Table, Value, cut

_DEEPEST = 6  # folders below the one that is named
_LARGEST = 100_000_000  # bytes of a file of results
_SHOWN = 4  # settings of a run in the table for people; the others are counted
_WIDEST = 40  # characters of a setting's value in it
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d")


@dataclass(frozen=True)
class ListedRun:
    """state: the verdict's words, or what else became of the run. before, after: the mean of `metric` over the tasks
    that training has not seen. settings: {dotted key: plain value} of its config."""

    path: Path
    state: str
    data: str = ""
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    decision: Decision | None = None
    begun: str = ""
    minutes: float | None = None


def runs_below(folder: Path) -> list[ListedRun]:
    """Newest first. Raises ConfigError where there is no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}. gcl train leaves its runs in outputs/ of the working folder.")
    return sorted(map(_listed, _folders(folder)), key=lambda run: (run.begun, str(run.path)), reverse=True)


def _folders(top: Path) -> Iterator[Path]:
    """Those in which a run was begun; what lies inside one is not looked at."""
    for place, below, files in os.walk(top):
        path = Path(place)
        if "config.yaml" in files and ("environment.json" in files or "checkpoints" in below):
            yield path
            below.clear()
        elif len(path.relative_to(top).parts) >= _DEEPEST:
            below.clear()
        below.sort()


def _listed(path: Path) -> ListedRun:
    run = RunFolder(path)
    begun = _begun(run)
    try:
        content = read_untrusted(run.config)
        data, model = content["data"], content["model"]
        common: dict[str, Any] = {
            "path": path, "data": str(data["name"]), "model": str(model["label"]), "begun": begun,
            "settings": dict(dotted(content)),
        }  # fmt: skip
    except (ConfigError, OSError, LookupError, TypeError) as error:
        missing = f"config.yaml lacks {error}" if isinstance(error, LookupError) else str(error)
        return ListedRun(path, f"broken: {missing}", begun=begun)
    results = path / "results.json"
    if not results.is_file():
        return ListedRun(state=_unfinished(run, content), **common)
    try:
        if (size := results.stat().st_size) > _LARGEST:
            raise ValueError(f"{size:,} bytes")
        return ListedRun(**common, **_measured(json.loads(results.read_text(encoding="utf-8"))))
    except (OSError, ValueError, LookupError, TypeError, StopIteration, RecursionError) as error:
        return ListedRun(state=f"broken: results.json: {error!r:.100}", **common)


def _measured(content: Any) -> dict[str, Any]:
    """State, metric, both values and the decision, from a run's results.json."""
    metric = str(content["provenance"]["settings"]["headline"][0])
    rows = [row for row in content["results"] if row["metric"] == metric]
    first = rows[0]["model"]
    before = {row["task"]: float(row["value"]) for row in rows if row["model"] == first}
    compared = {
        (str(row["model"]), str(row["task"])): Comparison(
            before[row["task"]], float(row["value"]), float(row["change_low"]), float(row["change_high"]),
            float(row["p"]), int(row["n"]), int(row["better"]), int(row["same"]), int(row["worse"]),
        )
        for row in rows
        if row["model"] != first
    }  # fmt: skip
    label = next(iter(compared))[0]
    kept = content.get("retention", {}).get(label, {})
    forgotten = [str(name) for name, one in kept.items() if one["exceeded"]]
    decision = verdicts(compared, {task: task for _, task in compared}, {label: forgotten})[label].decision
    tasks = {task: one for (model, task), one in compared.items() if model == label}
    held_out = [one for task, one in tasks.items() if not is_seen(task)] or list(tasks.values())
    seconds = content.get("seconds")
    return {
        "state": decision.value, "metric": metric, "decision": decision,
        "before": math.fsum(one.before for one in held_out) / len(held_out),
        "after": math.fsum(one.after for one in held_out) / len(held_out),
        "minutes": None if seconds is None else float(seconds) / 60,
    }  # fmt: skip


def _unfinished(run: RunFolder, content: Mapping[str, Any]) -> str:
    state = "running" if shows_life(run.owner) else "unfinished"
    step, batches = fact(done_file(run.last), "step", int), fact(run.environment, "steps", int)
    if step is None:
        return f"{state}: no checkpoint"
    accumulate = content.get("train", {}).get("accumulate", 1)
    of = "" if batches is None else f" of {batches // (accumulate if isinstance(accumulate, int) else 1):,}"
    return f"{state}: step {step:,}{of}"


def _begun(run: RunFolder) -> str:
    """When it began: as it says, as its folder is called, or as old as its config is."""
    if begun := fact(run.environment, "begun", str):
        return begun[:16]
    if match := _TIME.search(run.path.name):
        return f"{match[1]} {match[2]}:{match[3]}"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(run.config.stat().st_mtime))


def differing(runs: Sequence[ListedRun]) -> list[str]:
    """The settings that differ between the runs, in the order of their configs. Those of a catalog (or a model) are
    compared between runs of that one: another catalog differs in everything. What an earlier version did not have yet
    is no difference, nor is where and how a run was computed."""
    seen: dict[tuple[str, str], set[str]] = {}
    order: dict[str, None] = {}
    for run in runs:
        for key, value in run.settings.items():
            room = key.partition(".")[0]
            group = run.data if room == "data" else run.model if room == "model" else ""
            seen.setdefault((key, group), set()).add(_text(value))
            order.setdefault(key)
    varied = {key for (key, _), values in seen.items() if len(values) > 1}
    return [key for key in order if key in varied and not under(key, (*FREE, "data.name", "model.label"))]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def runs_table(runs: Sequence[ListedRun], title: str, *, wide: bool) -> Table:
    """wide: a column for each setting and number, for programs; otherwise what fits a line."""
    keys = differing(runs)
    if wide:
        return Table.of_records(_record(run, keys) for run in runs)
    rows: list[list[Value]] = [
        [str(run.path), run.data, run.model, _differences(run, keys), _headline(run), run.state, run.begun,
         None if run.minutes is None else f"{run.minutes:.0f}" if run.minutes >= 10 else f"{run.minutes:.1f}"]
        for run in runs
    ]  # fmt: skip
    header = ["run", "data", "model", "settings that differ", "base → tuned", "verdict", "begun", "minutes"]
    notes = [_counted(runs), "base → tuned: the mean over the tasks that training has not seen."]
    return Table(header, rows, title=title, align="lllllll", notes=notes)


def _record(run: ListedRun, keys: Iterable[str]) -> dict[str, Value]:
    settings = {key: None if key not in run.settings else _text(run.settings[key]) for key in keys}
    return {
        "run": str(run.path), "data": run.data, "model": run.model, **settings, "metric": run.metric,
        "base": run.before, "tuned": run.after, "verdict": run.state, "begun": run.begun, "minutes": run.minutes,
    }  # fmt: skip


def _differences(run: ListedRun, keys: Sequence[str]) -> str:
    mine = [f"{name}={cut(_text(run.settings[key]), _WIDEST)}" for key, name in zip(keys, shortest(keys), strict=True)
            if key in run.settings]  # fmt: skip
    more = len(mine) - _SHOWN
    return " ".join(mine[:_SHOWN] + ([f"and {more} more"] if more > 0 else []))


def _headline(run: ListedRun) -> str:
    return "" if run.metric is None else f"{run.metric} {run.before:.3f} → {run.after:.3f}"


def _counted(runs: Sequence[ListedRun]) -> str:
    counts = Counter(run.state.partition(":")[0] for run in runs)
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    return f"{len(runs):,} run{'' if len(runs) == 1 else 's'}: {states}."
