"""What an engine did otherwise where it falls short: its results against those of the mistakes that engines make.

Most mistakes are exact search with another query: without weights, with those of one field, turned round. The others
add the scores of each field's first candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from gcl.exports.engines.engine import Filter, How
from gcl.exports.engines.filters import passes
from gcl.exports.engines.parity import Best, K, Measured, Reference
from gcl.exports.engines.payload import Batch

_QUERIES = 20  # that are tried
_CUTS = (K, 50, 200)  # candidates of each field
_ONE_BIT = "compares one bit of each number: it quantises the vectors and does not score them again"


def explain(short: Measured, reference: Reference, batches: Callable[[], Iterable[Batch]], filter: Filter) -> str:
    """A sentence: what the engine did otherwise, as far as its results are those of a mistake that is known.

    The mistakes are tried on some of the queries. Reads the batches once.
    """
    right, found = reference.queries.vector[:_QUERIES], short.found[:_QUERIES]
    weights = reference.queries.weights
    weights = np.ones((len(right), 1), np.float32) if weights is None else weights[:_QUERIES]
    fields = _of_fields(right, weights)
    best = {told: Best(query, max(_CUTS)) for told, query in _mistakes(right, fields)}
    best[_ONE_BIT] = Best(np.sign(right), K)
    for batch in batches():
        keep = np.flatnonzero(passes(batch, filter if short.setting.filtered else {}))
        ids = [batch.ids[at] for at in keep]
        for told, known in best.items():
            vectors = batch.vectors[keep]
            known.add(np.sign(vectors) if told == _ONE_BIT else vectors, batch.start + keep, ids)
    tried = {told: _overlap(known.ids, found) for told, known in best.items()}
    of_field = [best[_one_field(at, len(fields))] for at in range(len(fields))] if len(fields) > 1 else []
    tried |= {told: _overlap(_cut(of_field, weights, *cut), found) for told, cut in _cuts(len(fields))}
    exact = tried.pop("")
    likely = max(tried, key=tried.__getitem__)
    told = (
        f"{short.setting.name}: {short.overlap:.4f} of the exact top {K}, at least {short.setting.least:g} expected. "
    )
    if tried[likely] > exact + 0.05:
        return f"{told}The engine {likely} (that ranking is {tried[likely]:.2f} the same, the exact one {exact:.2f})."
    if short.setting.how is How.approximate:
        return (
            f"{told}The engine's index leaves out documents that are nearer than those it finds, and its results are "
            "those of no known mistake: search more candidates, build the index with more neighbours, or give another "
            "limit (approximate=…)."
        )
    return f"{told}Its results are those of no mistake that is known: normalisation, weights, metric, cut candidates."


def _of_fields(query: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Of query[Q, W] times weights[Q, F], each field's own query alone: [Q, W], 0 in the other fields."""
    asked = query.reshape(*weights.shape, -1) / np.maximum(weights[:, :, None], 1e-12)
    alone = np.eye(weights.shape[1], dtype=np.float32)[:, None, :, None]
    return [one.reshape(query.shape) for one in alone * asked]


def _mistakes(right: np.ndarray, fields: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """(what the engine did, the query whose ranking that gives); "" is the right one."""
    yield "", right
    yield "ranks the farthest documents first: its metric is a distance where it should be a similarity", -right
    if len(fields) > 1:
        yield "ignores the weights of the fields", np.sum(fields, axis=0)
        yield from ((_one_field(at, len(fields)), query) for at, query in enumerate(fields))


def _one_field(at: int, fields: int) -> str:
    return f"compares one field only, number {at + 1} of {fields}"


def _cuts(fields: int) -> Iterator[tuple[str, tuple[int, bool]]]:
    """(what the engine did, (candidates of each field, whether their scores are normalised))"""
    for most in _CUTS if fields > 1 else ():
        yield f"cuts the candidates of each field to {most} before it adds their scores", (most, False)
        yield f"normalises the scores of each field's first {most} candidates before it weighs them", (most, True)


def _cut(of_field: Sequence[Best], weights: np.ndarray, most: int, scaled: bool) -> list[list[str]]:
    """The best documents of each query by the sum of each field's first candidates."""
    best = []
    for query, shares in enumerate(weights):
        totals: defaultdict[str, float] = defaultdict(float)
        for known, weight in zip(of_field, shares, strict=True):
            score = known.score[query, :most]
            if scaled:
                score = (score - score.min()) / max(score.max() - score.min(), 1e-12)
            for name, value in zip(known.ids[query, :most], score, strict=True):
                totals[name] += weight * value
        best.append(sorted(totals, key=totals.__getitem__, reverse=True))
    return best


def _overlap(right: Iterable[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """The share of the right documents that was found, the mean over queries."""
    shares = [len({*ids[:K]} & {*names[:K]}) / len(ids[:K]) for ids, names in zip(right, found, strict=True)]
    return float(np.mean(shares))
