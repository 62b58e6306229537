"""Vector indexes over written embeddings: a record per kind, which options, errors, help and docs read.

An index is filled a few thousand rows at a time and saved next to the files of vectors. A new kind is a function that
makes an empty index, and a record in KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gcl.errors import ConfigError, check_packages, nearest
from gcl.files.atomic import replacing

IDS = "documents.ids.parquet"
_NEIGHBOURS = 32  # of a node in the graph (faiss's M)
_BUILD, _SEARCH = 200, 128  # candidates looked at while building and searching it


class VectorIndex(Protocol):
    """An index that is being filled."""

    def add(self, vectors: np.ndarray) -> None:
        """[n, D] float32 unit vectors: the next n rows."""

    def save(self, path: Path) -> None: ...


@dataclass(frozen=True)
class IndexKind:
    """A kind of index.

    name: in `index=…`. package: what builds and opens it (import name). suffix: of its file, documents.<suffix>.
    explanation: for help and docs. new: (width) -> an empty index.
    """

    name: str
    package: str
    suffix: str
    explanation: str
    new: Callable[[int], VectorIndex]


class _Faiss:
    def __init__(self, width: int, *, graph: bool) -> None:
        import faiss

        self._index: faiss.Index = faiss.IndexFlatIP(width)
        if graph:
            hnsw = faiss.IndexHNSWFlat(width, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            hnsw.hnsw.efConstruction, hnsw.hnsw.efSearch = _BUILD, _SEARCH
            self._index = hnsw

    def add(self, vectors: np.ndarray) -> None:
        self._index.add(np.ascontiguousarray(vectors))

    def save(self, path: Path) -> None:
        import faiss

        faiss.write_index(self._index, str(path))


class _Usearch:
    def __init__(self, width: int) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=width, metric="ip", dtype="f32", connectivity=_NEIGHBOURS, expansion_add=_BUILD,
            expansion_search=_SEARCH,
        )  # fmt: skip

    def add(self, vectors: np.ndarray) -> None:
        start = len(self._index)
        self._index.add(np.arange(start, start + len(vectors)), np.ascontiguousarray(vectors))

    def save(self, path: Path) -> None:
        self._index.save(str(path))


_ALL = (
    IndexKind("faiss-flat", "faiss", "faiss", "exact, 4 bytes per number", lambda width: _Faiss(width, graph=False)),
    IndexKind(
        "faiss-hnsw", "faiss", "faiss", "approximate and fast (HNSW), about 300 bytes per row more",
        lambda width: _Faiss(width, graph=True),
    ),
    IndexKind("usearch", "usearch", "usearch", "approximate and fast (HNSW), a small library", _Usearch),
)  # fmt: skip
KINDS: dict[str, IndexKind] = {kind.name: kind for kind in _ALL}


def check_kind(name: str) -> IndexKind:
    """The kind of this name. Raises ConfigError for an unknown one, and where its package is not installed."""
    if name not in KINDS:
        raise ConfigError(f"index={name}: there is no such index type.{nearest(name, KINDS)}")
    kind = KINDS[name]
    check_packages(f"index={name}", [kind.package], "index")
    return kind


def build_index(files: Sequence[Path], column: str, out: Path, name: str, *, width: int) -> Path:
    """Writes out/documents.<faiss|usearch> and documents.ids.parquet (row, id); returns the index's path.

    files: written by VectorWriter, in order: row i of the index is the i-th row of them all. An index holds all vectors
    in memory while it is built, whatever its kind.
    """
    from gcl.data.store.vector_files import vector_batches, write_row_ids  # not at the top: help lists the kinds

    kind = check_kind(name)
    path, index = out / f"documents.{kind.suffix}", kind.new(width)
    for file in files:
        for _, vectors in vector_batches(file, column):
            index.add(vectors)
    with replacing(path) as temporary:
        index.save(temporary)
    write_row_ids(out / IDS, (ids for file in files for ids, _ in vector_batches(file, column)))
    return path
