"""Somebody else's embeddings and results, measured on the same path as a model.

`PrecomputedEmbeddings` takes the place of an encoder: vectors by id from Parquet files. `RunFiles` takes the place of
encoder and search: documents ranked by query from TREC run files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.importers.vectors import read_vectors
from gcl.data.store.records import Records, texts_of
from gcl.data.tables.cells import canonical_id
from gcl.files.digest import add_file, file_sha256
from gcl.retrieval.embedding.embed import FieldEmbeddings, Weights
from gcl.retrieval.search.ties import with_ties
from gcl.retrieval.tasks.task import RetrievalTask, Run
from gcl.retrieval.tasks.trec import read_run
from gcl.schema import SIDES, Field, Modality, SideName

WHOLE = {"embedding": Field(Modality.text)}
"""The only field of vectors that were made of whole records."""
_UNIT = 1e-3  # how far from 1 a length may be and still count as normalised


@dataclass(frozen=True)
class WholeEmbeddings(FieldEmbeddings):
    """One vector per record, made of all its fields: field weights do not apply."""

    def fused(self, weights: Weights | None = None) -> np.ndarray:
        del weights
        return super().fused(None)


class PrecomputedEmbeddings:
    """Vectors by id. `files`: Parquet with id and vector in every row, of documents and of queries, in one file or two.

    A query is found by its id, or by its text (as an id, or in a column `text`). Rows with a `side` belong to that side
    alone; where both sides share ids, it is needed. Everything is normalised: scores are cosines.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [Path(file) for file in files]
        self.vectors = read_vectors(self.files)
        lengths = np.linalg.norm(self.vectors.vector, axis=1)
        self.normalised = bool((np.abs(lengths - 1) < _UNIT).all())
        self._unit = self.vectors.vector / lengths[:, None]
        self._row_of = {side: self._index(side) for side in SIDES}

    @property
    def width(self) -> int:
        """D, the length of a vector."""
        return self._unit.shape[1]

    @property
    def notes(self) -> list[str]:
        """What a reader of the metrics has to know."""
        if self.normalised:
            return []
        return [f"{self.files[0].name}: its vectors are not of length 1; they were normalised, so scores are cosines."]

    def digest(self) -> str:
        """SHA-256 of the files."""
        digest = hashlib.sha256()
        for path in self.files:
            with open(path, "rb") as file:
                add_file(digest, file)
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Provenance."""
        return {"embeddings": [str(file) for file in self.files], "sha256": self.digest(), "width": self.width,
                "normalised_as_given": self.normalised}  # fmt: skip

    def embed_records(self, records: Records, side: SideName) -> FieldEmbeddings:
        """Raises ValueError, with counts and the first ids, for records that have no vector."""
        row_of = self._row_of[side]
        rows = [row_of.get(str(name), -1) for name in records.ids]
        if side == "query":
            texts = texts_of(records)
            rows = [
                row_of.get(canonical_id(text), -1) if row < 0 else row for row, text in zip(rows, texts, strict=True)
            ]
        missing = [place for place, row in enumerate(rows) if row < 0]
        if missing:
            shown = ", ".join(repr(_name(records, place, side)) for place in missing[:3])
            how = "id or text" if side == "query" else "id"
            raise ValueError(
                f"embeddings:{'+'.join(map(str, self.files))} has no vector for {len(missing):,} of {len(rows):,} "
                f"{ {'query': 'queries', 'document': 'documents'}[side] } (by {how}), for example {shown}."
            )
        taken = np.ascontiguousarray(self._unit[rows])[:, None, :]
        return WholeEmbeddings(taken, np.ones((len(rows), 1), dtype=bool), WHOLE)

    def _index(self, side: SideName) -> dict[str, int]:
        vectors = self.vectors
        row_of: dict[str, int] = {}
        for row, name in enumerate(vectors.ids):
            given = vectors.sides[row] if vectors.sides is not None else None
            if given is not None and given not in ("query", "document"):
                raise ValueError(f"embeddings: the side of {name!r} is {given!r}; expected query, document or nothing.")
            if given not in (None, side):
                continue
            if row_of.setdefault(name, row) != row and not (vectors.vector[row_of[name]] == vectors.vector[row]).all():
                raise ValueError(
                    f"embeddings:{'+'.join(map(str, self.files))} has two vectors for {name!r}: make ids unique, or "
                    "add a column `side` (query or document) where a query and a document share an id."
                )
        if side == "query" and vectors.texts is not None:
            for row, text in enumerate(vectors.texts):
                if text is not None and (vectors.sides is None or vectors.sides[row] in (None, "query")):
                    row_of.setdefault(canonical_id(text), row)
        return row_of


class RunFiles:
    """TREC run files by task. pattern: a path with "{task}" in the place of a task's name, or one file for all."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.notes: list[str] = []
        self._read: dict[str, Run] = {}
        if "{task}" not in pattern:
            self._file("")

    def digest(self) -> dict[str, str]:
        """{file: SHA-256} of the files that were read."""
        return {path: file_sha256(path) for path in self._read}

    def facts(self) -> dict[str, Any]:
        """Provenance."""
        return {"runs": self.digest()}

    def results(self, task: RetrievalTask, name: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """score[Q, k] float32 and row[Q, k] (-1: nothing), the best first, equal scores by document id ascending.

        Raises ValueError, with counts, for documents that the task's corpus does not have, and for a run that answers
        none of its queries. Queries without results are noted: they score 0.
        """
        run = self._file(name)
        position = {str(document): row for row, document in enumerate(task.corpus.ids)}
        score = np.full((len(task.queries), k), -np.inf, dtype=np.float32)
        row = np.full((len(task.queries), k), -1, dtype=np.int64)
        unknown, empty = [], 0
        for place, query in enumerate(task.queries.ids):
            ranked = sorted(run.get(str(query), []), key=lambda item: -item[1])
            unknown += [document for document, _ in ranked if document not in position]
            empty += not ranked
            if unknown or not ranked:
                continue
            scores = np.array([value for _, value in ranked], dtype=np.float32)
            rows = np.array([position[document] for document, _ in ranked], dtype=np.int64)
            if len(set(rows.tolist())) < len(rows):
                raise ValueError(f"{self._path(name)}: query {query!r} lists a document twice.")
            ordered = with_ties(scores[None], rows[None], task.id_ranks)
            most = min(k, len(ranked))
            score[place, :most], row[place, :most] = ordered[0][0, :most], ordered[1][0, :most]
        if unknown:
            raise ValueError(
                f"{self._path(name)}: {len(unknown):,} results are documents outside the corpus of {name!r}, for "
                f"example {unknown[0]!r}: a run has to search the documents of the task and no others."
            )
        if empty == len(task.queries):
            raise ValueError(
                f"{self._path(name)} has no results for any of the {empty:,} queries of {name!r}: check its query ids."
            )
        if empty:
            of = f"{empty:,} of {len(task.queries):,}"
            self.notes.append(f"{self._path(name)}: no results for {of} queries of {name}; they score 0.")
        return score, row

    def _path(self, name: str) -> str:
        return self.pattern.replace("{task}", name)

    def _file(self, name: str) -> Run:
        path = self._path(name)
        if path not in self._read:
            if not Path(path).is_file():
                raise FileNotFoundError(f"trec:{self.pattern}: there is no file {path}.")
            self._read[path] = read_run(path)
        return self._read[path]


def _name(records: Records, place: int, side: SideName) -> str:
    return (texts_of(records)[place] if side == "query" else None) or str(records.ids[place])
