"""Usable pairs -> training pairs and the four situations (Zhu et al. 2024, arXiv 2404.08535), decided and written.

    in_domain       queries of training, products of training: both were seen in training, the definition of the GCL
                    paper. It measures how well the log was learned, not how well anything new is found.
    novel_query     held-out queries, products of training
    novel_document  queries of training, held-out products
    zero_shot       held-out queries, held-out products

1. `divide`: which half each query and each document falls into. It depends only on a hash of (seed, a query's content
   or a document's id): rows added to a catalog move no other
2. `training_pairs`: both in their training half, and a score above 0
3. `situations`: the pairs of each situation as a task, with the documents of its half as the corpus
4. `write_division`, `write_task`: pairs.parquet, and of each task its corpus and the judgments of its dev and test half
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Split
from gcl.data.store.prepared import PARTS, SITUATIONS, Pairs

NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))  # of a catalog without training


class PairList:
    """Pairs while they are collected, packed."""

    def __init__(self) -> None:
        self._query, self._document, self._score = array("q"), array("q"), array("f")

    def __len__(self) -> int:
        return len(self._query)

    def add(self, query: int, document: int, score: float) -> None:
        """A pair of rows of the two stores."""
        self._query.append(query)
        self._document.append(document)
        self._score.append(score)

    def pairs(self) -> Pairs:
        """What was added, in order."""
        return Pairs(
            np.array(self._query, np.int64), np.array(self._document, np.int64), np.array(self._score, np.float32)
        )


class Built(NamedTuple):
    """What index.json says of a prepared folder: counts, and the shards with size, SHA-256 and number of records."""

    counts: dict[str, Any]
    shards: list[dict[str, Any]]


@dataclass
class Halves:
    """train_query bool[Q], train_document bool[M]: seen in training. dev_query bool[Q]: in the dev half of a task."""

    train_query: np.ndarray
    train_document: np.ndarray
    dev_query: np.ndarray


@dataclass
class WholeTask:
    """A task before it is cut in halves: judgments as in PreparedTask and the corpus, document rows int64[M].

    `absent_by_choice`: the split leaves nothing on its side, so an empty half is no mistake. The other numbers say
    what was left out: queries without a relevant document, judgments of documents outside the corpus.
    """

    name: str
    corpus: np.ndarray
    judged: Pairs
    absent_by_choice: bool = False
    without_relevant: int = 0
    outside_corpus: int = 0


@dataclass
class Division:
    """What `write_division` decided and wrote."""

    halves: Halves
    training: Pairs
    counts: dict[str, Any]


def write_division(
    folder: Path,
    pairs: Pairs,
    *,
    query_keys: Iterable[bytes],
    document_ids: Collection[str],
    split: Split,
    held: Collection[bytes] = frozenset(),
) -> Division:
    """Writes pairs.parquet and tasks/ with the four situations. `query_keys`: the content of each query, `held`: of
    those that stay out of training. Raises ValueError when nothing is left to train on or a situation to test on."""
    halves = divide(query_keys, document_ids, split, held=set(held))
    training = training_pairs(pairs, halves)
    if not len(training) and pairs is not NO_PAIRS:
        raise ValueError(_no_training(len(pairs), split))
    write_pairs(training, folder / "pairs.parquet")
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    written = {
        task.name: write_task(task, dev_query=halves.dev_query, split=split, folder=tasks)
        for task in (situations(pairs, halves, split) if pairs is not NO_PAIRS else [])
    }
    counts = {
        "products": len(document_ids),
        "products_of_training": int(halves.train_document.sum()),
        "queries": len(halves.train_query),
        "queries_of_training": int(halves.train_query.sum()),
        "pairs": len(pairs),
        "training_pairs": len(training),
        "tasks": written,
    }
    return Division(halves, training, counts)


def uniform(keys: Iterable[bytes], *, seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each key, float64[n]: always the same for the same key, seed and purpose.

    >>> uniform([b"red shoes"], seed=0, purpose="queries").round(3).tolist()
    [0.166]
    """
    salt = blake2b(f"{seed} {purpose}".encode(), digest_size=16).digest()
    numbers = (int.from_bytes(blake2b(key, digest_size=8, key=salt).digest(), "big") >> 11 for key in keys)
    return np.fromiter(numbers, dtype=np.float64) * 2.0**-53


def divide(query_keys: Iterable[bytes], document_ids: Iterable[str], split: Split, *, held: set[bytes]) -> Halves:
    """`query_keys`: content of every query, read several times. `held`: contents that explicit tasks keep out of
    training."""
    train_query = uniform(query_keys, seed=split.seed, purpose="queries") < split.queries
    if held:
        train_query &= np.fromiter((key not in held for key in query_keys), dtype=bool)
    documents = uniform((name.encode() for name in document_ids), seed=split.seed, purpose="documents")
    dev = uniform(query_keys, seed=split.seed, purpose="dev") < split.dev
    return Halves(train_query=train_query, train_document=documents < split.documents, dev_query=dev)


def training_pairs(pairs: Pairs, halves: Halves) -> Pairs:
    """The pairs whose query and document training may see and whose score is above 0, in the table's order.

    A pair the table repeats stays repeated: how often it occurs in a log says something.
    """
    keep = halves.train_query[pairs.query] & halves.train_document[pairs.document] & (pairs.score > 0)
    return Pairs(pairs.query[keep], pairs.document[keep], pairs.score[keep])


def situations(pairs: Pairs, halves: Halves, split: Split) -> list[WholeTask]:
    """The four situations; those that a share of 1 leaves empty are missing."""
    tasks = []
    for name in SITUATIONS:
        seen_query, seen_document = name in ("in_domain", "novel_document"), name in ("in_domain", "novel_query")
        side = halves.train_document == seen_document
        keep = (halves.train_query[pairs.query] == seen_query) & side[pairs.document]
        task = whole_task(
            name,
            np.flatnonzero(side),
            Pairs(pairs.query[keep], pairs.document[keep], pairs.score[keep]),
            absent_by_choice=(not seen_query and split.queries == 1) or (not seen_document and split.documents == 1),
        )
        if len(task.judged) or not task.absent_by_choice:
            tasks.append(task)
    return tasks


def whole_task(name: str, corpus: np.ndarray, judged: Pairs, *, absent_by_choice: bool = False) -> WholeTask:
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
    return WholeTask(
        name=name,
        corpus=corpus,
        judged=Pairs(query[answered], document[answered], score[answered]),
        absent_by_choice=absent_by_choice,
        without_relevant=len(np.unique(judged.query)) - len(np.unique(query[answered])),
        outside_corpus=int((~inside).sum()),
    )


def write_pairs(pairs: Pairs, path: Path) -> None:
    """The table of row numbers and scores that every folder of records has."""
    table = pa.table({"query": pairs.query, "document": pairs.document, "score": pairs.score})
    parquet.write_table(table, path, compression="zstd")


def write_task(task: WholeTask, *, dev_query: np.ndarray, split: Split, folder: Path) -> dict[str, Any]:
    """Writes <task>.corpus.npy and <task>.<part>.parquet; returns counts. ValueError for an empty test half."""
    np.save(folder / f"{task.name}.corpus.npy", task.corpus)
    counts: dict[str, Any] = {"corpus": len(task.corpus)}
    in_dev = dev_query[task.judged.query]
    for part in PARTS:
        half = in_dev if part == "dev" else ~in_dev
        query, document, score = task.judged.query[half], task.judged.document[half], task.judged.score[half]
        counts[part] = {"queries": len(np.unique(query)), "judgments": len(query)}
        table = pa.table({"query": query, "document": document, "relevance": score})
        parquet.write_table(table, folder / f"{task.name}.{part}.parquet", compression="zstd")
    counts |= {"queries_without_relevant": task.without_relevant, "judgments_outside_corpus": task.outside_corpus}
    if not counts["test"]["queries"] and not task.absent_by_choice:
        raise ValueError(_no_test_half(task.name, counts["dev"]["queries"], split))
    return counts


def _no_training(pairs: int, split: Split) -> str:
    why = f"none of the {pairs:,} usable pairs has" if pairs else "there is no usable pair, so none has"
    return (
        f"There is no training pair: {why} a training query, a training product and a score above 0 "
        f"(data.split.queries={split.queries}, documents={split.documents}). Check the "
        "score column and the shares, or use more data."
    )


def _no_test_half(name: str, dev: int, split: Split) -> str:
    if dev and split.dev == 1:
        return f"data.split.dev is 1, so the task {name!r} has no test half: set it below 1."
    if name not in SITUATIONS:
        return (
            f"None of the {dev} queries of the task {name!r} falls into its test half: lower data.split.dev, take "
            "another data.split.seed, or leave it out with data.tasks.<task>.kinds."
        )
    without = {
        "novel_query": "queries=1",
        "novel_document": "documents=1",
        "zero_shot": "queries=1 or data.split.documents=1",
    }
    leave = f", or data.split.{without[name]} to do without it" if name in without else ""
    return (
        f"The situation {name!r} has no query in its test half ({dev} in its dev half) at data.split.queries="
        f"{split.queries}, documents={split.documents}, dev={split.dev}: the catalog is too small for this split. Use "
        f"more data, another data.split.seed, other shares{leave}."
    )
