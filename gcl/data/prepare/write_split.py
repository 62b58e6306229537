"""Usable pairs -> training pairs and retrieval tasks, written: the part of preparing that tables and shards share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Split
from gcl.data.prepare.split import Halves, Judgments, divide, situations, training_pairs
from gcl.data.prepare.write_pairs import write_pairs
from gcl.data.store.prepared import PARTS, SITUATIONS, Pairs

NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))  # of a catalog without training


class Built(NamedTuple):
    """What index.json says of a prepared folder: counts, and the shards with size, SHA-256 and number of records."""

    counts: dict[str, Any]
    shards: list[dict[str, Any]]


@dataclass
class Division:
    halves: Halves
    training: Pairs
    counts: dict[str, Any]


def write_division(
    folder: Path,
    pairs: Pairs,
    *,
    query_keys: Collection[bytes],
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
        "queries": len(query_keys),
        "queries_of_training": int(halves.train_query.sum()),
        "pairs": len(pairs),
        "training_pairs": len(training),
        "tasks": written,
    }
    return Division(halves, training, counts)


def _no_training(pairs: int, split: Split) -> str:
    why = f"none of the {pairs:,} usable pairs has" if pairs else "there is no usable pair, so none has"
    return (
        f"There is no training pair: {why} a training query, a training product and a score above 0 "
        f"(data.split.queries={split.queries}, documents={split.documents}). Check the "
        "score column and the shares, or use more data."
    )


def write_task(task: Judgments, *, dev_query: np.ndarray, split: Split, folder: Path) -> dict[str, Any]:
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
