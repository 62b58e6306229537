"""Vectors beside vectors: how near two sets of them are, and whether searches find the same with both."""

from __future__ import annotations

from typing import Any

import numpy as np

from gcl.export.verify.case import TaskSample

K = 10
_SHOWN = 3  # differences of a task that are written down


def cosine(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """[n], or [0] for vectors of another width."""
    if found.shape != expected.shape:
        return np.empty(0)
    product = (found.astype(np.float64) * expected).sum(axis=1)
    with np.errstate(invalid="ignore"):  # zeros instead of a vector: not a number
        return product / (np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1))


def cosines(found: np.ndarray, expected: np.ndarray, names: list[str], rows: np.ndarray) -> dict[str, Any]:
    """The lowest and the mean cosine among these rows, and where the lowest is."""
    each = cosine(found, expected)
    if not len(each):
        return {"lowest": float("nan"), "row": 0, "name": names[0], "count": len(rows),
                "shape": f"vectors of width {found.shape[1]} instead of {expected.shape[1]}"}  # fmt: skip
    row = int(rows[np.argmin(np.where(np.isfinite(each[rows]), each[rows], -2.0))])
    return {"lowest": float(each[row]), "mean": float(each[rows].mean()), "row": row, "name": names[row],
            "count": len(rows)}  # fmt: skip


def same_tops(
    task: TaskSample, run: tuple[np.ndarray, np.ndarray], export: tuple[np.ndarray, np.ndarray], *, near: float
) -> dict[str, Any]:
    """Queries by what came of them: "equal", "tied" (places changed among near-equal scores), "different".

    run, export: the task's queries [Q, D] and documents [M, D].
    """
    from gcl.retrieval.search.search import search
    from gcl.retrieval.search.ties import id_ranks

    rank, (asked, corpus) = id_ranks(task.documents), run
    score, ours = search(asked, corpus, K, rank=rank)
    _, theirs = search(*export, K, rank=rank)
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
