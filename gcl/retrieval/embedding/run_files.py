"""Results of somebody else's search engine: TREC run files, measured like the results of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gcl.files.digest import file_sha256
from gcl.retrieval.search.ties import with_ties
from gcl.retrieval.tasks.task import RetrievalTask, Run
from gcl.retrieval.tasks.trec import read_run


class GivenRuns:
    """Run files by task. pattern: a path in which "{task}" stands for a task's name, or one file for all tasks."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.notes: list[str] = []
        self._read: dict[str, Run] = {}
        if "{task}" not in pattern:
            self._file("")

    def digest(self) -> dict[str, str]:
        """{file: SHA-256} of the files that were read."""
        return {path: file_sha256(path) for path in self._read}

    def results(self, task: RetrievalTask, name: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """score[Q, k] float32 and row[Q, k] (-1: none), the best first, equal scores by document id ascending.

        Raises ValueError, with counts, for documents that the task's corpus does not have, and for a run that answers
        none of its queries. Queries without results are noted: they score 0.
        """
        run = self._file(name)
        position = {str(document): row for row, document in enumerate(task.corpus.ids)}
        score = np.full((len(task.queries), k), -np.inf, dtype=np.float32)
        row = np.full((len(task.queries), k), -1, dtype=np.int64)
        unknown, empty = [], 0
        for place, query in enumerate(task.queries.ids):
            found = sorted(run.get(str(query), []), key=lambda item: -item[1])
            unknown += [document for document, _ in found if document not in position]
            empty += not found
            if unknown:
                continue
            score_here = np.array([value for _, value in found], dtype=np.float32)
            row_here = np.array([position[document] for document, _ in found], dtype=np.int64)
            if len(set(row_here.tolist())) < len(row_here):
                raise ValueError(f"{self._path(name)}: query {query!r} has a document twice.")
            if len(found):
                ordered = with_ties(score_here[None], row_here[None], task.id_ranks)
                kept = min(k, len(found))
                score[place, :kept], row[place, :kept] = ordered[0][0, :kept], ordered[1][0, :kept]
        if unknown:
            raise ValueError(
                f"{self._path(name)}: {len(unknown):,} results are documents outside the corpus of {name!r}, for "
                f"example {unknown[0]!r}: a run has to search the products of the task, and no others."
            )
        if empty == len(task.queries):
            raise ValueError(
                f"{self._path(name)} answers none of the {empty:,} queries of {name!r}; are these its ids?"
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
