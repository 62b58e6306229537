"""What the scores of a catalog say: example pairs in words, and whether the best pairs have the highest scores.

A score that is turned round (1 = best) trains the model backwards without any other sign of it. Three things betray it,
each compared inside a query, where scores mean the same:

1. text: of two products of one query, does the one with the higher score share more of the query's words? Words count
   by their rarity among the products (inverse document frequency)
2. order: is the better score further up in the table? Lists are mostly written with the best first
3. ranks: are the scores of a query 1, 2, 3, … to the number of its products, whatever that number is?

1 and 2 are Goodman and Kruskal's gamma (1954, https://doi.org/10.1080/01621459.1954.10501231) of each query, averaged
over queries, with a 99 % interval of that mean.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from gcl.data.doctor.copies import halves_of_tasks
from gcl.data.doctor.samples import EXAMPLES, named
from gcl.data.prepare.copies import fold
from gcl.data.store.prepared import SITUATIONS, Pairs, Prepared
from gcl.data.store.records import Stored, title_fields

MOST_QUERIES, MOST_PER_QUERY, MOST_DOCUMENTS = 2_000, 24, 20_000  # that are compared
_FEWEST = 12  # queries that an average is taken over
_STEM = 5  # letters by which words are compared, so that "hoodies" is "hoodie"
_99 = 2.576
_WORD = re.compile(r"\w+")


def all_pairs(prepared: Prepared) -> Pairs:
    """Every pair once, held-out ones included, in rows of the stores."""
    situations = [name for name in prepared.task_names if name.rpartition("/")[2] in SITUATIONS]
    parts = [prepared.pairs, *(_judgments(task) for task in halves_of_tasks(prepared, situations))]
    query, document, score = (np.concatenate([getattr(part, name) for part in parts])
                              for name in ("query", "document", "score"))  # fmt: skip
    _, first = np.unique(query * np.int64(len(prepared.documents)) + document, return_index=True)
    return Pairs(query[first], document[first], score[first])


def _judgments(task: Any) -> Pairs:
    return Pairs(task.query, task.document, task.relevance)


def judged_pairs(prepared: Prepared) -> dict[str, Pairs]:
    """The judgments of each explicit task."""
    found: dict[str, Pairs] = {}
    for name in prepared.task_names:
        if name.rpartition("/")[2] not in SITUATIONS:
            halves = list(halves_of_tasks(prepared, [name]))
            query, document, relevance = (
                np.concatenate([getattr(half, column) for half in halves])
                for column in ("query", "document", "relevance")
            )
            found[name] = Pairs(query, document, relevance)
    return found


def example_pairs(prepared: Prepared, pairs: Pairs) -> dict[str, list[dict[str, Any]]]:
    """Three pairs of the highest and three of the lowest score, of different queries and products where there are."""
    if not len(pairs):
        return {}
    draw = np.random.default_rng(0).random(len(pairs))
    highest = np.lexsort((draw, -pairs.score))
    chosen = {"highest": _different(pairs, highest)}
    if pairs.score.min() < pairs.score.max():
        chosen["lowest"] = _different(pairs, np.lexsort((draw, pairs.score)))
    return {
        end: [
            {
                "score": float(pairs.score[place]),
                "query": named(prepared.queries, int(pairs.query[place])),
                "document": named(prepared.documents, int(pairs.document[place])),
            }
            for place in places
        ]
        for end, places in chosen.items()
    }


def _different(pairs: Pairs, order: np.ndarray) -> list[int]:
    chosen: list[int] = []
    for place in order[:10_000].tolist():
        others = [(pairs.query[other], pairs.document[other]) for other in chosen]
        if all(pairs.query[place] != query and pairs.document[place] != document for query, document in others):
            chosen.append(place)
            if len(chosen) == EXAMPLES:
                return chosen
    return [*chosen, *(place for place in order[:EXAMPLES].tolist() if place not in chosen)][:EXAMPLES]


def direction(prepared: Prepared, pairs: Pairs, *, ordered: Pairs | None = None) -> dict[str, Any]:
    """What the three signs say: {"text": gamma, "order": gamma, "ranks": …}, see above. ordered: pairs in the order of
    their table."""
    groups = _groups(pairs)
    facts: dict[str, Any] = {"text": _average(_text_gammas(prepared, pairs, groups)), "ranks": _ranks(pairs, groups)}
    if ordered is not None:
        listed = _groups(ordered)
        facts["order"] = _average([_gamma(-np.arange(len(rows)), ordered.score[rows]) for rows in listed])
    return facts


def _groups(pairs: Pairs) -> list[np.ndarray]:
    """The places of each query's pairs, for queries with different scores."""
    order = np.argsort(pairs.query, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(pairs.query[order])) + 1)
    return [rows for rows in groups if len(rows) > 1 and np.ptp(pairs.score[rows]) > 0]


def _text_gammas(prepared: Prepared, pairs: Pairs, groups: list[np.ndarray]) -> list[float | None]:
    random = np.random.default_rng(0)
    if len(groups) > MOST_QUERIES:
        groups = [groups[place] for place in np.sort(random.permutation(len(groups))[:MOST_QUERIES])]
    groups = [np.sort(random.permutation(rows)[:MOST_PER_QUERY]) for rows in groups]
    if not groups:
        return []
    documents = _words(prepared.documents, np.unique(pairs.document[np.concatenate(groups)]))
    queries = _words(prepared.queries, np.unique(pairs.query[np.concatenate(groups)]))
    held = Counter(word for words in documents.values() for word in words)
    rarity = {word: float(np.log((1 + len(documents)) / count)) for word, count in held.items()}
    gammas = []
    for rows in groups:
        asked = queries[int(pairs.query[rows[0]])]
        overlap = [sum(rarity[word] for word in asked & documents[int(row)]) for row in pairs.document[rows]]
        gammas.append(_gamma(np.array(overlap), pairs.score[rows]))
    return gammas


def _words(store: Stored, rows: np.ndarray) -> dict[int, frozenset[str]]:
    words: dict[int, list[str]] = {int(row): [] for row in rows}
    for name in title_fields(store.side):
        for row, text in zip(rows.tolist(), store.column(name, rows), strict=True):
            words[row] += [word[:_STEM] for word in _WORD.findall(fold(str(text or "")))]
    return {row: frozenset(found) for row, found in words.items()}


def _gamma(one: np.ndarray, other: np.ndarray) -> float | None:
    """(agreeing - disagreeing) / (agreeing + disagreeing) pairs of entries; None where every pair is a tie.

    >>> _gamma(np.array([1, 2, 3]), np.array([10, 30, 20]))
    0.3333333333333333
    """
    one, other = one[:MOST_PER_QUERY], other[:MOST_PER_QUERY]
    agree = np.sign(one[:, None] - one) * np.sign(other[:, None] - other)
    decided = np.abs(agree).sum()
    return float(agree.sum() / decided) if decided else None


def _average(gammas: list[float | None]) -> dict[str, Any] | None:
    values = np.array([value for value in gammas if value is not None])
    if len(values) < _FEWEST:
        return None
    reach = _99 * max(float(values.std(ddof=1)), 0.25) / len(values) ** 0.5  # few queries that agree are no proof
    mean = float(values.mean())
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "queries": len(values)}


def _ranks(pairs: Pairs, groups: list[np.ndarray]) -> dict[str, Any]:
    """Of the queries with at least three products, how many have the scores 1, 2, …, n; and how many different n."""
    longer = [np.sort(pairs.score[rows]) for rows in groups if len(rows) > 2]
    ranked = [len(scores) for scores in longer if (scores == np.arange(1, len(scores) + 1)).all()]
    return {"queries": len(longer), "ranked": len(ranked), "lengths": len(set(ranked))}
