"""The fresh process of a round trip: `python -m gcl.export.verify.worker <folder of the case> <exported folder>`.

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

from gcl.export.formats.registry import Loaded
from gcl.export.verify.case import Case, TaskSample, in_parts, read_case
from gcl.export.verify.compare import cosine, cosines, same_tops

VERDICT = "verdict.json"


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
    found["text"] = cosines(texts, case.text_vectors, case.text_names, sound)
    damaged = cosine(texts, case.text_vectors)
    found["damaged"] = {case.text_names[row]: float(damaged[row]) for row in case.damaged if len(damaged)}
    if len(case.images):
        found["image"] = cosines(images, case.image_vectors, case.image_names, np.arange(len(images)))
    if np.isfinite(texts).all() and np.isfinite(images).all():
        found["tasks"] = {task.name: _tops(case, task, texts, images, near) for task in case.tasks}
    return found


def _tops(case: Case, task: TaskSample, texts: np.ndarray, images: np.ndarray, near: float) -> dict[str, Any]:
    run, export = (
        (task.query.fused(*vectors), task.document.fused(*vectors))
        for vectors in ((case.text_vectors, case.image_vectors), (texts, images))
    )
    return same_tops(task, run, export, near=near)


def loaded_formats(folder: Path, names: list[str]) -> Iterator[tuple[str, str, Loaded]]:
    """(label, precision, loaded) of each format in every precision that the folder holds."""
    from gcl.export.formats.registry import FORMATS

    for format in (FORMATS[name] for name in names):
        for precision in format.written(folder):
            yield format.label(precision), precision.value, format.load_as(folder, precision)


def main(case_folder: Path, folder: Path) -> None:
    import torch

    orders = json.loads((case_folder / "orders.json").read_text("utf-8"))
    torch.set_num_threads(orders["threads"])
    case, verdict = read_case(case_folder), {}
    for label, precision, loaded in loaded_formats(folder, orders["formats"]):
        begun = time.process_time()
        verdict[label] = {"precision": precision, **compare(case, loaded, near=orders["near"])}
        verdict[label]["seconds"] = round(time.process_time() - begun, 2)
    if orders["embeddings"]:
        from gcl.export.verify.embeddings import LABEL, compare_embeddings

        verdict[LABEL] = compare_embeddings(case, folder, orders["embeddings"], near=orders["near"])
    (case_folder / VERDICT).write_text(json.dumps(verdict), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
