"""`report.html`: one file, no network, for the people who know the products. It says what was found and shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcl.files.atomic import write_text
from gcl.retrieval.analysis.verdict import Verdict, verdicts_of
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import FEWEST as FEW
from gcl.retrieval.page import sections
from gcl.retrieval.page.browser import as_json, browser_data
from gcl.retrieval.page.contest import Entry, common_metrics, entries_of
from gcl.retrieval.page.curve import curves_section
from gcl.retrieval.page.document import document, page_body
from gcl.retrieval.page.markup import Markup, hatch, join, tag, untrusted
from gcl.retrieval.page.sections import all_slices
from gcl.retrieval.page.words import outcome
from gcl.retrieval.report import audit_lines, comparison_rows, single_rows
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.retrieval.tasks.titles import title_within
from gcl.table import Table

_STYLES = ("base.css", "report.css")
_SCRIPTS = ("dom.js", "tables.js", "results.js", "queries.js")
_NO_SCRIPT = (
    "The list of searches needs JavaScript, which is switched off here. Everything else on this page reads without it."
)
_MOST_METRICS = 3  # that a search is listed with

Slices = Mapping[str, Mapping[str, Sequence[Any]]]


def write_page(
    path: str | Path,
    *,
    title: str,
    tasks: Sequence[RetrievalTask],
    models: Mapping[str, Mapping[str, TaskResult]],
    curve: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    slices: Slices | None = None,
    metrics: Sequence[str] | None = None,
    details: int = 200,
    top: int = 10,
    thumbnails: int = 96,
    limit_bytes: int = 25_000_000,
    verdicts: Mapping[str, Verdict] | None = None,
    warnings: Sequence[str] = (),
    extra: Sequence[Table] = (),
    seed: int = 0,
) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    tasks, models: what was measured; the first model is the base. Results are matched by their task's full name.
    curve: the run's metrics.csv, if there is one. facts: shown at the end as they are; mappings inside are written out.
    slices: {task: {column: value of each query}} by the task's name with or without its part, added to those that any
        catalog has (`page.slices`).
    metrics: the ones a search is listed with, the first of them the page's own; by default nDCG@10.
    details: searches shown in full, with `top` results of each model and pictures of `thumbnails` pixels; fewer, if the
        file would have more than `limit_bytes` bytes.
    verdicts: of each model but the first; by default of its tasks alone, without retention sets.
    warnings: sentences shown above everything else. extra: further tables.
    """
    entries = entries_of(tasks, models)
    names = common_metrics(entries, metrics)
    listed = list(metrics or names[:1])[:_MOST_METRICS]
    plain = _body(title, entries, names, curve=curve, facts=facts or {}, slices=slices or {},
                  verdicts=verdicts, warnings=warnings, extra=extra, seed=seed)  # fmt: skip
    whole = document(title, plain, styles=_STYLES, scripts=_SCRIPTS, data="")
    room = limit_bytes - len(whole.encode(errors="replace"))
    data = browser_data(
        entries, listed, details=details, top=top, thumbnails=thumbnails, limit_bytes=max(room, 0), seed=seed
    )
    return write_text(Path(path), document(title, plain, styles=_STYLES, scripts=_SCRIPTS, data=as_json(data)))


def _body(
    title: str, entries: Sequence[Entry], metrics: Sequence[str], *, curve: str | Path | None, facts: Mapping[str, Any],
    slices: Slices, verdicts: Mapping[str, Verdict] | None, warnings: Sequence[str], extra: Sequence[Table], seed: int,
) -> Markup:  # fmt: skip
    labels, metric = list(entries[0].results), metrics[0]
    results = {label: {entry.key: entry.results[label] for entry in entries} for label in labels}
    base, *others = labels
    compared = {label: comparison_rows(results[base], results[label], seed=seed) for label in others}
    titles = {entry.name: entry.title for entry in entries}
    within = {entry.key: title_within(entry.key, entry.title) for entry in entries}
    verdicts = verdicts_of(results, metric, within) if verdicts is None else verdicts
    notes = audit_lines(results[base].values())
    parts = [
        ("results", "Results", "Results", _results(entries, metrics, compared, verdicts, results[base], base, seed)),
        ("groups", "Groups", "Where it helps and where it hurts", _groups(entries, slices, metric, labels)),
        ("beside", "Cost and memory", "What it costs and what it keeps", sections.extra_tables(extra)),
        ("searches", "Searches", "Searches", tag("div", tag("p", _NO_SCRIPT), id="browser")),
        ("training", "Training", "Training", curves_section(curve, metric, titles)),
        ("about", "About", "How this was measured", join(
            sections.metric_notes(metrics),
            tag("ul", *(tag("li", line) for line in notes), class_="notes") if notes else None,
            sections.facts_list(facts) if facts else None,
        )),
    ]  # fmt: skip
    shown = [part for part in parts if part[-1]]
    alarm = tag("div", *(tag("p", line) for line in warnings), class_="alarm", role="alert") if warnings else None
    return join(hatch(), page_body(title, shown, skip=("searches", "Skip to the searches"), above=alarm))


def _results(
    entries: Sequence[Entry], metrics: Sequence[str], compared: Mapping, verdicts: Mapping[str, Verdict],
    base_results: Mapping, base: str, seed: int,
) -> Markup:  # fmt: skip
    metric = metrics[0]
    if not compared:
        return sections.single_table(entries, single_rows(base_results, seed=seed), base)
    parts: list[Markup] = []
    first = next((entry for entry in entries if len(entry.task.queries) >= FEW), entries[0])
    for label, rows in compared.items():
        comparison = next(row.comparison for row in rows if row.metric == metric and row.task == first.key)
        if len(compared) == 1:
            parts.append(sections.head(first, comparison, metric, label, base, verdict=verdicts[label]))
            parts.append(sections.metric_notes([metric]))
        else:
            parts.append(tag("h3", f"{label} against {base}"))
            parts.append(tag("p", untrusted(f"{verdicts[label].sentence}."), " ", outcome(comparison)))
        parts.append(sections.results_table(entries, rows, metric, label, base))
        if len(metrics) > 1:
            whole = sections.all_metrics_table(entries, rows, label, base)
            parts.append(tag("details", tag("summary", f"All {len(metrics)} metrics"), whole))
    return join(*parts)


def _groups(entries: Sequence[Entry], slices: Slices, metric: str, labels: Sequence[str]) -> Markup | None:
    if len(labels) < 2:
        return None
    groups: list[Markup] = []
    for entry in entries:
        given = slices.get(entry.key) or slices.get(entry.name) or {}
        content = sections.slices_table(entry, all_slices(entry.task, given), metric, labels[-1], labels[0])
        if content is not None:
            groups.append(tag("details", tag("summary", entry.title), content, open=not groups))
    hint = "Many groups are compared here: a few will look good or bad by chance alone. Take them as places to look."
    return join(tag("p", hint, class_="hint"), *groups) if groups else None
