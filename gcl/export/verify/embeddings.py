"""Exported embeddings as their user finds them: read again beside the run's vectors, and how the card reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcl.data.store.vector_files import about_vectors, vector_batches
from gcl.export.vectors.write import FOLDER, FUSED
from gcl.export.verify.case import Case, TaskSample
from gcl.export.verify.compare import cosines, same_tops
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fusion import fuse

LABEL = "embeddings"


def embedding_files(folder: Path, side: str = "documents") -> list[Path]:
    """The Parquet files of vectors of an exported folder, in order; none where it has no embeddings."""
    out = folder / FOLDER
    found = [out / f"{side}.parquet"] if (out / f"{side}.parquet").is_file() else sorted(out.glob(f"{side}-*-of-*"))
    return [path for path in found if about_vectors(path) is not None]


def compare_embeddings(case: Case, folder: Path, fields: Sequence[str], *, near: float) -> dict[str, Any]:
    """The files' vectors of every task's products against the run's, and the top 10 that the run's queries find.

    fields: of a product, in the case's order. A product that is missing in the files counts as different.
    """
    files, found, expected, names, tasks = embedding_files(folder), [], [], [], {}
    said = about_vectors(files[0])["fields"]
    weights = {name: said[name]["weight"] for name in fields}
    for task in case.tasks:
        side = type(task.document)(task.document.modalities, [*weights.values()], task.document.index)
        ours = side.fused(case.text_vectors, case.image_vectors)
        theirs = _read(files, task, weights, ours.shape[1])
        found.append(theirs)
        expected.append(ours)
        names += [f"vector of {name}" for name in task.documents]
        asked = task.query.fused(case.text_vectors, case.image_vectors)
        tasks[task.name] = same_tops(task, (asked, ours), (asked, theirs), near=near)
    about: dict[str, Any] = {"precision": LABEL, "damaged": {}, "tasks": tasks}
    if names:
        about["text"] = cosines(np.concatenate(found), np.concatenate(expected), names, np.arange(len(names)))
    return about


def _read(files: Sequence[Path], task: TaskSample, weights: Mapping[str, float], width: int) -> np.ndarray:
    """[M, D] of the task's documents, fused here where the files keep the fields apart; zeros: not found."""
    rows = {name: row for row, name in enumerate(task.documents)}
    content = about_vectors(files[0])["content"]
    columns = [FUSED] if content == "fused" else [f"{FUSED}_{name}" for name in weights]
    embedding = np.zeros((len(rows), len(columns), width), dtype=np.float32)
    present = np.zeros(embedding.shape[:2], dtype=bool)
    for path in files:
        for number, column in enumerate(columns):
            for ids, vectors in vector_batches(path, column):
                kept = [(rows[name], place) for place, name in enumerate(ids) if name in rows]
                if kept:
                    here, there = map(list, zip(*kept, strict=True))
                    embedding[here, number], present[here, number] = vectors[there], True
    if content == "fused":
        return embedding[:, 0]
    weight = torch.tensor([*weights.values()], dtype=torch.float32)
    there, fused = (present * weight.numpy()).sum(axis=1) > 0, np.zeros((len(rows), width), dtype=np.float32)
    fused[there] = fuse(torch.from_numpy(embedding[there]), weight, torch.from_numpy(present[there])).numpy()
    return fused


class EmbeddingsSnippet:
    """What the card shows of them; stands beside the formats where snippets are run."""

    name = LABEL

    def __init__(self, folder: Path):
        self._file = embedding_files(folder)[0]

    def snippet(self, encoder: DualEncoder, place: str) -> str:
        about = about_vectors(self._file)
        column = FUSED if about["content"] == "fused" else f"{FUSED}_{next(iter(encoder.schema.document))}"
        local = Path(place).is_dir()
        fetch = "" if local else "from huggingface_hub import snapshot_download\n"
        folder = f'"{place}"' if local else f'snapshot_download("{place}")'
        return f"""\
import numpy as np
import pyarrow.parquet as parquet
{fetch}
file = {folder} + "/{FOLDER}/{self._file.name}"
table = parquet.read_table(file, columns=["id", "{column}"]).drop_null()
ids, vectors = table["id"].to_numpy(), np.stack(table["{column}"].to_numpy()).astype("float32")
asked = vectors[0]  # yours: the vector of a query, from a snippet above
scores = vectors @ asked
print(vectors.shape, [(ids[row], round(float(scores[row]), 3)) for row in np.argsort(-scores)[:3]])
"""
