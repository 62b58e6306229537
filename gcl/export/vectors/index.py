"""An index over written vectors, beside them: faiss (exact or HNSW) or usearch, filled some thousand rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gcl.data.store.vector_files import read_row_ids, vector_batches, write_row_ids
from gcl.errors import ConfigError, nearest
from gcl.files.atomic import replacing

KINDS = {"faiss-flat": "faiss", "faiss-hnsw": "faiss", "usearch": "usearch"}  # kind -> package
_NEIGHBOURS = 32  # of a node in the graph (faiss's M)
_BUILD, _SEARCH = 200, 128  # candidates looked at while building and searching it
IDS = "documents.ids.parquet"


def check_kind(kind: str) -> None:
    """Raises ConfigError for an unknown kind, and where its package is not installed."""
    if kind not in KINDS:
        raise ConfigError(f"index={kind}: it is one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if find_spec(KINDS[kind]) is None:
        raise ConfigError(
            f'index={kind} needs {KINDS[kind]}, which is not installed: pip install "gcl-trainer[index]".'
        )


def build_index(files: Sequence[Path], column: str, out: Path, kind: str, *, width: int) -> Path:
    """Writes out/documents.<faiss|usearch> and documents.ids.parquet (row, id); returns the index's path.

    files: written by VectorWriter, in order: row i of the index is the i-th row of them all. An index holds all vectors
    in memory while it is built (faiss, 4 bytes a number; HNSW about 300 bytes a row more), which no form of it avoids.
    """
    check_kind(kind)
    path = out / f"documents.{KINDS[kind]}"
    index = _Faiss(kind, width) if KINDS[kind] == "faiss" else _Usearch(width)
    for file in files:
        for _, vectors in vector_batches(file, column):
            index.add(vectors)
    with replacing(path) as partial:
        index.save(partial)
    write_row_ids(out / IDS, (ids for file in files for ids, _ in vector_batches(file, column)))
    return path


class OpenIndex:
    """An index that `build_index` wrote: vectors in, ids and cosines out."""

    def __init__(self, path: Path) -> None:
        self.ids = read_row_ids(path.with_name(IDS))
        if path.suffix == ".faiss":
            import faiss

            self._index = faiss.read_index(str(path))
        else:
            from usearch.index import Index

            self._index = Index.restore(str(path))

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """[Q, D] unit vectors -> ids [Q, k] (object), cosines [Q, k], best first; k at most the number of rows."""
        k, vectors = min(k, len(self.ids)), np.ascontiguousarray(vectors, dtype=np.float32)
        if hasattr(self._index, "ntotal"):
            score, row = self._index.search(vectors, k)
        else:
            found = [self._index.search(vector, k) for vector in vectors]
            row = np.stack([match.keys for match in found]).astype(np.int64)
            score = 1 - np.stack([match.distances for match in found])
        return self.ids[row], score


class _Faiss:
    def __init__(self, kind: str, width: int) -> None:
        import faiss

        self._faiss = faiss
        if kind == "faiss-flat":
            self._index = faiss.IndexFlatIP(width)
        else:
            self._index = faiss.IndexHNSWFlat(width, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction, self._index.hnsw.efSearch = _BUILD, _SEARCH

    def add(self, vectors: np.ndarray) -> None:
        self._index.add(np.ascontiguousarray(vectors))

    def save(self, path: Path) -> None:
        self._faiss.write_index(self._index, str(path))


class _Usearch:
    def __init__(self, width: int) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=width,
            metric="ip",
            dtype="f32",
            connectivity=_NEIGHBOURS,
            expansion_add=_BUILD,
            expansion_search=_SEARCH,
        )

    def add(self, vectors: np.ndarray) -> None:
        start = len(self._index)
        self._index.add(np.arange(start, start + len(vectors)), np.ascontiguousarray(vectors))

    def save(self, path: Path) -> None:
        self._index.save(str(path))
