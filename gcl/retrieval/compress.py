"""What smaller vectors cost: truncated, int8 and binary ones against float32, on the same queries.

A corpus has to fit into memory, a query need not: queries stay float32, except against binary documents with "both".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl.retrieval.evaluate import TaskResult, result_of
from gcl.retrieval.report import aligned
from gcl.retrieval.search import search
from gcl.retrieval.statistics import Comparison, compare
from gcl.retrieval.task import RetrievalTask


@dataclass(frozen=True)
class Form:
    """How vectors are stored: the first `width` numbers of each (None: all), as float32, int8 or binary.

    >>> Form(256, "int8").bytes(768), Form(None, "binary").bytes(768), str(Form(256, "int8"))
    (256, 96, '256 x int8')
    """

    width: int | None = None
    kind: str = "float32"

    def bytes(self, width: int) -> int:
        """Of one vector of a model with embeddings of this width."""
        kept = min(self.width or width, width)
        return {"float32": 4 * kept, "int8": kept, "binary": -(-kept // 8), "binary both": -(-kept // 8)}[self.kind]

    def __str__(self) -> str:
        return f"{self.width or 'all'} x {self.kind}"


@dataclass(frozen=True)
class Compressed:
    """One form: bytes a document and, for each metric, the comparison with float32 vectors of full width."""

    form: Form
    bytes: int
    comparisons: dict[str, Comparison]


def default_forms(width: int) -> list[Form]:
    """Halves of the width down to 64, then int8 and binary of the whole."""
    halves = [width >> step for step in range(1, 6) if width >> step >= 64]
    return [*(Form(half) for half in halves), Form(None, "int8"), Form(None, "binary"), Form(None, "binary both")]


def compress(query: np.ndarray, corpus: np.ndarray, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """query[Q, D] and corpus[M, D] as float32 vectors whose dot products are the scores of this form.

    int8: one scale for all numbers, the largest magnitude becoming 127, as vector databases do without calibration.
    """
    query, corpus = _unit(query[:, : form.width]), _unit(corpus[:, : form.width])
    if form.kind == "float32":
        return query, corpus
    if form.kind == "int8":
        scale = 127 / np.abs(corpus).max(initial=1e-30)
        return query, np.rint(corpus * scale).astype(np.float32)
    if form.kind in ("binary", "binary both"):
        signs = np.where(corpus >= 0, np.float32(1), np.float32(-1))
        return (query if form.kind == "binary" else np.where(query >= 0, np.float32(1), np.float32(-1))), signs
    raise ValueError(f"Vectors are stored as float32, int8, binary or binary both; not {form.kind!r}.")


def compression_table(
    task: RetrievalTask,
    query: np.ndarray,
    corpus: np.ndarray,
    metrics: Sequence[str] = ("ndcg@10", "recall@10"),
    *,
    k: int = 100,
    forms: Sequence[Form] | None = None,
) -> list[Compressed]:
    """One entry a form. query[Q, D], corpus[M, D]: the fused embeddings of the task's queries and documents."""

    def measured(form: Form) -> TaskResult:
        score, row = search(*compress(query, corpus, form), k, rank=task.id_ranks)
        return result_of(task, score, row, metrics)

    width = corpus.shape[1]
    full = measured(Form()).values
    found = []
    for form in default_forms(width) if forms is None else forms:
        values = measured(form).values
        comparisons = {name: compare(full[name], values[name]) for name in metrics}
        found.append(Compressed(form, form.bytes(width), comparisons))
    return found


def as_text(rows: Sequence[Compressed]) -> str:
    header = ["vectors", "bytes", *(cell for name in rows[0].comparisons for cell in (name, "change"))] if rows else []
    body = [
        [str(row.form), str(row.bytes)]
        + [cell for c in row.comparisons.values() for cell in (f"{c.after:.4f}", f"{c.change:+.4f}")]
        for row in rows
    ]
    return aligned(header, body, words=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
