"""Usable pairs -> training pairs and the four situations (Zhu et al. 2024, arXiv 2404.08535), decided and written.

    in_domain       known queries, known products: both were seen in training, the definition of the GCL paper. It
                    measures how well the log was learned, not how well anything new is found.
    novel_query     unknown queries, known products
    novel_document  known queries, unknown products
    zero_shot       unknown queries, unknown products

1. `divide`: which half each query and each document falls into. It depends only on a hash of (seed, a query's content
   or a document's id): rows added to a catalog move no other. Copies fall where the first of them falls (copies.py)
2. `training_pairs`: both in their training half, and a score above 0
3. `situations`: the pairs of each situation as a task. A query or a product is known if a training pair holds it: to be
   in the training half is not enough. The corpus is all known, or all unknown, products
4. `write_division`, `write_task`: pairs.parquet, and of each task its corpus and the judgments of its dev and test half

Pairs whose query was made from the product itself train next to real pairs, and the situations measure the real ones.
Where there are only pairs of the first kind the situations measure these, on products without the field in question.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog, SamePair, Split
from gcl.data.prepare.copies import group_products, group_queries
from gcl.data.prepare.memory import give_back
from gcl.data.prepare.repeated import Settled, settle_scores
from gcl.data.prepare.word_for_word import WordForWord
from gcl.data.store.prepared import NO_PAIRS, NOT_RELEVANT, PARTS, PREFIX, SITUATIONS, Fields, Pairs
from gcl.data.store.store import RecordStore
from gcl.data.titles import title_of

COLUMNS = ("query", "document", "score")


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
        """What was added, in order, without a copy: nothing can be added afterwards."""
        return Pairs(np.asarray(self._query), np.asarray(self._document), np.asarray(self._score))


@dataclass
class Gathered:
    """The usable pairs of a catalog. The first `tables` are of its tables, the rest of data.own_queries; the first
    `real` have a query that somebody wrote, the others one that was made from the product itself. without_field: pairs
    of the second kind that are missing, as the product shows nothing else. judged: what the situations are measured
    with (data.judgments); None: the pairs."""

    pairs: Pairs
    tables: int
    real: int
    without_field: int = 0
    judged: Pairs | None = None

    @property
    def measured(self) -> tuple[Pairs, Fields]:
        """What the situations are made of, and which fields they hide."""
        if self.judged is not None:
            return self.judged, ()
        if self.real:
            return self.pairs.take(slice(0, self.real)), ()
        return self.pairs, self.pairs.hides[-1]

    def settled(self, rule: SamePair) -> tuple[Gathered, Settled]:
        """With one score for each query and document of the tables."""
        settled = settle_scores(self.pairs.take(slice(0, self.tables)), rule)
        score = np.concatenate([settled.pairs.score, self.pairs.score[self.tables :]])
        return replace(self, pairs=replace(self.pairs, score=score)), settled


def gather(tables: Pairs, made: Pairs, documents: RecordStore, hides: Fields, *, own_table: bool) -> Gathered:
    """made: pairs of data.own_queries. hides: the document fields that queries of the products' own columns were made
    from. own_table: whether those of `tables` are such queries."""
    count, real = len(tables), 0 if own_table and hides else len(tables)
    query, document, score = (np.concatenate([getattr(one, name) for one in (tables, made)]) for name in COLUMNS)
    pairs = Pairs(query, document, score)
    if not hides:
        return Gathered(pairs, count, real)
    own = np.arange(len(pairs)) >= real
    kept = ~own | shows_other_fields(documents, hides)[pairs.document]
    pairs = replace(pairs, hidden=own.astype(np.uint8), hides=((), hides)).take(kept)
    return Gathered(pairs, int(kept[:count].sum()), real, int((~kept).sum()))


def shows_other_fields(documents: RecordStore, hides: Fields) -> np.ndarray:
    """Which documents have a field that is not hidden, bool[M]."""
    present = documents.present(documents.rows)
    return np.any(present[:, [name not in hides for name in documents.side]], axis=1)


class Built(NamedTuple):
    """What index.json says of a prepared folder: counts, and the shards with size, SHA-256 and number of records."""

    counts: dict[str, Any]
    shards: list[dict[str, Any]]


@dataclass
class Halves:
    """train_query bool[Q], train_document bool[M]: training may see them. dev_query bool[Q]: in the dev half of a task.
    held_query bool[Q]: kept out of training by a task. first_query int64[Q], first_document int64[M]: the first of the
    copies of each, for most itself (copies.py)."""

    train_query: np.ndarray
    train_document: np.ndarray
    dev_query: np.ndarray
    held_query: np.ndarray
    first_query: np.ndarray
    first_document: np.ndarray


@dataclass
class WholeTask:
    """A task before it is cut in halves: judgments as in PreparedTask and the corpus, document rows int64[M].

    `may_be_empty`: no mistake made it so. hides: fields its documents do not show. The other numbers say what was left
    out (queries without a relevant document, judgments of documents outside the corpus) or settled.
    """

    name: str
    corpus: np.ndarray
    judged: Pairs
    may_be_empty: bool = False
    hides: Fields = ()
    without_relevant: int = 0
    outside_corpus: int = 0


@dataclass
class Division:
    """What `write_division` decided and wrote."""

    halves: Halves
    training: Pairs
    counts: dict[str, Any]
    stores: tuple[RecordStore, RecordStore]  # of queries and of documents


class Numbers(NamedTuple):
    """By what copies are recognised, as `group_products` and `group_queries` take it, uint64 of each record."""

    query_texts: np.ndarray | None = None
    document_texts: np.ndarray | None = None
    group: np.ndarray | None = None


NO_NUMBERS = Numbers()


def write_division(
    folder: Path,
    gathered: Gathered | None,
    *,
    query_keys: Iterable[bytes],
    catalog: Catalog,
    split: Split,
    held: Collection[bytes] = frozenset(),
    numbers: Numbers = NO_NUMBERS,
) -> Division:
    """Writes pairs.parquet and tasks/ with the four situations, next to the two stores, which are there.

    gathered: None for a catalog without training. `query_keys`: the content of each query, `held`: of those that stay
    out of training. Raises ValueError when nothing is left to train on or a situation to test on, and for pairs that
    contradict each other where that is refused."""
    queries = RecordStore(folder, PREFIX["query"], catalog.query)
    documents = RecordStore(folder, PREFIX["document"], catalog.document)
    stores, word_for_word = (queries, documents), WordForWord(queries, documents)
    pairs, counts, notes = NO_PAIRS, {}, []
    if gathered is None:
        halves = divide(query_keys, documents.each_id(), split, held=set(held))
    else:
        gathered, settled = gathered.settled(catalog.duplicates.pairs)
        if settled.contradictions:
            notes.append(settled.told("pairs", stores, "data.duplicates.pairs", catalog.duplicates.pairs))
        groups = group_products(documents, split, texts=numbers.document_texts, group=numbers.group)
        same = group_queries(queries, texts=numbers.query_texts)
        halves = divide(query_keys, documents.each_id(), split, held=set(held), first=(same.first, groups.first))
        pairs = gathered.pairs
        counts = {"together": groups.counts, "same_queries": same.counts, "own_pairs": len(pairs) - gathered.real}
        counts |= {"own_pairs_without_field": gathered.without_field, "contradicting_pairs": settled.contradictions}
    training = training_pairs(pairs, halves)
    if not len(training) and gathered is not None:
        raise ValueError(_no_training(len(pairs), split))
    write_pairs(training, folder / "pairs.parquet")
    refused = training_pairs(pairs, halves, relevant=False)
    refused = refused.take(np.isin(refused.query, training.query))  # without a target a query has nothing to choose
    if len(refused):
        write_pairs(refused, folder / NOT_RELEVANT)
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    hides: Fields = ()
    whole: list[WholeTask] = []
    untested: list[str] = []
    if gathered is not None:
        measured, hides = gathered.measured
        shown = shows_other_fields(documents, hides) if hides else None
        whole, untested = situations(measured, training, halves, split, shown)
    if untested and not whole and not catalog.tasks:
        raise ValueError(f"Nothing can be measured: {'; '.join(untested)}.")
    notes += untested
    written = {
        task.name: write_task(replace(task, hides=hides), dev_query=halves.dev_query, split=split, folder=tasks)
        | {"word_for_word": word_for_word(task.judged, hides)}
        | ({"complete": True} if catalog.complete else {})
        for task in whole
    }
    counts |= {
        "products": len(documents),
        "products_of_training": int(halves.train_document.sum()),
        "queries": len(queries),
        "queries_of_training": int(halves.train_query.sum()),
        "pairs": len(pairs),
        "training_pairs": len(training),
        "queries_trained_on": len(np.unique(training.query)),
        "products_trained_on": len(np.unique(training.document)),
        "left": left_of(pairs, halves),
        "word_for_word": word_for_word(pairs),
        "notes": notes,
        "tasks": written,
    }
    return Division(halves, training, counts, stores)


def left_of(pairs: Pairs, halves: Halves) -> dict[str, int]:
    """Why pairs are not for training, each counted once, for the first reason that holds."""
    left = np.ones(len(pairs), dtype=bool)
    counts: dict[str, int] = {}
    for name, keeps in (
        ("held_by_tasks", ~halves.held_query[pairs.query]),
        ("queries_held_out", halves.train_query[pairs.query]),
        ("products_held_out", halves.train_document[pairs.document]),
        ("score_0", pairs.score > 0),
    ):
        counts[name] = int((left & ~keeps).sum())
        left &= keeps
    return counts


def uniform(keys: Iterable[bytes], *, seed: int, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each key, float64[n]: always the same for the same key, seed and purpose.

    >>> uniform([b"red shoes"], seed=0, purpose="queries").round(3).tolist()
    [0.166]
    """
    salt = blake2b(f"{seed} {purpose}".encode(), digest_size=16).digest()
    numbers = (int.from_bytes(blake2b(key, digest_size=8, key=salt).digest(), "big") >> 11 for key in keys)
    return np.fromiter(numbers, dtype=np.float64) * 2.0**-53


def divide(
    query_keys: Iterable[bytes],
    document_ids: Iterable[str],
    split: Split,
    *,
    held: set[bytes],
    first: tuple[np.ndarray, np.ndarray] | None = None,
) -> Halves:
    """`query_keys`: content of every query, read several times. `held`: contents that explicit tasks keep out of
    training. first: the rows that decide for each query and each document (copies.py); None: itself."""
    queries = uniform(query_keys, seed=split.seed, purpose="queries") < split.queries
    documents = uniform((name.encode() for name in document_ids), seed=split.seed, purpose="documents")
    documents = documents < split.documents
    held_query = np.zeros(len(queries), dtype=bool)
    if held:
        held_query = np.fromiter((key in held for key in query_keys), dtype=bool)
    of_query, of_document = first or (np.arange(len(queries)), np.arange(len(documents)))
    queries, documents = queries[of_query], documents[of_document]
    held_query = seen_or_copied(of_query, np.flatnonzero(held_query))
    dev = uniform(query_keys, seed=split.seed, purpose="dev") < split.dev
    return Halves(queries & ~held_query, documents, dev, held_query, of_query, of_document)


def seen_or_copied(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which rows are among `rows` or copies of one that is, bool[n]; first[n] is the first copy of each.

    >>> seen_or_copied(np.array([0, 1, 1, 3]), np.array([2])).tolist()
    [False, True, True, False]
    """
    seen = np.zeros(len(first), dtype=bool)
    seen[first[rows]] = True
    return seen[first]


def training_pairs(pairs: Pairs, halves: Halves, *, relevant: bool = True) -> Pairs:
    """The pairs whose query and document training may see and whose score is above 0 (not `relevant`: is 0), in the
    table's order.

    A pair the table repeats stays repeated: how often it occurs in a log says something.
    """
    keep = halves.train_query[pairs.query] & halves.train_document[pairs.document] & ((pairs.score > 0) == relevant)
    return pairs.take(keep)


def situations(
    pairs: Pairs, training: Pairs, halves: Halves, split: Split, shown: np.ndarray | None = None
) -> tuple[list[WholeTask], list[str]]:
    """The four situations, and why some are missing that should be there. Those that a share of 1 leaves empty are
    missing, and so are the two of one novelty where no pair is of them (each product has one query, say). What no
    training pair holds, but is a copy of something that one holds, is neither known nor unknown. shown: which documents
    can be in a corpus, bool[M]."""
    known = np.zeros_like(halves.train_query), np.zeros_like(halves.train_document)
    known[0][training.query], known[1][training.document] = True, True
    unknown = (
        ~seen_or_copied(halves.first_query, training.query),
        ~seen_or_copied(halves.first_document, training.document),
    )
    tasks, untested = [], []
    for name in SITUATIONS:
        seen_query, seen_document = name in ("in_domain", "novel_document"), name in ("in_domain", "novel_query")
        asked, side = (known if seen_query else unknown)[0], (known if seen_document else unknown)[1]
        side = side if shown is None else side & shown
        task = whole_task(
            name,
            np.flatnonzero(side),
            pairs.take(asked[pairs.query] & side[pairs.document]),
            may_be_empty=(not seen_query and split.queries == 1) or (not seen_document and split.documents == 1),
        )
        held_out = (seen_query or not halves.train_query.all()) and (seen_document or not halves.train_document.all())
        in_dev = halves.dev_query[task.judged.query]
        if len(in_dev) and (split.dev == 1 or not in_dev.all()):
            tasks.append(task)
        elif not (task.may_be_empty or (held_out and seen_query != seen_document and not len(task.judged))):
            untested.append(_untested(name, len(np.unique(task.judged.query))))
    return tasks, untested


def _untested(name: str, dev: int) -> str:
    return (
        f"the task {title_of(name)} ({name}) is left out: it has no query in its test half ({dev} in its dev half). "
        "The catalog is too small for this split: more rows, another data.split.seed or other shares bring it back"
    )


def whole_task(name: str, corpus: np.ndarray, judged: Pairs, *, may_be_empty: bool = False) -> WholeTask:
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
        may_be_empty=may_be_empty,
        without_relevant=len(np.unique(judged.query)) - len(np.unique(query[answered])),
        outside_corpus=int((~inside).sum()),
    )


def write_pairs(pairs: Pairs, path: Path) -> None:
    """The table of row numbers and scores that every folder of records has."""
    parquet.write_table(pairs.to_table(), path, compression="zstd")
    give_back()


def write_task(task: WholeTask, *, dev_query: np.ndarray, split: Split, folder: Path) -> dict[str, Any]:
    """Writes <task>.corpus.npy and <task>.<part>.parquet; returns counts. ValueError for an empty test half."""
    give_back()
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
    if task.hides:
        counts["hidden"] = list(task.hides)
    if not counts["test"]["queries"] and not task.may_be_empty:
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
    return (
        f"None of the {dev} queries of the task {name!r} falls into its test half: lower data.split.dev, take "
        "another data.split.seed, or leave it out with data.tasks.<task>.kinds."
    )
