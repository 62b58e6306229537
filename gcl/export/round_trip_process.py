"""The fresh process of a round trip: `python -m gcl.export.round_trip_process <folder of the case> <exported folder>`.

Loads every format by its own library and compares it with the run's vectors that the case brings. Writes verdict.json
beside the case; what differs is in there, the exit status says only whether the comparison itself came to its end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gcl.export.format import Loaded
from gcl.export.round_trip_case import Case, TaskSample, in_parts, read_case

VERDICT = "verdict.json"
K = 10
_SHOWN = 3  # differences of a task that are written down


def compare(case: Case, loaded: Loaded, *, near: float) -> dict[str, Any]:
    """One loaded format against the run: the lowest cosine of texts and pictures, and the top 10 of each task.

    near: documents whose scores in the run are closer than this count as tied; where the export has one of them in the
    other's place, that is no difference.
    """
    width = case.text_vectors.shape[1]
    texts = in_parts(loaded.texts, case.texts, width)
    images = in_parts(loaded.images, case.images, width)
    found: dict[str, Any] = {}
    sound = np.setdiff1d(np.arange(len(texts)), case.damaged)
    found["text"] = _cosines(texts, case.text_vectors, case.text_names, sound)
    damaged = _cosine(texts, case.text_vectors)
    found["damaged"] = {case.text_names[row]: float(damaged[row]) for row in case.damaged if len(damaged)}
    if len(case.images):
        found["image"] = _cosines(images, case.image_vectors, case.image_names, np.arange(len(images)))
    if np.isfinite(texts).all() and np.isfinite(images).all():
        found["tasks"] = {task.name: _tops(case, task, texts, images, near=near) for task in case.tasks}
    return found


def _cosine(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """[n], or [0] for vectors of another width."""
    if found.shape != expected.shape:
        return np.empty(0)
    cosine = (found.astype(np.float64) * expected).sum(axis=1)
    return cosine / (np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1))


def _cosines(found: np.ndarray, expected: np.ndarray, names: list[str], rows: np.ndarray) -> dict[str, Any]:
    """The lowest and the mean cosine among these rows, and where the lowest is."""
    cosine = _cosine(found, expected)
    if not len(cosine):
        return {"lowest": float("nan"), "row": 0, "name": names[0], "count": len(rows),
                "shape": f"vectors of width {found.shape[1]} instead of {expected.shape[1]}"}  # fmt: skip
    row = int(rows[np.argmin(np.where(np.isfinite(cosine[rows]), cosine[rows], -2.0))])
    return {"lowest": float(cosine[row]), "mean": float(cosine[rows].mean()), "row": row, "name": names[row],
            "count": len(rows)}  # fmt: skip


def _tops(case: Case, task: TaskSample, texts: np.ndarray, images: np.ndarray, *, near: float) -> dict[str, Any]:
    """Queries by what came of them: "equal", "tied" (places changed among near-equal scores), "different"."""
    from gcl.retrieval.order import id_ranks
    from gcl.retrieval.search import search

    rank, of_run = id_ranks(task.documents), (case.text_vectors, case.image_vectors)
    asked, corpus = task.query.fused(*of_run), task.document.fused(*of_run)
    score, ours = search(asked, corpus, K, rank=rank)
    _, theirs = search(task.query.fused(texts, images), task.document.fused(texts, images), K, rank=rank)
    gap = np.abs(score - np.take_along_axis(asked @ corpus.T, theirs, axis=1))  # [Q, K], scores of the run
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


def loaded_formats(folder: Path, names: list[str]) -> Iterator[tuple[str, str, Loaded]]:
    """(label, precision, loaded) of each format; of ONNX every precision that the folder has."""
    from gcl.export.formats import FORMATS

    for name in names:
        yield name, "fp32", FORMATS[name].load(folder)
        if name == "onnx":
            from gcl.export.onnx_model import LoadedOnnx, read_config

            for precision in read_config(folder)["files"]:
                if precision != "fp32":
                    yield f"{name} {precision}", precision, LoadedOnnx(folder, precision)


def main(case_folder: Path, folder: Path) -> None:
    import torch

    orders = json.loads((case_folder / "orders.json").read_text("utf-8"))
    torch.set_num_threads(orders["threads"])
    case, verdict = read_case(case_folder), {}
    for label, precision, loaded in loaded_formats(folder, orders["formats"]):
        begun = time.process_time()
        verdict[label] = {"precision": precision, **compare(case, loaded, near=orders["near"])}
        verdict[label]["seconds"] = round(time.process_time() - begun, 2)
    (case_folder / VERDICT).write_text(json.dumps(verdict), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
