"""Embeddings of images that are read once, in order: for corpora too large to be stored a second time.

Each row group of the files is read by one worker, decoded and embedded in batches; only the vectors stay, in memory or
in a mapped file. Images that cannot be read are counted, and no search returns them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from gcl.data.batches.batch import SideBatch
from gcl.data.importers.benchmark_set import PublishedSet
from gcl.files.arrays import blank
from gcl.files.progress import counted
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fusion import fuse
from gcl.retrieval.embedding.embed import evaluating, to_device, unchanged
from gcl.retrieval.search.search import search

_MOST_UNREADABLE = 1000


@dataclass(frozen=True)
class Streamed:
    """vector[M, D] float32 unit vectors; unreadable: rows whose image cannot be read (their vectors are 0)."""

    vector: np.ndarray
    unreadable: np.ndarray

    def search(self, query: np.ndarray, k: int, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k best readable rows of each query: score[Q, K], row[Q, K]."""
        bad = len(self.unreadable)
        score, row = search(query, self.vector, k + bad, rank=rank)
        if not bad:
            return score, row
        hidden = np.isin(row, self.unreadable)
        order = np.argsort(hidden, axis=1, kind="stable")[:, : min(k, self.vector.shape[0] - bad)]
        return np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1)


class _Images(IterableDataset):
    """(rows [n], SideBatch of the readable ones, unreadable rows) of the row groups that fall to this worker."""

    def __init__(self, source: PublishedSet, encoder: DualEncoder, column: str, batch_size: int) -> None:
        self.source, self.column, self.batch_size = source, column, batch_size
        self.preprocess = encoder.preprocess
        self.field = next(iter(encoder.schema.document))

    def __iter__(self) -> Iterator[tuple[list[int], SideBatch | None, list[int]]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for group in self.source.groups[first::step]:
            images = self.source.images(group, self.column)
            while rows := list(islice(images, self.batch_size)):
                yield self._batch(rows)

    def _batch(self, encoded: list[tuple[int, bytes | None]]) -> tuple[list[int], SideBatch | None, list[int]]:
        rows, images, unreadable = [], [], []
        for row, data in encoded:
            try:
                if data is None:
                    raise ValueError("no image")
                images.append(self.preprocess.image(data))
                rows.append(row)
            except (ValueError, OSError, RuntimeError):
                unreadable.append(row)
        if not rows:
            return rows, None, unreadable
        batch = SideBatch({self.field: torch.stack(images)}, torch.ones(len(rows), 1, dtype=torch.bool))
        return rows, batch, unreadable


def embed_images(
    encoder: DualEncoder,
    source: PublishedSet,
    column: str,
    *,
    batch_size: int = 256,
    workers: int = 0,
    scratch: str | Path | None = None,
    progress: bool = False,
    most: int | None = None,
) -> Streamed:
    """Embeds a set's images on the device the encoder is on. most: at most this many batches, to time them.

    encoder: its document side is one image field. Raises ValueError for more than 1,000 unreadable images.
    """
    device = next(encoder.parameters()).device
    vector = blank((source.rows, int(encoder.width)), folder=scratch)
    weight, unreadable = torch.ones(1), []
    batches = DataLoader(
        _Images(source, encoder, column, batch_size), batch_size=None, collate_fn=unchanged,
        num_workers=min(workers, len(source.groups)), generator=torch.Generator(),
    )  # fmt: skip
    with evaluating(encoder, device), torch.inference_mode():
        for rows, batch, bad in counted(
            islice(batches, most), "Embedding images", shown=progress, total=source.rows, unit="image", size=_images_of
        ):
            unreadable += bad
            if len(unreadable) > _MOST_UNREADABLE:
                raise ValueError(
                    f"More than {_MOST_UNREADABLE:,} images cannot be read; the last is row {unreadable[-1]} of "
                    f"{source.files[0]} …: check that {column!r} is the image column and that the files are complete."
                )
            if batch is not None:
                fields = encoder.embed_fields(to_device(batch, device), "document").float().cpu()
                vector[rows] = fuse(fields, weight, batch.present).numpy()
    return Streamed(vector, np.array(sorted(unreadable), dtype=np.int64))


def _images_of(item: tuple[list[int], SideBatch | None, list[int]]) -> int:
    rows, _, unreadable = item
    return len(rows) + len(unreadable)
