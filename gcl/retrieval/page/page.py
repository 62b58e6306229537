"""`report.html`: one file, no network, for the people who know the products. It says what was found and shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcl.data.titles import title_within
from gcl.files.atomic import write_text
from gcl.retrieval.analysis.verdict import PAIR, Verdict, is_seen, spoken, verdicts_of
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import FEWEST as FEW
from gcl.retrieval.page import sections
from gcl.retrieval.page.browser import as_json, browser_data
from gcl.retrieval.page.contest import Entry, common_metrics, entries_of
from gcl.retrieval.page.curve import curves_section
from gcl.retrieval.page.document import document, page_body
from gcl.retrieval.page.examples import examples
from gcl.retrieval.page.leaderboard import board, standings, winner
from gcl.retrieval.page.markup import Markup, hatch, join, tag, untrusted
from gcl.retrieval.page.sections import all_slices
from gcl.retrieval.page.words import outcome
from gcl.retrieval.report import Row, audit_lines, comparison_rows, single_rows
from gcl.retrieval.tasks.judgments import GRADES
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.table import Table

_STYLES = ("base.css", "report.css", "judging.css")
_SCRIPTS = ("dom.js", "tables.js", "results.js", "queries.js", "judging.js")
_NO_SCRIPT = (
    "The list of searches needs JavaScript, which is switched off here. Everything else on this page reads without it."
)
_TIES = "Models in one bracket tie: their difference may be chance (paired test, Holm-corrected over pairs and tasks)."
_CHANCE = "Many groups are compared here: a few will look good or bad by chance alone. Take them as places to look."
_MOST_METRICS = 3  # that a search is listed with

Slices = Mapping[str, Mapping[str, Sequence[Any]]]


def write_page(
    path: str | Path,
    *,
    title: str,
    tasks: Sequence[RetrievalTask],
    models: Mapping[str, Mapping[str, TaskResult]],
    catalog: str = "",
    curve: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    slices: Slices | None = None,
    metrics: Sequence[str] | None = None,
    details: int = 2000,
    top: int = 10,
    thumbnails: int = 96,
    limit_bytes: int = 15_000_000,
    verdicts: Mapping[str, Verdict] | None = None,
    warnings: Sequence[str] = (),
    extra: Sequence[Table] = (),
    seed: int = 0,
) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    tasks, models: what was measured; the first model is the base. Results are matched by their task's full name.
    catalog: its fingerprint, under which a browser keeps what people grade on the page.
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
    within = {entry.key: title_within(entry.key, entry.title) for entry in entries}
    results = {label: {entry.key: entry.results[label] for entry in entries} for label in entries[0].results}
    page = _Page(entries, names, verdicts or verdicts_of(results, names[0], within), thumbnails, seed)
    plain = _body(title, page, curve=curve, facts=facts or {}, given=slices or {}, warnings=warnings, extra=extra)
    whole = document(title, plain, styles=_STYLES, scripts=_SCRIPTS, data="")
    room = limit_bytes - len(whole.encode(errors="replace")) - 1000  # for the grades' words
    data = browser_data(
        entries, listed, details=details, top=top, thumbnails=thumbnails, limit_bytes=max(room, 0), seed=seed
    )
    data |= {"catalog": catalog or title, "grades": GRADES}
    return write_text(Path(path), document(title, plain, styles=_STYLES, scripts=_SCRIPTS, data=as_json(data)))


@dataclass(frozen=True)
class _Page:
    """What its parts show. metrics: the first is the page's own. thumbnails: pixels of pictures."""

    entries: Sequence[Entry]
    metrics: Sequence[str]
    verdicts: Mapping[str, Verdict]
    thumbnails: int
    seed: int

    @property
    def labels(self) -> list[str]:
        """The models, the base first."""
        return list(self.entries[0].results)

    @property
    def metric(self) -> str:
        return self.metrics[0]

    @property
    def first(self) -> Entry:
        """The task that is spoken of: of those that the verdict counts, if there is one, and with enough searches."""
        counted = [entry for entry in self.entries if not is_seen(entry.key)] or self.entries
        return next((entry for entry in counted if len(entry.task.queries) >= FEW), counted[0])

    def results(self, label: str) -> dict[str, TaskResult]:
        """{key of a task: result}"""
        return {entry.key: entry.results[label] for entry in self.entries}

    def compared(self, label: str) -> tuple[list[Row], Row]:
        """Every metric of every task against the base, and the page's own of the first task."""
        rows = comparison_rows(self.results(self.labels[0]), self.results(label), seed=self.seed)
        return rows, next(row for row in rows if row.metric == self.metric and row.task == self.first.key)


def _body(
    title: str, page: _Page, *, curve: str | Path | None, facts: Mapping[str, Any], given: Slices,
    warnings: Sequence[str], extra: Sequence[Table],
) -> Markup:  # fmt: skip
    notes = audit_lines(page.results(page.labels[0]).values())
    titles = {entry.name: entry.title for entry in page.entries}
    parts = [
        ("results", "Results", "Results", _results(page)),
        ("groups", "Groups", "Where it helps and where it hurts", _groups(page, given)),
        ("beside", "Cost and memory", "What it costs and what it keeps", sections.extra_tables(extra)),
        ("searches", "Searches", "Searches", tag("div", tag("p", _NO_SCRIPT), id="browser")),
        ("training", "Training", "Training", curves_section(curve, page.metric, titles)),
        ("about", "About", "How this was measured", join(
            sections.metric_notes(page.metrics),
            tag("ul", *(tag("li", line) for line in notes), class_="notes") if notes else None,
            sections.facts_list(facts) if facts else None,
        )),
    ]  # fmt: skip
    shown = [part for part in parts if part[-1]]
    alarm = tag("div", *(tag("p", line) for line in warnings), class_="alarm", role="alert") if warnings else None
    return join(hatch(), page_body(title, shown, skip=("searches", "Skip to the searches"), above=alarm))


def _results(page: _Page) -> Markup:
    """Verdict, pictures and the table of tasks; of one model what it reaches, of several who is ahead."""
    if len(page.labels) == 1:
        return _of_one(page)
    return _of_two(page) if tuple(page.labels) == PAIR else _of_several(page)


def _of_one(page: _Page) -> Markup:
    label = page.labels[0]
    rows = single_rows(page.results(label), seed=page.seed)
    first = next(row for row in rows if row.task == page.first.key and row.metric == page.metric)
    chosen = [row for row in rows if row.metric == page.metric]
    return join(
        sections.single_head(page.first, first, label),
        sections.metric_notes([page.metric]),
        sections.single_table(page.entries, chosen, label),
        _folded(page, sections.single_table(page.entries, rows, label)),
    )


def _of_two(page: _Page) -> Markup:
    base, label = page.labels
    rows, row = page.compared(label)
    return join(
        sections.head(page.first, row.comparison, page.metric, (base, label), page.verdicts[label]),
        _examples(page, base, label),
        sections.metric_notes([page.metric]),
        sections.results_table(page.entries, rows, page.metric, label, base),
        _folded(page, sections.all_metrics_table(page.entries, rows, label, base)),
    )


def _examples(page: _Page, base: str, label: str) -> Markup:
    first, others = page.first, [one for one in page.entries if one is not page.first]
    return examples([first, *others], page.metric, (base, label), page.thumbnails)


def _of_several(page: _Page) -> Markup:
    base, *others = page.labels
    places = standings(page.entries, page.metric, seed=page.seed)
    parts = [
        tag("p", untrusted(f"{winner(page.entries, places)}."), class_="verdict winner"),
        tag("p", _TIES, class_="hint"),
        tag("div", *(board(entry, places[entry.key], page.metric) for entry in page.entries), class_="boards"),
        sections.metric_notes([page.metric]),
    ]  # fmt: skip
    for label in others:
        rows, row = page.compared(label)
        parts.append(
            tag(
                "details",
                tag("summary", untrusted(f"{label} against {base}")),
                tag("p", untrusted(f"{spoken(label, base, page.verdicts[label])}."), f" {outcome(row.comparison)}."),
                _examples(page, base, label) if len(others) == 1 else None,
                sections.results_table(page.entries, rows, page.metric, label, base),
                _folded(page, sections.all_metrics_table(page.entries, rows, label, base)),
                open=len(others) == 1,
            )
        )
    return join(*parts)


def _folded(page: _Page, whole: Markup) -> Markup | None:
    count = len(page.metrics)
    return tag("details", tag("summary", f"All {count} metrics"), whole) if count > 1 else None


def _groups(page: _Page, given: Slices) -> Markup | None:
    if len(page.labels) < 2:
        return None
    found: list[Markup] = []
    for entry in page.entries:
        columns = all_slices(entry.task, given.get(entry.key) or given.get(entry.name) or {})
        content = sections.groups(entry, columns, page.metric, (page.labels[0], page.labels[-1]))
        if content is not None:
            found.append(content)
    who = f"{page.labels[-1]} against {page.labels[0]}. " if len(page.labels) > 2 else ""
    return join(tag("p", who, _CHANCE, class_="hint"), *found) if found else None
