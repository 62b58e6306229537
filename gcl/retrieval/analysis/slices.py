"""Where does a model get better or worse? One metric by the values of a column: kind, category, length, …"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gcl.retrieval.metrics.statistics import FEWEST, Comparison, compare
from gcl.retrieval.report import interval_text
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Modality, fields_of
from gcl.table import Table, Value

TITLE = "{metric} by group of searches (many groups: some look good or bad by chance)"

MOST_VALUES = 40  # of a column; the rarer ones are one group

Lookup = Mapping[str, Mapping[str, str]]  # column -> id -> value


@dataclass(frozen=True)
class Slice:
    """Two models on the queries that have one value in a column."""

    value: str
    comparison: Comparison

    @property
    def too_few(self) -> bool:
        return self.comparison.n < FEWEST


def slices(column: Sequence[Any], before: np.ndarray, after: np.ndarray, *, seed: int = 0) -> list[Slice]:
    """One entry per value of the column (None counts as a value), most queries first. before[Q], after[Q]: a metric."""
    if not len(column) == len(before) == len(after):
        raise ValueError(f"{len(column)} values for {len(before)} and {len(after)} queries: give one value per query.")
    names = np.array(["none" if value is None else str(value) for value in column], dtype=object)
    groups = [
        Slice(name, compare(before[names == name], after[names == name], samples=2000, seed=seed))
        for name in sorted(set(names))
    ]
    return sorted(groups, key=lambda slice: -slice.comparison.n)


def slice_columns(
    task: RetrievalTask, names: Sequence[str], *, documents: Lookup | None = None, queries: Lookup | None = None
) -> dict[str, list[str]]:
    """{column: the value of each query} for the names of a config.

    query_length: in words. head_tail: "head" are the queries with the most relevant documents, which have half of all.
    missing: one column per field, whether a relevant document lacks it. A text field of the queries: its value. Any
    other name is a column of the documents (a text field, or looked up by id in `documents`): the value that most of a
    query's relevant documents have, weighted by relevance, "several" if no value has half of it; or one of the
    queries (looked up in `queries`).
    """
    columns: dict[str, list[str]] = {}
    for name in names:
        if name == "query_length":
            columns[name] = _lengths(task)
        elif name == "head_tail":
            columns[name] = _head_or_tail(task)
        elif name == "missing":
            columns |= _missing(task)
        else:
            columns[name] = _rare_together(_column(task, name, documents or {}, queries or {}))
    return columns


def _column(task: RetrievalTask, name: str, documents: Lookup, queries: Lookup) -> list[str]:
    if name in task.queries.side:
        return [str(value or "none") for value in task.queries.column(name, np.arange(len(task.queries)))]
    of_query = queries.get(name, {})
    if any(str(key) in of_query for key in task.queries.ids):
        return [of_query.get(str(key), "none") for key in task.queries.ids]
    if name in task.corpus.side:

        def value_of(rows: np.ndarray) -> list[str | None]:
            return [None if value is None else str(value) for value in task.corpus.column(name, rows)]
    else:
        known, ids = documents.get(name, {}), task.corpus.ids

        def value_of(rows: np.ndarray) -> list[str | None]:
            return [known.get(str(ids[row])) for row in rows]

    return _majority(task, value_of)


def _majority(task: RetrievalTask, value_of: Callable[[np.ndarray], list[str | None]]) -> list[str]:
    judged = task.judgments
    usable = np.flatnonzero((judged.relevance > 0) & (judged.document >= 0))
    rows, place = np.unique(judged.document[usable], return_inverse=True)
    values = value_of(rows)
    weights: list[Counter[str]] = [Counter() for _ in range(len(task.queries))]
    for query, at, relevance in zip(
        judged.query[usable], place.reshape(-1), judged.relevance[usable].tolist(), strict=True
    ):
        weights[query][values[at] or "none"] += relevance
    majority = []
    for counted in weights:
        value, weight = counted.most_common(1)[0] if counted else ("none", 1.0)
        majority.append(value if weight >= 0.5 * sum(counted.values()) else "several")
    return majority


def _rare_together(values: list[str]) -> list[str]:
    counted = Counter(values)
    if len(counted) <= MOST_VALUES:
        return values
    kept = {value for value, _ in counted.most_common(MOST_VALUES - 1)}
    others = f"{len(counted) - len(kept)} others"
    return [value if value in kept else others for value in values]


def _lengths(task: RetrievalTask) -> list[str]:
    return [
        "no words" if n == 0 else "1 word" if n == 1 else f"{n} words" if n < 5 else "5 words or more"
        for n in word_counts(task)
    ]


def word_counts(task: RetrievalTask) -> list[int]:
    """Words in the text fields of each query."""
    rows = np.arange(len(task.queries))
    texts = fields_of(task.queries.side, Modality.text)
    columns = [task.queries.column(name, rows) for name in texts]
    return [sum(len(str(column[row] or "").split()) for column in columns) for row in rows]


def _head_or_tail(task: RetrievalTask) -> list[str]:
    judged = task.judgments
    count = np.bincount(judged.query[judged.relevance > 0], minlength=len(task.queries))
    order = np.argsort(-count, kind="stable")
    before = np.cumsum(count[order]) - count[order]
    head = np.zeros(len(count), dtype=bool)
    head[order[before < count.sum() / 2]] = True
    return np.where(head, "head", "tail").tolist()


def _missing(task: RetrievalTask) -> dict[str, list[str]]:
    return {
        f"missing {name}": np.where(lacks, "some lack it", "all have it").tolist()
        for name, lacks in lacking(task).items()
    }


def lacking(task: RetrievalTask) -> dict[str, np.ndarray]:
    """{document field: bool[Q], whether some relevant document of the query lacks it}"""
    judged = task.judgments
    usable = (judged.relevance > 0) & (judged.document >= 0)
    query, document = judged.query[usable], judged.document[usable]
    present = task.corpus.present(document) if len(document) else np.ones((0, len(task.corpus.side)), dtype=bool)
    by_field = {}
    for number, name in enumerate(task.corpus.side):
        by_field[name] = np.zeros(len(task.queries), dtype=bool)
        by_field[name][query[~present[:, number]]] = True
    return by_field


@dataclass(frozen=True)
class Sliced:
    """One task, model (against the first) and column. one: there is one model only, compared with itself."""

    task: str
    model: str
    column: str
    metric: str
    parts: list[Slice]
    one: bool = False


_MOST_LINES = 12  # of a column in a terminal
_MOST_SMALL = 3  # groups too small to say anything are shown among the first three only


def slices_table(sliced: Sequence[Sliced], *, short: bool = False) -> Table:
    """A row per task, model, column and value. short: for a terminal, the largest groups of each column."""
    rows: list[list[Value]] = []
    for one in sliced:
        shown = one.parts
        if short:
            largest = enumerate(one.parts[:_MOST_LINES])
            shown = [part for place, part in largest if place < _MOST_SMALL or not part.too_few]
        rows += [_row(one, part) for part in shown]
        if len(one.parts) > len(shown):
            rest = f"… {len(one.parts) - len(shown)} more in slices.csv"
            rows.append([one.task, one.model, one.column, rest, None, None, None, None, None])
    metric = sliced[0].metric if sliced else "A metric"
    header = ("task", "model", "column", "value", "base", "tuned", "change", "95 % interval", "n")
    return Table(header, rows, title=TITLE.format(metric=metric), align="llll", formats={"change": "+.4f"})


def _row(one: Sliced, part: Slice) -> list[Value]:
    c, few = part.comparison, "too few" if part.too_few else ""
    change: list[Value] = [None, None, few] if one.one else [c.after, c.change, few or interval_text(c)]
    return [one.task, one.model, one.column, part.value, c.before, *change, c.n]


def slices_records(sliced: Sequence[Sliced]) -> list[dict[str, Value]]:
    """A record per value, in full precision."""
    return [
        {"task": one.task, "model": one.model, "column": one.column, "value": part.value, "metric": one.metric,
         **asdict(part.comparison), "too_few": part.too_few}
        for one in sliced
        for part in one.parts
    ]  # fmt: skip
