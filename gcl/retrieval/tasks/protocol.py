"""What an evaluation asks of a task: which of its queries, which of their judgments, graded how, ties broken how.

The values of other people's evaluations stand in conf/evaluate/ (gcl, marqtune, fashionclip, marqo_ecommerce); here is
what the words there do. The published evaluator they all come from is evals/eval_gs_v1.py (and eval_hf_datasets_v1.py)
of https://github.com/marqo-ai/GCL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from gcl.data.store.records import Records
from gcl.retrieval.metrics.names import Sampling, TieRule
from gcl.retrieval.tasks.task import Judgments, RetrievalTask
from gcl.schema import Modality

BETWEEN = "_{!@#~}_"  # stands behind every query field in the published evaluator; it decides the sorted order


@dataclass(frozen=True)
class Rules:
    """queries: how many of a task's queries are asked (None: all), chosen as `sample` says with `seed`. rescale:
    relevance becomes 1…100 over the task's whole range. judged: at most so many judgments a query, the most relevant
    ones. ties: how equal scores are ordered; "published" is the mixture of the published figures (`TieRule`)."""

    queries: int | None = None
    sample: Sampling = "weight"
    seed: int = 1
    rescale: bool = False
    judged: int | None = None
    ties: TieRule = "ascending"

    def __post_init__(self) -> None:
        for name, kind in (("sample", Sampling), ("ties", TieRule)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"evaluate.{name} is {', '.join(get_args(kind))}; not {getattr(self, name)!r}.")
        for name in ("queries", "judged"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"evaluate.{name}={value}: a number of at least 1, or null for all.")


def under(task: RetrievalTask, rules: Rules) -> RetrievalTask:
    """The task as the rules ask it: graded, with its sample of the queries in the order of being drawn, and cut."""
    judgments = task.judgments
    if rules.rescale:
        judgments = replace(judgments, relevance=rescale(judgments.relevance))
    task = replace(task, judgments=judgments)
    if rules.queries is not None and rules.queries < len(task.queries):
        weight = np.bincount(judgments.query, weights=judgments.relevance, minlength=len(task.queries))
        drawn = sample(sorting_keys(task.queries), weight, rules.queries, rules.sample, seed=rules.seed)
        task = with_queries(task, drawn)
    if rules.judged is not None:
        kept = _select(task.judgments, _most_relevant(task.judgments, rules.judged))
        task = replace(task, judgments=kept)
    return task


def rescale(score: np.ndarray) -> np.ndarray:
    """Whole numbers 1…100 over the range of all scores; 1 if all are equal.

    >>> rescale(np.array([0.0, 0.5, 1.0])), rescale(np.array([7.0, 7.0]))
    (array([  1.,  50., 100.], dtype=float32), array([1., 1.], dtype=float32))
    """
    score = np.asarray(score, dtype=np.float64)
    low, high = score.min(initial=np.inf), score.max(initial=-np.inf)
    if not high > low:
        return np.ones(len(score), dtype=np.float32)
    return np.floor((score - low) / (high - low) * 99 + 1).astype(np.float32)


def sorting_keys(queries: Records) -> list[str]:
    """What the published evaluator sorts queries by before it draws: the text of their fields, each followed by
    "_{!@#~}_". Queries with a picture go by their id."""
    if any(field.modality is not Modality.text for field in queries.side.values()):
        return [str(name) for name in queries.ids]
    rows = np.arange(len(queries))
    columns = [queries.column(name, rows) for name in queries.side]
    return ["".join((text or "") + BETWEEN for text in texts) for texts in zip(*columns, strict=True)]


def sample(
    keys: Sequence[str], weight: np.ndarray, count: int, how: Sampling = "weight", *, seed: int = 1
) -> np.ndarray:
    """Positions of `count` queries. "weight" and "uniform" draw as pandas' `sample(count, random_state=seed)` does from
    a table sorted by key; "largest" takes the largest weights, the first of equal ones.

    >>> sample(["b", "a", "c"], np.array([1.0, 3.0, 0.5]), 2, "largest")
    array([1, 0])
    """
    if how == "largest":
        return np.argsort(-weight, kind="stable")[:count]
    table = np.array(sorted(range(len(keys)), key=lambda position: str(keys[position])))
    return table[draw(weight[table], Rules(count, how, seed))]


def draw(weight: np.ndarray, rules: Rules) -> np.ndarray:
    """Positions of the queries that are asked, of queries in sorted order with these weights."""
    if rules.queries is None or rules.queries >= len(weight):
        return np.arange(len(weight))
    if rules.sample == "largest":
        return np.argsort(-weight, kind="stable")[: rules.queries]
    p = None if rules.sample == "uniform" else weight / weight.sum()
    return np.random.RandomState(rules.seed).choice(len(weight), size=rules.queries, replace=False, p=p)


def with_queries(task: RetrievalTask, positions: np.ndarray) -> RetrievalTask:
    """The task with only these of its queries, in this order; the corpus stays whole."""
    place = np.full(len(task.queries), -1)
    place[positions] = np.arange(len(positions))
    kept = _select(task.judgments, np.flatnonzero(place[task.judgments.query] >= 0))
    kept = replace(kept, query=place[kept.query])
    return replace(task, queries=task.queries.subset(positions), judgments=kept)


def _select(judgments: Judgments, which: np.ndarray) -> Judgments:
    names = np.full(len(judgments), None, dtype=object)
    names[judgments.document < 0] = judgments.outside if judgments.outside else None
    outside = tuple(name for name in names[which] if name is not None)
    return Judgments(judgments.query[which], judgments.document[which], judgments.relevance[which], outside)


def _most_relevant(judgments: Judgments, count: int) -> np.ndarray:
    """Positions, in their order, of each query's `count` most relevant judgments; the first of equal ones."""
    order = np.lexsort((-judgments.relevance, judgments.query))
    query = judgments.query[order]
    first = np.searchsorted(query, query, side="left")
    return np.sort(order[np.arange(len(order)) - first < count])
