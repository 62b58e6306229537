"""What an engine did otherwise where it falls short: its results against those of the mistakes that engines make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from gcl.exports.engines.filters import passes
from gcl.exports.engines.parity import K, Measured, Reference
from gcl.exports.engines.payload import Batch
from gcl.exports.engines.registry import Filter, How

_QUERIES = 20  # that are tried
_CUTS = (K, 50, 200)  # candidates of each field


class _Best:
    """The best documents of each query by some score so far, of equal ones the earlier.

    score[q, most], ids[q, most]."""

    def __init__(self, queries: int, most: int) -> None:
        self._most, self.score, self.ids = most, np.empty((queries, 0), np.float32), np.empty((queries, 0), object)

    def add(self, score: np.ndarray, ids: np.ndarray) -> None:
        """score[q, n] of the documents with these ids[n]."""
        place = self._first(score)
        self.score = np.concatenate([self.score, np.take_along_axis(score, place, axis=1)], axis=1)
        self.ids = np.concatenate([self.ids, ids[place]], axis=1)
        place = self._first(self.score)
        self.score, self.ids = (np.take_along_axis(one, place, axis=1) for one in (self.score, self.ids))

    def _first(self, score: np.ndarray) -> np.ndarray:
        return np.argsort(-score, axis=1, kind="stable")[:, : self._most]

    def overlap(self, found: Sequence[Sequence[str]]) -> float:
        """The share of these documents that was found, the mean over queries."""
        return float(np.mean([_share(ids.tolist(), names) for ids, names in zip(self.ids, found, strict=False)]))


def explain(short: Measured, reference: Reference, batches: Callable[[], Iterable[Batch]], filter: Filter) -> str:
    """A sentence: what the engine did otherwise, as far as its results are those of a mistake that is known.

    The mistakes are tried on some of the queries. Reads the batches once.
    """
    queries, some = reference.queries, min(len(reference.queries), _QUERIES)
    weights = np.ones((some, 1), np.float32) if queries.weights is None else queries.weights[:some]
    fields = weights.shape[1]
    first = queries.vector[:some].reshape(some, fields, -1)
    ask = first / np.maximum(weights[:, :, None], 1e-12)  # each field's own query again
    best: defaultdict[str, _Best] = defaultdict(lambda: _Best(some, K))
    of_field = [_Best(some, max(_CUTS)) for _ in range(fields)]
    for batch in batches():
        keep = np.flatnonzero(passes(batch, filter if short.setting.filtered else {}))
        if not len(keep):
            continue
        vectors, ids = batch.vectors[keep], np.array(batch.ids, object)[keep]
        parts = vectors.reshape(len(keep), fields, -1)
        cosines = np.stack([ask[:, field] @ parts[:, field].T for field in range(fields)], axis=1)
        for sentence, score in _mistakes(cosines, weights):
            best[sentence].add(score, ids)
        best[_ONE_BIT].add(np.sign(queries.vector[:some]) @ np.sign(vectors).T, ids)
        for field, known in enumerate(of_field):
            known.add(cosines[:, field], ids)
    tried = {sentence: known.overlap(short.found) for sentence, known in best.items()}
    tried |= {sentence: _cut_overlap(short.found, of_field, weights, *cut) for sentence, cut in _cuts(fields)}
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


_ONE_BIT = "compares one bit of each number: it quantises the vectors and does not score them again"


def _mistakes(cosines: np.ndarray, weights: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(what the engine did, score[q, n]) from cosines[q, F, n]; "" is the right score."""
    sums = np.einsum("qf,qfn->qn", weights, cosines) if cosines.shape[1] > 1 else cosines[:, 0]
    yield "", sums
    yield "ranks the farthest documents first: its metric is a distance where it should be a similarity", -sums
    if cosines.shape[1] > 1:
        yield "ignores the weights of the fields", cosines.sum(axis=1)
        for field in range(cosines.shape[1]):
            yield f"compares one field only, the {field + 1}. of them", cosines[:, field]


def _cuts(fields: int) -> Iterator[tuple[str, tuple[int, bool]]]:
    """(what the engine did, (candidates of each field, whether their scores are normalised))"""
    for most in _CUTS if fields > 1 else ():
        yield f"cuts the candidates of each field to {most} before it adds their scores", (most, False)
        yield f"normalises the scores of each field's first {most} candidates before it weighs them", (most, True)


def _cut_overlap(
    found: Sequence[Sequence[str]], of_field: Sequence[_Best], weights: np.ndarray, most: int, scaled: bool
) -> float:
    """The share that was found of the best documents by the sum of each field's first candidates."""
    shares = []
    for query, names in zip(range(len(weights)), found, strict=False):
        totals: defaultdict[str, float] = defaultdict(float)
        for known, weight in zip(of_field, weights[query], strict=True):
            score = known.score[query, :most]
            if scaled:
                score = (score - score.min()) / max(score.max() - score.min(), 1e-12)
            for name, value in zip(known.ids[query, :most], score, strict=True):
                totals[name] += weight * value
        shares.append(_share(sorted(totals, key=totals.__getitem__, reverse=True)[:K], names))
    return float(np.mean(shares))


def _share(right: Sequence[str], found: Sequence[str]) -> float:
    return len(set(right).intersection(found[:K])) / len(right)
