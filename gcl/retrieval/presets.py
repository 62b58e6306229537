"""Other people's evaluations, to compare with their published figures: what they sample, grade and report.

    "gcl"          evals/eval_gs_v1.py of github.com/marqo-ai/GCL: scores become 1…100, 2,000 queries drawn by weight
    "gcl-uniform"  its variant on the hub: the same with every query equally likely
    "marqtune"     the metrics of Marqtune's evaluation, on the 4,000 queries of the largest weight
    "fashionclip"  the metrics of Marqo-FashionCLIP

The published GCL figures mix two rules for equal scores: pytrec_eval's (document id descending) and the order of the
list for what is computed in loops. The preset does the same; everywhere else ours holds (id ascending).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

import numpy as np

from gcl.retrieval.evaluate import TaskResult, result_of
from gcl.retrieval.names import parse_metric
from gcl.retrieval.task import Judgments, RetrievalTask

_CUTOFFS = (1, 2, 3, 4, 5, 6, 8, 10, 20, 50, 100, 200, 500, 1000)
_BY_TREC_EVAL = ("ndcg", "map", "recall", "precision")


@dataclass(frozen=True)
class Preset:
    """metrics and depth: what is computed from how many results. queries, sampling: how many of a task's queries are
    asked and how they are chosen. rescaled: relevance becomes 1…100 (`rescale`). judged: at most so many judgments a
    query, the most relevant ones. mixed_ties: see above."""

    metrics: tuple[str, ...]
    depth: int = 1000
    queries: int | None = None
    sampling: Literal["weight", "uniform", "largest"] = "weight"
    rescaled: bool = False
    judged: int | None = None
    mixed_ties: bool = False


_GCL = Preset(
    metrics=tuple(f"{family}@{k}" for family in (*_BY_TREC_EVAL, "mrr") for k in _CUTOFFS)
    + ("err@1000", "rbp.7@1000", "rbp.8@1000", "rbp.9@1000"),
    queries=2000,
    rescaled=True,
    judged=1000,
    mixed_ties=True,
)
PRESETS = {
    "gcl": _GCL,
    "gcl-uniform": replace(_GCL, sampling="uniform"),
    "marqtune": Preset(
        metrics=("ndcg@10", "ndcg@100", "mrr@1000", "map@1000", "precision@10", "recall@10", "recall@50"),
        queries=4000,
        sampling="largest",
    ),
    "fashionclip": Preset(metrics=("mrr", "recall@1", "recall@10", "precision@1", "precision@10")),
}


def preset(name: str) -> Preset:
    if name not in PRESETS:
        nearest = get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        raise ValueError(f"There is no preset {name!r}, did you mean {nearest!r}? There are {', '.join(PRESETS)}.")
    return PRESETS[name]


def prepared_for(task: RetrievalTask, rule: Preset) -> RetrievalTask:
    """The task as the preset asks it: graded, cut and with its sample of the queries, in their order of being drawn."""
    judgments = task.judgments
    relevance = rescale(judgments.relevance) if rule.rescaled else judgments.relevance
    judgments = replace(judgments, relevance=relevance)
    if rule.judged is not None:
        judgments = _select(judgments, _most_relevant(judgments, rule.judged))
    task = RetrievalTask(task.name, task.queries, task.corpus, judgments)
    if rule.queries is None or rule.queries >= len(task.queries):
        return task
    weight = np.bincount(judgments.query, weights=judgments.relevance, minlength=len(task.queries))
    return with_queries(task, sample(task.queries.ids, weight, rule.queries, rule.sampling))


def measured_by(task: RetrievalTask, rule: Preset, score: np.ndarray, row: np.ndarray) -> TaskResult:
    """The preset's metrics of results that are already there, with its rules for equal scores."""
    if not rule.mixed_ties:
        return result_of(task, score, row, rule.metrics)
    by_id = [name for name in rule.metrics if parse_metric(name).family in _BY_TREC_EVAL]
    listed = [name for name in rule.metrics if name not in by_id]
    result = result_of(task, score, row, listed, ties="listed")
    values = result.values | result_of(task, score, row, by_id, ties="descending").values
    return replace(result, values={name: values[name] for name in rule.metrics})


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


def sample(ids: Sequence[str], weight: np.ndarray, count: int, how: str = "weight") -> np.ndarray:
    """Positions of `count` queries. "weight" and "uniform" draw as pandas' `sample(count, random_state=1)` does from a
    table sorted by query; "largest" takes the largest weights, the first of equal ones.

    >>> sample(["b", "a", "c"], np.array([1.0, 3.0, 0.5]), 2, "largest")
    array([1, 0])
    """
    if how == "largest":
        return np.argsort(-weight, kind="stable")[:count]
    if how not in ("weight", "uniform"):
        raise ValueError(f"Queries are sampled by weight, uniform or largest; not {how!r}.")
    table = np.array(sorted(range(len(ids)), key=lambda position: str(ids[position])))
    p = None if how == "uniform" else weight[table] / weight.sum()
    return table[np.random.RandomState(1).choice(len(table), size=count, replace=False, p=p)]


def with_queries(task: RetrievalTask, positions: np.ndarray) -> RetrievalTask:
    """The task with only these of its queries, in this order; the corpus stays whole."""
    place = np.full(len(task.queries), -1)
    place[positions] = np.arange(len(positions))
    kept = _select(task.judgments, np.flatnonzero(place[task.judgments.query] >= 0))
    kept = replace(kept, query=place[kept.query])
    return RetrievalTask(task.name, task.queries.subset(positions), task.corpus, kept)


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
