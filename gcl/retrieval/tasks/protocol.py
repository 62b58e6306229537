"""What an evaluation asks of a task: which of its queries, which of their judgments, graded how, ties broken how.

The settings of other evaluations are in conf/evaluate/ (gcl, marqtune, fashionclip, marqo_ecommerce); here is
what these settings do. The published evaluator they all come from is evals/eval_gs_v1.py (and eval_hf_datasets_v1.py)
of https://github.com/marqo-ai/GCL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gcl.data.store.records import Records
from gcl.retrieval.settings import Rules, Sampling
from gcl.retrieval.tasks.task import JudgedPairs, RetrievalTask
from gcl.schema import Modality

BETWEEN = "_{!@#~}_"  # follows every query field in the published evaluator; it decides the sorted order


def under(task: RetrievalTask, rules: Rules) -> RetrievalTask:
    """The task as the rules ask it: graded, with its sample of the queries in the order of being drawn, and cut.

    Raises ValueError for rules that cannot be meant.
    """
    rules.check()
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
    "_{!@#~}_". Queries with an image are sorted by their id."""
    if any(field.modality is not Modality.text for field in queries.side.values()):
        return [str(name) for name in queries.ids]
    rows = np.arange(len(queries))
    columns = [queries.column(name, rows) for name in queries.side]
    return ["".join((text or "") + BETWEEN for text in texts) for texts in zip(*columns, strict=True)]


def sample(
    keys: Sequence[str], weight: np.ndarray, count: int, how: Sampling | str = Sampling.weight, *, seed: int = 1
) -> np.ndarray:
    """Positions of `count` queries. "weight" and "uniform" draw as pandas' `sample(count, random_state=seed)` does from
    a table sorted by key; "largest" takes the largest weights, the first of equal ones.

    >>> sample(["b", "a", "c"], np.array([1.0, 3.0, 0.5]), 2, "largest")
    array([1, 0])
    """
    rules = Rules(queries=count, sample=Sampling(how), seed=seed)
    if rules.sample is Sampling.largest:
        return draw(weight, rules)
    table = np.array(sorted(range(len(keys)), key=lambda position: str(keys[position])))
    return table[draw(weight[table], rules)]


def draw(weight: np.ndarray, rules: Rules) -> np.ndarray:
    """Positions of the drawn queries, among queries in sorted order with these weights."""
    if rules.queries is None or rules.queries >= len(weight):
        return np.arange(len(weight))
    if rules.sample is Sampling.largest:
        return np.argsort(-weight, kind="stable")[: rules.queries]
    p = None if rules.sample is Sampling.uniform else weight / weight.sum()
    return np.random.RandomState(rules.seed).choice(len(weight), size=rules.queries, replace=False, p=p)


def with_queries(task: RetrievalTask, positions: np.ndarray) -> RetrievalTask:
    """The task with only these of its queries, in this order; the corpus stays whole."""
    place = np.full(len(task.queries), -1)
    place[positions] = np.arange(len(positions))
    kept = _select(task.judgments, np.flatnonzero(place[task.judgments.query] >= 0))
    kept = replace(kept, query=place[kept.query])
    return replace(task, queries=task.queries.subset(positions), judgments=kept)


def _select(judgments: JudgedPairs, which: np.ndarray) -> JudgedPairs:
    names = np.full(len(judgments), None, dtype=object)
    names[judgments.document < 0] = judgments.outside if judgments.outside else None
    outside = tuple(name for name in names[which] if name is not None)
    return replace(
        judgments, query=judgments.query[which], document=judgments.document[which],
        relevance=judgments.relevance[which], outside=outside,
    )  # fmt: skip


def _most_relevant(judgments: JudgedPairs, count: int) -> np.ndarray:
    """Positions, in their order, of each query's `count` most relevant judgments; the first of equal ones."""
    order = np.lexsort((-judgments.relevance, judgments.query))
    query = judgments.query[order]
    first = np.searchsorted(query, query, side="left")
    return np.sort(order[np.arange(len(order)) - first < count])
