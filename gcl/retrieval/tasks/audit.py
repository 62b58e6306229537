"""What makes a task's numbers mean something else than they say, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

WORD_FOR_WORD = 0.9  # share of pairs whose query stands word for word in its document, from which it is said
MOST_DANGLING = 0.2  # judgments of unknown documents, as a share: with more, a task is not measured


@dataclass(frozen=True)
class Audit:
    """What is wrong with a task, in numbers; `lines` puts it into sentences.

    A benchmark whose answers are not in its corpus measures nothing: of one public benchmark 89.9 % of the judgments
    pointed at documents that its corpus does not hold (https://github.com/embeddings-benchmark/mteb/issues/5021).
    Nothing is dropped here: findings are counted and named, and a task that is too broken raises.
    """

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
    absent: int = 0  # judgments of documents that the catalog lacks, left out when it was prepared,
    absent_of: int = 0  # out of this many
    unanswered: int = 0  # queries without any relevant document, left out when it was prepared,
    unanswered_of: int = 0  # out of this many
    hidden: tuple[str, ...] = ()  # document fields that are not shown
    word_for_word: Mapping[str, Sequence[int]] = field(default_factory=dict)  # as RetrievalTask has it
    title: str = ""  # as people call the task

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
                "Check that queries, judgments and documents belong together, or leave the task out (evaluate.tasks)."
            )
        return self

    @property
    def lines(self) -> list[str]:
        """The findings, one sentence each; empty if there are none."""
        title = self.title or self.task
        judgments, queries = f"of {self.judgments:,} judgments", f"of {self.queries:,} queries"
        counts = [
            (self.dangling, f"{judgments} point outside the corpus; they count as missed."),
            (self.unanswerable, f"{queries} have no relevant document in the corpus; they score 0."),
            (self.without_positive, f"{queries} have no relevant judgment; they score 0."),
            (self.negative, f"{judgments} are below 0; they count as 0."),
            (self.duplicates, f"of {self.documents:,} documents have the content of another document."),
            (self.unfair, f"{queries} judge a document relevant and its twin not: finding the twin counts as a miss."),
            (self.same_ids, f"{queries} have the id of a document; no result is removed for it."),
        ]
        counts += [
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
        hidden = [
            f"{title}: documents are shown without {name}, of which the queries were made." for name in self.hidden
        ]
        return (
            [f"{title}: {count:,} {line}" for count, line in counts if count]
            + hidden
            + [
                f"{title}: in {held:,} of {of:,} pairs the query stands word for word in document.{name}: finding "
                "these is comparing words, and says little about a model."
                for name, (held, of) in self.word_for_word.items()
                if held >= WORD_FOR_WORD * of
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
