"""Embeddings of images that are read once, in order: for corpora too large to be stored a second time.

1. Consecutive row groups of the files make parts of at least some batches (see `parts`). Each rank has a contiguous
   share of the parts, and holds and searches the vectors of these rows alone.
2. Parts that are in the cache are read from it. The row groups of the others are each read by one worker, decoded and
   embedded in batches; a part is kept as soon as it is whole.

What a batch holds does not depend on workers, ranks or what was kept, so neither does a bit of any vector. Images that
cannot be read have a vector of zeros; they are counted, and no search returns them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from gcl.data.batches.batch import SideBatch
from gcl.data.importers.benchmark_set import PublishedSet, RowGroup
from gcl.distributed.ranks import agree, gather_objects, share, world
from gcl.files.arrays import ArrayCache, blank
from gcl.files.progress import counted
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fusion import fuse
from gcl.retrieval.embedding.embed import evaluating, to_device, unchanged
from gcl.retrieval.embedding.parts import PART_BATCHES, Parts, ends_of
from gcl.retrieval.search.search import search

MOST_UNREADABLE = 1000
_ROWS = 2048  # looked at together


@dataclass(frozen=True)
class Streamed:
    """vector[m, D] float32 unit vectors of `rows`, this rank's own of the whole set's. unreadable: rows of the whole
    set whose image cannot be read. embedded: rows of all ranks that were not in the cache."""

    vector: np.ndarray
    rows: range
    unreadable: np.ndarray
    embedded: int = 0

    def search(self, query: np.ndarray, k: int, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k best readable rows of each query in the whole set: score[Q, K], row[Q, K], on every rank."""
        bad = len(self.unreadable)
        score, row = search(query, self.vector, k + bad, rank=rank, held=self.rows)
        if not bad:
            return score, row
        hidden = np.isin(row, self.unreadable)
        order = np.argsort(hidden, axis=1, kind="stable")[:, : min(k, len(rank) - bad)]
        return np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1)


class _Images(IterableDataset):
    """(rows [n], SideBatch of the readable ones, unreadable rows) of the row groups that fall to this worker."""

    def __init__(
        self, source: PublishedSet, groups: Sequence[RowGroup], encoder: DualEncoder, column: str, batch_size: int
    ) -> None:
        self.source, self.groups, self.column, self.batch_size = source, groups, column, batch_size
        self.preprocess = encoder.preprocess
        self.field = next(iter(encoder.schema.document))

    def __iter__(self) -> Iterator[tuple[list[int], SideBatch | None, list[int]]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for group in self.groups[first::step]:
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


def parts_of(source: PublishedSet, batch_size: int, name: str, cache: ArrayCache | None) -> Parts:
    """The parts in which the set is embedded: whole row groups, and at least PART_BATCHES batches."""
    return Parts(name, ends_of([group.count for group in source.groups], PART_BATCHES * batch_size), cache)


def embed_images(
    encoder: DualEncoder,
    source: PublishedSet,
    column: str,
    *,
    parts: Parts,
    batch_size: int = 256,
    workers: int = 0,
    scratch: str | Path | None = None,
) -> Streamed:
    """Embeds a set's images on the device the encoder is on; each rank its share of the parts.

    encoder: its document side is one image field. parts: `parts_of` the source, under a name that stands for all that
    the vectors depend on. Raises ValueError for more than 1,000 unreadable images.
    """
    mine, error, embedded = share(len(parts), *world()), None, 0
    rows = range(parts.ends[mine.start], parts.ends[mine.stop])
    vector, unreadable = np.empty((0, int(encoder.width)), np.float32), np.empty(0, np.int64)
    try:
        vector = blank((len(rows), int(encoder.width)), folder=scratch)
        left: dict[int, int] = {}  # rows that a part still lacks
        for part in mine:
            own = parts.rows(part)
            if (kept := parts.load(part)) is None:
                left[part] = len(own)
            else:
                vector[own.start - rows.start : own.stop - rows.start] = kept
        embedded = sum(left.values())
        groups = [group for group in source.groups if parts.part_of(group.first) in left]
        batches = image_vectors(encoder, source, groups, column, batch_size=batch_size, workers=workers)
        failed: list[int] = []
        for some, found, bad in counted(batches, "Embedding images", total=embedded, unit="image", size=_images_of):
            _check_readable(failed := failed + bad, source, column)
            vector[np.array(some, dtype=np.int64) - rows.start] = found
            part = parts.part_of((some or bad)[0])
            left[part] -= len(some) + len(bad)
            if not left[part]:
                own = parts.rows(part)
                parts.keep(part, vector[own.start - rows.start : own.stop - rows.start])
        unreadable = rows.start + _zeros(vector)
    except Exception as caught:
        error = caught
    agree(error)
    shares = gather_objects((unreadable, embedded))
    whole = np.concatenate([bad for bad, _ in shares])
    _check_readable(whole.tolist(), source, column)
    return Streamed(vector, rows, whole, sum(count for _, count in shares))


def image_vectors(
    encoder: DualEncoder,
    source: PublishedSet,
    groups: Sequence[RowGroup],
    column: str,
    *,
    batch_size: int,
    workers: int,
) -> Iterator[tuple[list[int], np.ndarray, list[int]]]:
    """(rows[n], vector[n, D], unreadable rows) of these row groups, a batch at a time. Batches of one row group follow
    each other; those of several mix."""
    device, weight = next(encoder.parameters()).device, torch.ones(1)
    loader = DataLoader(
        _Images(source, groups, encoder, column, batch_size), batch_size=None, collate_fn=unchanged,
        num_workers=min(workers, len(groups)), generator=torch.Generator(),
    )  # fmt: skip
    with evaluating(encoder):
        for rows, batch, bad in loader:
            vector = np.empty((0, int(encoder.width)), np.float32)
            if batch is not None:
                with torch.inference_mode():
                    fields = encoder.embed_fields(to_device(batch, device), "document").float().cpu()
                    vector = fuse(fields, weight, batch.present).numpy()
            yield rows, vector, bad


def _zeros(vector: np.ndarray) -> np.ndarray:
    """The rows of zeros alone, which are no unit vectors: int64."""
    blocks = range(0, len(vector), _ROWS)
    found = [start + np.flatnonzero(~vector[start : start + _ROWS].any(axis=1)) for start in blocks]
    return np.concatenate([np.empty(0, np.int64), *found])


def _check_readable(unreadable: Sequence[int], source: PublishedSet, column: str) -> None:
    if len(unreadable) > MOST_UNREADABLE:
        raise ValueError(
            f"More than {MOST_UNREADABLE:,} images cannot be read; the last is row {unreadable[-1]} of "
            f"{source.files[0]} …: check that {column!r} is the image column and that the files are complete."
        )


def _images_of(item: tuple[list[int], np.ndarray, list[int]]) -> int:
    rows, _, unreadable = item
    return len(rows) + len(unreadable)
