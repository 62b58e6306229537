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

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog, Split
from gcl.data.prepare.copies import group_products, group_queries
from gcl.data.prepare.gathered import Gathered, shows_other_fields
from gcl.data.prepare.memory import AT_ONCE, give_back, in_parts
from gcl.data.prepare.word_for_word import WordForWord
from gcl.data.store.key_table import Packed
from gcl.data.store.prepared import NO_PAIRS, NOT_RELEVANT, PARTS, PREFIX, SITUATIONS, Fields, Pairs
from gcl.data.store.remote_shards import ShardCache
from gcl.data.store.store import RecordStore
from gcl.data.titles import title_of

_DRAWN = 1 << 14  # keys whose numbers are drawn at once


class Built(NamedTuple):
    """What index.json says of a prepared folder: counts, and the shards with size, SHA-256 and number of records."""

    counts: dict[str, Any]
    shards: list[dict[str, Any]]


@dataclass
class Halves:
    """train_query bool[Q], train_document bool[M]: training may see them. dev_query bool[Q]: in the dev half of a task.
    held_query bool[Q]: kept out of training by a task. first_query int32[Q], first_document int32[M]: the first of the
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
    """By what copies are recognised, as `group_products` and `group_queries` take it."""

    query_texts: Packed | None = None
    document_texts: Packed | None = None
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
    cache = ShardCache.below(folder.parent, catalog.cache_gb)
    documents = RecordStore(folder, PREFIX["document"], catalog.document, cache=cache)
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
    asked, seen = (np.zeros(len(store), bool) for store in stores)
    asked[training.query], seen[training.document] = True, True
    refused = refused.take(asked[refused.query])  # without a target a query has nothing to choose
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
        "queries_trained_on": int(asked.sum()),
        "products_trained_on": int(seen.sum()),
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


def uniform(keys: Iterable[bytes], *, seed: int, purpose: str) -> Iterator[np.ndarray]:
    """A number in [0, 1) for each key, float64[n], a block at a time: always the same for the same key, seed and
    purpose.

    >>> next(uniform([b"red shoes"], seed=0, purpose="queries")).round(3).tolist()
    [0.166]
    """
    salt, each = blake2b(f"{seed} {purpose}".encode(), digest_size=16).digest(), iter(keys)
    while block := b"".join(blake2b(key, digest_size=8, key=salt).digest() for key in islice(each, _DRAWN)):
        yield (np.frombuffer(block, ">u8").astype(np.uint64) >> np.uint64(11)) * 2.0**-53


def _chosen(keys: Iterable[bytes], seed: int, purpose: str, share: float) -> np.ndarray:
    """Which keys belong to the share, bool[n]."""
    return np.concatenate([np.empty(0, bool), *(block < share for block in uniform(keys, seed=seed, purpose=purpose))])


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
    queries = _chosen(query_keys, split.seed, "queries", split.queries)
    documents = _chosen((name.encode() for name in document_ids), split.seed, "documents", split.documents)
    held_query = np.zeros(len(queries), dtype=bool)
    if held:
        held_query = np.fromiter((key in held for key in query_keys), dtype=bool)
    of_query, of_document = first or (np.arange(len(one), dtype=np.int32) for one in (queries, documents))
    queries, documents = queries[of_query], documents[of_document]
    held_query = seen_or_copied(of_query, np.flatnonzero(held_query))
    dev = _chosen(query_keys, split.seed, "dev", split.dev)
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
    sides = [side if shown is None else side & shown for side in (unknown[1], known[1])]
    corpora = [np.flatnonzero(side).astype(np.int32) for side in sides]
    tasks, untested = [], []
    for name in SITUATIONS:
        seen_query, seen_document = name in ("in_domain", "novel_document"), name in ("in_domain", "novel_query")
        asked, side = (known if seen_query else unknown)[0], sides[seen_document]
        task = whole_task(
            name,
            corpora[seen_document],
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
    inside = np.zeros(max(int(some.max(initial=-1)) for some in (judged.document, corpus)) + 1, dtype=bool)
    inside[corpus] = True
    kept, asked, outside = [(judged.query[:0], judged.document[:0], judged.score[:0])], 0, 0
    for part in in_parts(judged.query):
        asked += len(np.unique(judged.query[part]))
        rows = part[inside[judged.document[part]]]
        outside += len(part) - len(rows)
        query, document, score = judged.query[rows], judged.document[rows], judged.score[rows]
        order = np.lexsort((-score, document, query))
        query, document, score = query[order], document[order], score[order]
        first = np.ones(len(query), dtype=bool)
        first[1:] = (query[1:] != query[:-1]) | (document[1:] != document[:-1])
        query, document, score = query[first], document[first], score[first]
        answered = np.isin(query, np.unique(query[score > 0]))
        asked -= len(np.unique(query[answered]))
        kept.append((query[answered], document[answered], score[answered]))
    query, document, score = map(np.concatenate, zip(*kept, strict=True))
    return WholeTask(
        name=name,
        corpus=corpus,
        judged=Pairs(query, document, score),
        may_be_empty=may_be_empty,
        without_relevant=asked,
        outside_corpus=outside,
    )


def write_pairs(pairs: Pairs, path: Path) -> None:
    """The table of row numbers and scores that every folder of records has."""
    _write_blocks(path, pairs, pairs.to_table(slice(0)).column_names)


def _write_blocks(path: Path, pairs: Pairs, names: list[str]) -> None:
    """Under these names, a row group at a time."""
    schema = pairs.to_table(slice(0)).rename_columns(names).schema
    with parquet.ParquetWriter(path, schema, compression="zstd") as target:
        for start in range(0, max(len(pairs), 1), AT_ONCE):
            target.write_table(pairs.to_table(slice(start, start + AT_ONCE)).rename_columns(names))
    give_back()


def write_task(task: WholeTask, *, dev_query: np.ndarray, split: Split, folder: Path) -> dict[str, Any]:
    """Writes <task>.corpus.npy and <task>.<part>.parquet; returns counts. ValueError for an empty test half."""
    give_back()
    np.save(folder / f"{task.name}.corpus.npy", task.corpus.astype(np.int64, copy=False))
    counts: dict[str, Any] = {"corpus": len(task.corpus)}
    in_dev = dev_query[task.judged.query]
    for part in PARTS:
        half = task.judged.take(in_dev if part == "dev" else ~in_dev)
        counts[part] = {"queries": len(np.unique(half.query)), "judgments": len(half)}
        _write_blocks(folder / f"{task.name}.{part}.parquet", half, ["query", "document", "relevance"])
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
