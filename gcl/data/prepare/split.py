"""Which queries and products training sees, and the four situations of the rest (Zhu et al. 2024, arXiv 2404.08535).

    in_domain       queries of training, products of training: both were seen in training, the definition of the GCL
                    paper. It measures how well the log was learned, not how well anything new is found.
    novel_query     held-out queries, products of training
    novel_document  queries of training, held-out products
    zero_shot       held-out queries, held-out products

A half depends only on a hash of (seed, a query's content or a product's id): rows added to a catalog move no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from gcl.data.catalog import Split
from gcl.data.store.prepared import SITUATIONS, Pairs


def uniform(keys: Iterable[bytes], *, seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each key, float64[n]: always the same for the same key, seed and purpose.

    >>> uniform([b"red shoes"], seed=0, purpose="queries").round(3).tolist()
    [0.166]
    """
    salt = blake2b(f"{seed} {purpose}".encode(), digest_size=16).digest()
    numbers = (int.from_bytes(blake2b(key, digest_size=8, key=salt).digest(), "big") >> 11 for key in keys)
    return np.fromiter(numbers, dtype=np.float64) * 2.0**-53


def check_split(split: Split) -> None:
    """Raises ValueError for shares that are none, or that leave nothing to train on."""
    for name in ("queries", "documents", "dev"):
        share = getattr(split, name)
        if not 0 <= share <= 1:
            raise ValueError(f"data.split.{name} is {share}: a share lies between 0 and 1.")
    for name in ("queries", "documents"):
        if getattr(split, name) == 0:
            raise ValueError(
                f"data.split.{name} is 0: no {name} would be left for training; GCL's own split is 0.8 x 0.5."
            )


@dataclass
class Halves:
    """train_query bool[Q], train_document bool[D]: seen in training. dev_query bool[Q]: in the dev half of a task."""

    train_query: np.ndarray
    train_document: np.ndarray
    dev_query: np.ndarray


def divide(query_keys: Iterable[bytes], document_ids: Iterable[str], split: Split, *, held: set[bytes]) -> Halves:
    """`query_keys`: content of every query. `held`: contents that explicit tasks keep out of training."""
    train_query = uniform(query_keys, seed=split.seed, purpose="queries") < split.queries
    if held:
        train_query &= np.fromiter((key not in held for key in query_keys), dtype=bool)
    documents = uniform((name.encode() for name in document_ids), seed=split.seed, purpose="documents")
    dev = uniform(query_keys, seed=split.seed, purpose="dev") < split.dev
    return Halves(train_query=train_query, train_document=documents < split.documents, dev_query=dev)


def training_pairs(pairs: Pairs, halves: Halves) -> Pairs:
    """The pairs whose query and product training may see and whose score is above 0, in the table's order.

    A pair the table repeats stays repeated: how often it stands in a log says something.
    """
    keep = halves.train_query[pairs.query] & halves.train_document[pairs.document] & (pairs.score > 0)
    return Pairs(pairs.query[keep], pairs.document[keep], pairs.score[keep])


@dataclass
class Judgments:
    """A task before it is cut in halves: judgments as in PreparedTask and the corpus, document rows int64[M].

    `absent_by_choice`: the split leaves nothing on its side, so an empty half is no mistake. The other numbers say
    what was left out: queries without a relevant product, judgments of products outside the corpus.
    """

    name: str
    corpus: np.ndarray
    judged: Pairs
    absent_by_choice: bool = False
    without_relevant: int = 0
    outside_corpus: int = 0


def situations(pairs: Pairs, halves: Halves, split: Split) -> list[Judgments]:
    """The four situations; those that a share of 1 leaves empty are missing."""
    found = []
    for name in SITUATIONS:
        seen_query, seen_document = name in ("in_domain", "novel_document"), name in ("in_domain", "novel_query")
        side = halves.train_document == seen_document
        keep = (halves.train_query[pairs.query] == seen_query) & side[pairs.document]
        task = judgments(
            name,
            np.flatnonzero(side),
            Pairs(pairs.query[keep], pairs.document[keep], pairs.score[keep]),
            absent_by_choice=(not seen_query and split.queries == 1) or (not seen_document and split.documents == 1),
        )
        if len(task.judged) or not task.absent_by_choice:
            found.append(task)
    return found


def judgments(name: str, corpus: np.ndarray, judged: Pairs, *, absent_by_choice: bool = False) -> Judgments:
    """Makes qrels of judged pairs: in the corpus, each (query, document) once with its highest relevance, sorted,
    of queries that have at least one relevant document."""
    inside = np.isin(judged.document, corpus)
    query, document, score = judged.query[inside], judged.document[inside], judged.score[inside]
    order = np.lexsort((-score, document, query))
    query, document, score = query[order], document[order], score[order]
    first = np.ones(len(query), dtype=bool)
    first[1:] = (query[1:] != query[:-1]) | (document[1:] != document[:-1])
    query, document, score = query[first], document[first], score[first]
    answered = np.isin(query, np.unique(query[score > 0]))
    return Judgments(
        name=name,
        corpus=corpus,
        judged=Pairs(query[answered], document[answered], score[answered]),
        absent_by_choice=absent_by_choice,
        without_relevant=len(np.unique(judged.query)) - len(np.unique(query[answered])),
        outside_corpus=int((~inside).sum()),
    )
