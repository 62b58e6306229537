"""Groups of queries that may fare differently: `{column: [value of each query]}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Modality

Columns = dict[str, list[str]]


def query_slices(task: RetrievalTask) -> Columns:
    """What can be told of any catalog's queries: length, kind, number of relevant products, their missing fields."""
    found: Columns = {}
    side, rows = task.queries.side, np.arange(len(task.queries))
    texts = [name for name, field in side.items() if field.modality is Modality.text]
    if texts:
        words = [task.queries.column(name, rows) for name in texts]
        lengths = [sum(len(value.split()) for value in values if value) for values in zip(*words, strict=True)]
        found["Words in the search"] = [_band(n, (1, 2, 3, 4), "none") for n in lengths]
    if len(side) > 1:
        present = task.queries.present(rows)
        found["Search given as"] = [" and ".join(np.array(list(side))[row]) or "nothing" for row in present]
    judged = task.judgments
    relevant = judged.relevance > 0
    count = np.bincount(judged.query[relevant], minlength=len(rows))
    found["Relevant products"] = [_band(int(n), (1, 5, 20), "none") for n in count]
    found |= _missing(task, relevant & (judged.document >= 0))
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def all_slices(task: RetrievalTask, given: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The given columns (built-in ones of `evaluate.slices` by the names they have here), and what else can be told."""
    named = {"query_length": "Words in the search", "head_tail": "Head or tail"}
    mine: dict[str, Sequence[Any]] = {
        named.get(name, f"Relevant products’ {name[8:]}" if name.startswith("missing ") else name): values
        for name, values in given.items()
    }
    return mine | {name: values for name, values in query_slices(task).items() if name not in mine}


def _missing(task: RetrievalTask, usable: np.ndarray) -> Columns:
    """For each field: whether some relevant product of the query lacks it."""
    query, document = task.judgments.query[usable], task.judgments.document[usable]
    if not len(document):
        return {}
    present = task.corpus.present(document)
    found = {}
    for column, name in enumerate(task.corpus.side):
        lacking = np.zeros(len(task.queries), dtype=bool)
        lacking[query[~present[:, column]]] = True
        found[f"Relevant products’ {name}"] = ["missing for some" if value else "always there" for value in lacking]
    return found


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
