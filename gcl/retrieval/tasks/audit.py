"""Judgments are audited before anything is measured: a benchmark whose answers are not in its corpus measures nothing.

One public benchmark had 89.9 % of its judgments pointing at documents that its corpus does not hold
(https://github.com/embeddings-benchmark/mteb/issues/5021). Nothing is dropped here: findings are counted and named,
and a task that is too broken raises.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from gcl.data.store.records import Records
from gcl.retrieval.tasks.task import RetrievalTask

MOST_DANGLING = 0.2


@dataclass(frozen=True)
class Audit:
    """What is wrong with a task, in numbers; `lines` says it in words."""

    task: str
    queries: int
    documents: int
    judgments: int
    dangling: int  # judgments of documents outside the corpus
    dangling_example: str | None
    unanswerable: int  # queries that have a positive, none of them in the corpus
    without_positive: int  # queries without any judgment above 0
    negative: int  # judgments below 0
    repeated: int  # (query, document) pairs judged more than once
    duplicates: int  # documents whose whole content another document has as well
    unfair: int  # queries for which such a twin of a positive is not judged positive itself
    same_ids: int  # query ids that are document ids, too
    absent: int = 0  # judgments of products that the catalog lacks, left out when it was prepared,
    absent_of: int = 0  # of so many
    unanswered: int = 0  # queries without any relevant product, left out when it was prepared,
    unanswered_of: int = 0  # of so many

    @property
    def broken(self) -> str | None:
        """Why no number can be given, or None."""
        if self.queries == 0 or self.documents == 0 or self.judgments == 0:
            return f"it has {self.queries} queries, {self.documents} documents and {self.judgments} judgments"
        if self.unanswerable + self.without_positive == self.queries:
            return "no query has a relevant document in the corpus"
        if self.dangling > MOST_DANGLING * self.judgments:
            return (
                f"{self.dangling:,} of {self.judgments:,} judgments ({self.dangling / self.judgments:.1%}) point at "
                f"documents that are not in the corpus, for example {self.dangling_example!r}"
            )
        if self.absent > MOST_DANGLING * self.absent_of:
            return (
                f"{self.absent:,} of {self.absent_of:,} judgments ({self.absent / self.absent_of:.1%}) point at "
                "products that the catalog does not have (tasks/*.dangling.csv of the prepared folder lists them)"
            )
        if self.repeated:
            return f"{self.repeated:,} (query, document) pairs are judged more than once"
        return None

    def check(self) -> Audit:
        """Raises ValueError for a task that is too broken to be measured; returns itself."""
        if (reason := self.broken) is not None:
            raise ValueError(
                f"Task {self.task!r} cannot be measured: {reason}. "
                "Check that queries, judgments and products belong together, or leave the task out (evaluate.tasks)."
            )
        return self

    @property
    def lines(self) -> list[str]:
        """The findings, one sentence each; empty if there are none."""
        judgments, queries = f"of {self.judgments:,} judgments", f"of {self.queries:,} queries"
        found = [
            (self.dangling, f"{judgments} point outside the corpus; they count as missed."),
            (self.unanswerable, f"{queries} have no relevant document in the corpus; they score 0."),
            (self.without_positive, f"{queries} have no relevant judgment; they score 0."),
            (self.negative, f"{judgments} are below 0; they count as 0."),
            (self.duplicates, f"of {self.documents:,} documents have the content of another document."),
            (self.unfair, f"{queries} judge a document relevant and its twin not: finding the twin counts as a miss."),
            (self.same_ids, f"{queries} have the id of a document; no result is removed for it."),
        ]
        found += [
            (
                self.absent,
                f"of {self.absent_of:,} judgments are of products that the catalog lacks; they were left out, so "
                "recall and nDCG look better than they are.",
            ),
            (
                self.unanswered,
                f"of {self.unanswered_of:,} queries have no judgment, or no relevant product in the catalog; they are "
                "not asked.",
            ),
        ]
        return [f"{self.task}: {count:,} {line}" for count, line in found if count]

    def as_dict(self) -> dict:
        return asdict(self)


def audit(task: RetrievalTask) -> Audit:
    """Looks at everything that makes a task's numbers mean something else than they say; once a task."""
    if (known := task.__dict__.get("_audit")) is None:
        known = task.__dict__["_audit"] = _audit(task)
    return known


def _audit(task: RetrievalTask) -> Audit:
    judged, queries, documents = task.judgments, len(task.queries), len(task.corpus)
    positive, inside = judged.relevance > 0, judged.document >= 0
    any_positive = np.bincount(judged.query[positive], minlength=queries) > 0
    reachable = np.bincount(judged.query[positive & inside], minlength=queries) > 0
    twin = content_groups(task.corpus)
    copies = np.bincount(twin, minlength=documents)
    pair = judged.query[inside] * max(documents, 1) + judged.document[inside]
    outside_names = judged.outside[0] if judged.outside else None
    return Audit(
        task=task.name,
        queries=queries,
        documents=documents,
        judgments=len(judged),
        dangling=int((~inside).sum()),
        dangling_example=outside_names,
        unanswerable=int((any_positive & ~reachable).sum()),
        without_positive=int((~any_positive).sum()),
        negative=int((judged.relevance < 0).sum()),
        repeated=len(pair) - len(np.unique(pair)),
        duplicates=int((copies[twin] > 1).sum()),
        unfair=_unfair(judged.query[positive & inside], twin[judged.document[positive & inside]], copies),
        same_ids=len(set(map(str, task.queries.ids)) & set(map(str, task.corpus.ids))),
        absent=task.dangling,
        absent_of=task.judged_before + task.dangling,
        unanswered=task.unanswered,
        unanswered_of=task.asked_before + task.unanswered,
    )


def content_groups(records: Records) -> np.ndarray:
    """[M] number of each record's content: two records have the same number if all their fields are equal."""
    seen: dict[tuple, int] = {}
    columns = [list(records.hashes(name)) for name in records.side]
    return np.array([seen.setdefault(key, len(seen)) for key in zip(*columns, strict=True)], dtype=np.int64)


def _unfair(query: np.ndarray, group: np.ndarray, copies: np.ndarray) -> int:
    """Queries that judge some, but not all, of the equal documents of a group relevant."""
    if not len(query):
        return 0
    pair, relevant = np.unique(np.stack([query, group]), axis=1, return_counts=True)
    return len(np.unique(pair[0][relevant < copies[pair[1]]]))
