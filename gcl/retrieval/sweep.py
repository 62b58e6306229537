"""Which weights of the fields retrieve best? Fields are embedded once; only the fusing and the search are repeated.

Choose on the dev half, report on the test half: the best of many weights is lucky on the half it was chosen on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcl.retrieval.embed import FieldEmbeddings
from gcl.retrieval.evaluate import result_of
from gcl.retrieval.report import aligned
from gcl.retrieval.search import search
from gcl.retrieval.task import RetrievalTask

_NOTHING = 1e-6  # the weight a field of weight 0 gets: it counts only where a record has no other


@dataclass(frozen=True)
class Tried:
    """One combination of weights and the mean of each metric."""

    weights: dict[str, float]
    means: dict[str, float]


def grid(fields: Sequence[str], steps: int = 10) -> Iterator[dict[str, float]]:
    """All weights that are multiples of 1/steps and sum to 1.

    >>> list(grid(["image", "title"], 2))
    [{'image': 0.0, 'title': 1.0}, {'image': 0.5, 'title': 0.5}, {'image': 1.0, 'title': 0.0}]
    """

    def shares(count: int, left: int) -> Iterator[tuple[int, ...]]:
        if count == 1:
            yield (left,)
            return
        for first in range(left + 1):
            yield from ((first, *rest) for rest in shares(count - 1, left - first))

    for combination in shares(len(fields), steps):
        yield dict(zip(fields, (share / steps for share in combination), strict=True))


def sweep_weights(
    task: RetrievalTask,
    query: np.ndarray,
    documents: FieldEmbeddings,
    metrics: Sequence[str] = ("ndcg@10",),
    *,
    k: int = 100,
    candidates: Sequence[Mapping[str, float]] | None = None,
) -> list[Tried]:
    """Every combination, best first by the first metric. query[Q, D]: fused; documents: of the task's corpus.

    A record whose fields all have weight 0 is represented by what it has.
    """
    found = []
    for weights in grid(list(documents.side)) if candidates is None else candidates:
        floored = {name: max(weights.get(name, 0.0), _NOTHING) for name in documents.side}
        score, row = search(query, documents.fused(floored), k, rank=task.id_ranks)
        found.append(Tried(dict(weights), result_of(task, score, row, metrics).means))
    return sorted(found, key=lambda tried: -tried.means[metrics[0]])


def as_text(found: Sequence[Tried], top: int = 10) -> str:
    if not found:
        return ""
    header = [*found[0].weights, *found[0].means]
    body = [[f"{w:g}" for w in t.weights.values()] + [f"{m:.4f}" for m in t.means.values()] for t in found[:top]]
    return aligned(header, body, words=0)
