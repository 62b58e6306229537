"""The fresh process of a round trip: `python -m gcl.exports.verify.worker <folder of the case> <exported folder>`.

1. The orders are read, and with them the case: inputs, tasks, and the run's own vectors of them.
2. Every format is loaded by its own library, in every precision that the folder holds, and embeds the inputs.
3. Its vectors are compared with the run's: the cosines, and the top 10 of every dev query (`compare`).
4. Exported embeddings are read from their files and compared likewise (`compare_embeddings`).
5. verdict.json is written next to the case. Differences are in there; the exit status only says whether the comparison
   itself came to its end.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcl.data.store.vector_files import vector_batches
from gcl.exports.folder import EMBEDDINGS
from gcl.exports.formats.registry import FORMATS, Loaded
from gcl.exports.query_weights import read_query_weights
from gcl.exports.vectors.write import FUSED, about_embeddings, embedding_files
from gcl.exports.verify.case import Case, Orders, TaskSample, in_blocks
from gcl.model.fusion import fuse
from gcl.model.query_weights import QueryWeights
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import id_ranks

ORDERS, VERDICT = "orders.pickle", "verdict.json"
K = 10
_SHOWN = 3  # differences of a task that are written down


def compare(case: Case, loaded: Loaded, *, near: float) -> dict[str, Any]:
    """One loaded format against the run: the lowest cosine of texts and images, and the top 10 of each task.

    near: documents whose scores in the run are closer than this count as tied; where the export has one of them in the
    other's place, that is no difference.
    """
    width = case.text_vectors.shape[1]
    texts = in_blocks(loaded.texts, case.texts, width)
    images = in_blocks(loaded.images, case.images, width)
    verdict: dict[str, Any] = {}
    sound = np.setdiff1d(np.arange(len(texts)), case.damaged)
    verdict["text"] = _cosines(texts, case.text_vectors, case.text_names, sound)
    damaged = _cosine(texts, case.text_vectors)
    verdict["damaged"] = {case.text_names[row]: float(damaged[row]) for row in case.damaged if len(damaged)}
    if len(case.images):
        verdict["image"] = _cosines(images, case.image_vectors, case.image_names, np.arange(len(images)))
    if np.isfinite(texts).all() and np.isfinite(images).all():
        verdict["tasks"] = {}
        for task in case.tasks:
            run, export = (
                (task.query.fused(*vectors), task.document.fused(*vectors))
                for vectors in ((case.text_vectors, case.image_vectors), (texts, images))
            )
            verdict["tasks"][task.name] = _same_tops(task, run, export, near=near)
    return verdict


def _cosine(vectors: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """[n], or [0] for vectors of another width."""
    if vectors.shape != expected.shape:
        return np.empty(0)
    product = (vectors.astype(np.float64) * expected).sum(axis=1)
    with np.errstate(invalid="ignore"):  # zeros instead of a vector: not a number
        return product / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1))


def _cosines(vectors: np.ndarray, expected: np.ndarray, names: list[str], rows: np.ndarray) -> dict[str, Any]:
    """The lowest and the mean cosine among these rows, and where the lowest is."""
    each = _cosine(vectors, expected)
    if not len(each):
        return {"lowest": float("nan"), "row": 0, "name": names[0], "count": len(rows),
                "shape": f"vectors of width {vectors.shape[1]} instead of {expected.shape[1]}"}  # fmt: skip
    row = int(rows[np.argmin(np.where(np.isfinite(each[rows]), each[rows], -2.0))])
    return {"lowest": float(each[row]), "mean": float(each[rows].mean()), "row": row, "name": names[row],
            "count": len(rows)}  # fmt: skip


def _same_tops(
    task: TaskSample, run: tuple[np.ndarray, np.ndarray], export: tuple[np.ndarray, np.ndarray], *, near: float
) -> dict[str, Any]:
    """Counts the task's queries: "equal", "tied" (places changed among near-equal scores), "different".

    run, export: the task's queries [Q, D] and documents [M, D].
    """
    rank, (queries, documents) = id_ranks(task.documents), run
    score, ours = search(queries, documents, K, rank=rank)
    _, theirs = search(*export, K, rank=rank)
    gap = np.abs(score - np.take_along_axis(queries @ documents.T, theirs, axis=1))  # [Q, K], scores of the run
    different = (ours != theirs) & (gap >= near)
    shown = [
        {"query": task.queries[query], "place": int(place) + 1, "run": task.documents[ours[query, place]],
         "export": task.documents[theirs[query, place]], "gap": float(gap[query, place])}
        for query, place in np.argwhere(different)[:_SHOWN]
    ]  # fmt: skip
    equal, bad = (ours == theirs).all(axis=1), different.any(axis=1)
    return {
        "queries": len(ours), "documents": len(task.documents), "whole": task.whole, "equal": int(equal.sum()),
        "tied": int((~equal & ~bad).sum()), "different": int(bad.sum()), "shown": shown,
    }  # fmt: skip


def compare_embeddings(case: Case, folder: Path, fields: Sequence[str], *, near: float) -> dict[str, Any]:
    """The exported vectors of every task's documents against the run's, and the top 10 that the run's queries find.

    fields: of a document, in the case's order. A document that is missing in the files counts as different.
    """
    exported, expected, names, tasks = [], [], [], {}
    about = about_embeddings(folder)
    weights = {name: float(about["fields"][name]["weight"]) for name in fields}
    gate = read_query_weights(folder) if "by_query" in about else None
    for task in case.tasks:
        ours = replace(task.document, weights=[*weights.values()]).fused(case.text_vectors, case.image_vectors)
        queries = task.query.fused(case.text_vectors, case.image_vectors)
        if gate is not None:
            ours = gate.side_by_side(*task.document.fields(case.text_vectors, case.image_vectors)).numpy()
            queries = gate.asked(queries)
        theirs = _read(folder, task, weights, about["width"], gate)
        exported.append(theirs)
        expected.append(ours)
        names += [f"vector of {name}" for name in task.documents]
        tasks[task.name] = _same_tops(task, (queries, ours), (queries, theirs), near=near)
    verdict: dict[str, Any] = {"precision": EMBEDDINGS, "damaged": {}, "tasks": tasks}
    if names:
        verdict["text"] = _cosines(np.concatenate(exported), np.concatenate(expected), names, np.arange(len(names)))
    return verdict


def _read(
    folder: Path, task: TaskSample, weights: Mapping[str, float], width: int, gate: QueryWeights | None
) -> np.ndarray:
    """[M, D] of the task's documents, fused here where the files keep the fields apart; zeros: not in the files."""
    row_of = {name: row for row, name in enumerate(task.documents)}
    is_fused = about_embeddings(folder)["content"] == "fused"
    columns = [FUSED] if is_fused else [f"{FUSED}_{name}" for name in weights]
    embedding = np.zeros((len(row_of), len(columns), width), dtype=np.float32)
    present = np.zeros(embedding.shape[:2], dtype=bool)
    for path in embedding_files(folder):
        for number, column in enumerate(columns):
            for ids, vectors in vector_batches(path, column):
                places = [place for place, name in enumerate(ids) if name in row_of]
                rows = [row_of[ids[place]] for place in places]
                embedding[rows, number], present[rows, number] = vectors[places], True
    if is_fused:
        return embedding[:, 0]
    weight = np.array([*weights.values()], dtype=np.float32)
    found = (present * weight).sum(axis=1) > 0
    fields, weighed, there = map(torch.from_numpy, (embedding[found], weight, present[found]))
    made = fuse(fields, weighed, there) if gate is None else gate.side_by_side(fields, there)
    whole = np.zeros((len(row_of), made.shape[1]), dtype=np.float32)
    whole[found] = made.numpy()
    return whole


def _loaded_formats(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, str, Loaded]]:
    """(label, precision, loaded) of each format in every precision that the folder holds."""
    for format in (FORMATS[name] for name in names):
        for precision in format.written(folder):
            yield format.label(precision), precision.value, format.load_as(folder, precision)


def main(case_folder: Path, folder: Path) -> None:
    """Compares everything that the orders in the case's folder ask for."""
    orders: Orders = pickle.loads((case_folder / ORDERS).read_bytes())
    torch.set_num_threads(orders.threads)
    verdict = {}
    for label, precision, loaded in _loaded_formats(folder, orders.formats):
        begun = time.process_time()
        verdict[label] = {"precision": precision, **compare(orders.case, loaded, near=orders.near)}
        verdict[label]["seconds"] = round(time.process_time() - begun, 2)
    if orders.fields:
        verdict[EMBEDDINGS] = compare_embeddings(orders.case, folder, orders.fields, near=orders.near)
    (case_folder / VERDICT).write_text(json.dumps(verdict), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
