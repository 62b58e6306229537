"""The parts of the page that are plain HTML: the finding, tables, groups of queries, explanations, facts.

They read without JavaScript; the script makes the tables' headers buttons that sort.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gcl.data.titles import title_within
from gcl.retrieval.analysis.slices import Slice, lacking, slices, word_counts
from gcl.retrieval.analysis.unsure import unsure
from gcl.retrieval.analysis.verdict import Verdict
from gcl.retrieval.metrics.metrics import Reads, explained, parse_metric, spelled
from gcl.retrieval.metrics.statistics import FEWEST as FEW
from gcl.retrieval.metrics.statistics import Comparison
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.markup import Markup, join, share_bar, tag, untrusted, whisker
from gcl.retrieval.page.words import interval, outcome, signed
from gcl.retrieval.report import Row, SingleRow, p_text
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Modality, fields_of
from gcl.table import Table


def head(entry: Entry, comparison: Comparison, metric: str, labels: tuple[str, str], verdict: Verdict) -> Markup:
    """The verdict, and the finding of the first task: in counts, a bar and three figures. labels: base and other."""
    c, (base, label) = comparison, labels
    doubt = unsure(entry.task, entry.results[base], entry.results[label], metric)
    return tag(
        "div",
        tag("p", _capital(verdict.decision.value), class_=f"verdict {verdict.decision.name}"),
        tag("p", untrusted(f"{verdict.below}."), class_="reason"),
        tag("p", untrusted(entry.title, "b"), f": {entry.description}" if entry.description else None, class_="kicker"),
        _counts(c),
        share_bar(c.wins, c.ties, c.losses),
        tag(
            "dl",
            _figure(spelled(metric), join(f"{c.before:.3f} → ", tag("b", f"{c.after:.3f}")), f"{base} → {label}"),
            _figure("Change", tag("b", signed(c.change)), f"95 % interval {interval(c.low, c.high)}"),
            _doubt(doubt, entry.values(label, metric) - entry.values(base, metric), c),
            class_="figures",
        ),
        class_="finding",
    )


def _counts(c: Comparison) -> Markup:
    """`outcome` with the signs of the bar below it."""
    better, worse, same = outcome(c).split(", ")
    return tag(
        "p",
        tag("span", f"▲ {better}", class_="better"), ", ",
        tag("span", f"▼ {worse}", class_="worse"), ", ",
        tag("span", f"= {same}", class_="same"), ".",
        class_="outcome",
    )  # fmt: skip


def _doubt(doubt: np.ndarray, change: np.ndarray, c: Comparison) -> Markup:
    """How many of the searches nobody can tell about."""
    if not doubt.any():
        few = "too few for a firm answer" if c.n < FEW else "measured with both models"
        return _figure("Searches", tag("b", f"{c.n:,}"), few)
    losses, gains = int((doubt & (change < 0)).sum()), int((doubt & (change > 0)).sum())
    note = f"{losses:,} of {c.losses:,} losses and {gains:,} of {c.wins:,} gains rest on results that nobody has judged"
    return _figure("Cannot tell", join(tag("b", f"{losses + gains:,}"), f" of {c.n:,} searches"), note)


def single_head(entry: Entry, row: SingleRow, label: str) -> Markup:
    """What one model reaches on the first task."""
    values, metric = entry.values(label, row.metric), parse_metric(row.metric)
    where = title_within(entry.key, entry.title)
    i = row.interval
    reached = f"{spelled(row.metric)} of {i.mean:.3f} (95 % interval {i.low:.3f} to {i.high:.3f})"
    if metric.cutoff is None or metric.metric.reads is Reads.status:
        sentence = f"{label} reaches a {reached} on {where}, {row.n:,} searches."
    else:
        found, first = (
            int((values > 0).sum()),
            f"first {metric.cutoff} results" if metric.cutoff > 1 else "first result",
        )
        searches = "search" if row.n == 1 else "searches"
        sentence = f"{label} has something relevant among the {first} for {found:,} of {row.n:,} {searches}"
        sentence += f" ({where}): a {reached}."
    return tag("div", tag("p", untrusted(sentence), class_="reason"), class_="finding")


def _figure(name: str, value: Markup, note: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", note)))


def metric_notes(metrics: Iterable[str]) -> Markup:
    return tag("ul", *(tag("li", explained(metric)) for metric in metrics), class_="notes")


def facts_list(facts: Mapping[str, Any]) -> Markup:
    """Name and value; a mapping inside is written out, name by name."""
    return tag("dl", *_facts(facts), class_="facts")


def _facts(facts: Mapping[str, Any], prefix: str = "") -> list[Markup]:
    entries = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            entries += _facts(value, f"{prefix}{name}: ")
            continue
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else "–" if value is None else str(value)
        entries.append(tag("div", untrusted(f"{prefix}{name}", "dt"), untrusted(text, "dd")))
    return entries


def results_table(entries: Sequence[Entry], rows: Sequence[Row], metric: str, label: str, base: str) -> Markup:
    """One metric of every task, base against one model."""
    chosen = {row.task: row for row in rows if row.metric == metric}
    lines = [([_task_cell(entry)], chosen[entry.key].comparison) for entry in entries]
    caption = f"{spelled(metric)} by task, {base} against {label}, with the interval of the change"
    return _comparison_table(caption, ["Task"], lines, [base, label])


def all_metrics_table(entries: Sequence[Entry], rows: Sequence[Row], label: str, base: str) -> Markup:
    titles = {entry.key: entry.title for entry in entries}
    header = ["Task", "Metric", base, label, "Change", "95 % interval", "p (Holm)", "Searches"]
    body = []
    for row in rows:
        c = row.comparison
        body.append([
            tag("th", untrusted(titles[row.task]), scope="row"),
            tag("td", spelled(row.metric)),
            _number(c.before, look="model"),
            _number(c.after, look="model"),
            _number(c.change, signed(c.change), look="change"),
            _number(c.low, interval(c.low, c.high)),
            _number(row.p_corrected, p_text(row.p_corrected)),
            _number(c.n, f"{c.n:,}"),
        ])  # fmt: skip
    caption = f"All metrics, {base} against {label}; p is corrected for the number of rows (Holm)"
    return table(caption, header, body, labels=2)


def single_table(entries: Sequence[Entry], rows: Sequence[SingleRow], label: str) -> Markup:
    titles = {entry.key: entry.title for entry in entries}
    body = [
        [
            tag("th", untrusted(titles[row.task]), scope="row"),
            tag("td", spelled(row.metric)),
            _number(row.interval.mean),
            _number(row.interval.low, f"{row.interval.low:.3f} to {row.interval.high:.3f}"),
            tag("td", _few(row.n), " ", f"{row.n:,}", class_="number", data_value=row.n),
        ]
        for row in rows
    ]
    return table(f"What {label} reaches", ["Task", "Metric", "Value", "95 % interval", "Searches"], body, labels=2)


def groups(entry: Entry, columns: Mapping[str, Sequence[Any]], metric: str, labels: tuple[str, str]) -> Markup | None:
    """One task's queries in groups: those that differ from the whole, and folded all of them.

    A group differs if it has enough queries and the change of all queries lies outside the interval of its own. Raises
    ValueError for a column without one value per query.
    """
    before, after = (entry.values(label, metric) for label in labels)
    found: list[tuple[str, Slice]] = []
    for name, values in columns.items():
        if len(values) != len(before):
            given = f"{len(values)} values for {len(before)} queries"
            raise ValueError(f"Slice {name!r} of task {entry.name!r} has {given}: give one per query.")
        found += [(name, part) for part in sorted(slices(values, before, after), key=lambda one: _natural(one.value))]
    if not found:
        return None
    whole = float((after - before).mean())
    firm = [one for one in found if not one[1].too_few]
    differing = [one for one in firm if not one[1].comparison.low <= whole <= one[1].comparison.high]
    few = [f"{name}: {part.value} ({part.comparison.n:,})" for name, part in found if part.too_few]
    same = f"No group of at least {FEW} searches differs clearly from all searches together ({signed(whole)})."
    differ = f"{entry.title}: groups that differ from the whole ({signed(whole)})"
    every = f"{entry.title}: {spelled(metric)} by group, {labels[0]} against {labels[1]}"
    rest = f"With too few searches to tell (fewer than {FEW}): "
    return join(
        tag("h3", untrusted(entry.title)),
        _groups_table(differ, differing, labels) if differing else tag("p", same),
        tag(
            "details",
            tag("summary", f"All {len(found)} groups"),
            _groups_table(every, firm, labels) if firm else None,
            tag("p", rest, untrusted("; ".join(few)), ".", class_="hint") if few else None,
        ),
    )


def _groups_table(caption: str, found: Sequence[tuple[str, Slice]], labels: tuple[str, str]) -> Markup:
    lines = [
        (
            [tag("th", untrusted(name), scope="row"), tag("td", untrusted(part.value), data_value=part.value)],
            part.comparison,
        )
        for name, part in found
    ]
    return _comparison_table(caption, ["Group", "Value"], lines, list(labels))


def _comparison_table(
    caption: str, labels: list[str], lines: list[tuple[list[Markup], Comparison]], models: list[str]
) -> Markup:
    ends = [abs(end) for _, c in lines if c.n >= FEW for end in (c.low, c.high)]
    limit = max([*ends, *(abs(c.change) for _, c in lines)]) or 1.0
    header = [*labels, "Searches", *models, "Change", "95 % interval", "Better / same / worse"]
    body = [[*cells, *_comparison_cells(c, limit)] for cells, c in lines]
    return table(caption, header, body, labels=len(labels))


def _comparison_cells(c: Comparison, limit: float) -> list[Markup]:
    kind, arrow = "same", None
    if c.n >= FEW and c.low > 0:
        kind, arrow = "better", "▲ "
    elif c.n >= FEW and c.high < 0:
        kind, arrow = "worse", "▼ "
    drawn = join(whisker(c.change, c.low, c.high, limit, kind=kind), tag("span", interval(c.low, c.high)))
    counts = join(share_bar(c.wins, c.ties, c.losses), tag("span", f"{c.wins:,} / {c.ties:,} / {c.losses:,}"))
    return [
        tag("td", _few(c.n), " ", f"{c.n:,}", class_="number", data_value=c.n),
        _number(c.before, look="model"),
        _number(c.after, look="model"),
        tag("td", arrow, signed(c.change), class_=f"number change {kind}", data_value=f"{c.change:.6f}"),
        tag("td", drawn, class_="number reach", data_value=f"{c.low:.6f}"),
        tag("td", counts, class_="number counts", data_value=f"{c.wins / c.n:.6f}"),
    ]


def extra_tables(tables: Sequence[Table]) -> Markup | None:
    """Tables that are ready but for their headers' capitals, and metrics as they are called everywhere on the page."""
    shown = (table.mapped("metric", spelled).renamed(_capital) for table in tables)
    return join(*(Markup(table.html()) for table in shown)) if tables else None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def table(caption: str, header: Sequence[str], body: Sequence[Sequence[Markup]], *, labels: int) -> Markup:
    """Ready cells under a caption; columns after the first `labels` hold figures."""
    return Markup(Table(header, body, title=caption, align="l" * labels).html())


def _task_cell(entry: Entry) -> Markup:
    note = tag("small", entry.description) if entry.description else None
    return tag("th", untrusted(entry.title), note, scope="row", data_value=entry.title)


def _number(value: float, text: str | None = None, *, look: str = "") -> Markup:
    """look: what the style sheet places a card's cell by."""
    shown = f"{value:.3f}" if text is None else text
    return tag("td", shown, class_=f"number {look}".strip(), data_value=f"{value:.6f}")


def _few(n: int) -> Markup | None:
    hint = f"Fewer than {FEW} searches: take it as a hint"
    return tag("span", "too few", class_="few", title=hint) if n < FEW else None


def _natural(value: str) -> list[tuple[int, float, str]]:
    """Sorts 2 before 10, and numbers before words."""
    parts = re.findall(r"\d+|\D+", value)
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part.casefold()) for part in parts]


Columns = dict[str, list[str]]


def query_slices(task: RetrievalTask) -> Columns:
    """What can be told of any catalog's queries: length, kind, number of relevant products, their missing fields."""
    columns: Columns = {}
    side, rows = task.queries.side, np.arange(len(task.queries))
    texts = fields_of(side, Modality.text)
    if texts:
        columns["Words in the search"] = [_band(n, (1, 2, 3, 4), "none") for n in word_counts(task)]
    if len(side) > 1:
        present = task.queries.present(rows)
        columns["Search given as"] = [" and ".join(np.array(list(side))[row]) or "nothing" for row in present]
    judged = task.judgments
    relevant = judged.relevance > 0
    count = np.bincount(judged.query[relevant], minlength=len(rows))
    columns["Relevant products"] = [_band(int(n), (1, 5, 20), "none") for n in count]
    if (relevant & (judged.document >= 0)).any():
        for name, lacks in lacking(task).items():
            columns[f"Relevant products’ {name}"] = ["missing for some" if value else "always there" for value in lacks]
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def all_slices(task: RetrievalTask, given: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The given columns (built-in ones of `evaluate.slices` by the names they have here), and what else can be told."""
    named = {"query_length": "Words in the search", "head_tail": "Head or tail"}
    mine: dict[str, Sequence[Any]] = {
        named.get(name, f"Relevant products’ {name[8:]}" if name.startswith("missing ") else name): values
        for name, values in given.items()
    }
    return mine | {name: values for name, values in query_slices(task).items() if name not in mine}


def _band(n: int, edges: tuple[int, ...], zero: str) -> str:
    """
    >>> [_band(n, (1, 5, 20), "none") for n in (0, 1, 3, 20, 21)]
    ['none', '1', '2–5', '6–20', '21 or more']
    """
    if n == 0:
        return zero
    low = 1
    for edge in edges:
        if n <= edge:
            return str(edge) if low == edge else f"{low}–{edge}"
        low = edge + 1
    return f"{low} or more"
