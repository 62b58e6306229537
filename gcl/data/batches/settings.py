"""What `plan:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from gcl.options import Choice, check_numbers, number, path


class Unique(Choice):
    """The side whose records come at most once in a batch."""

    query = "query"
    document = "document"


class Miner(Choice):
    """Where hard negatives come from: the model's own results as it trains, a table of one's own, or word matches."""

    model = "model"
    file = "file"
    bm25 = "bm25"


@dataclass
class HardNegatives:
    """Documents that queries nearly find and should not, as additional documents of their batches."""

    source: Miner | None = None
    """model: the results of the model as it trains, searched exactly; bm25: those of BM25 over the text fields; file: a
    table; null: none."""
    every: int | None = number(None, least=1)
    """Optimiser steps after which they are searched anew with the model as it is then; null: once, before training."""
    ranks: list[int] = field(default_factory=lambda: [10, 100])
    """First and last place of a query's results that are taken: what lies above is often relevant and unjudged."""
    margin: float | None = number(0.95, above=0, most=1)
    """Documents that score more than this share of what the query's own documents score on average are left out; null:
    none for that reason."""
    per_query: int = number(1, least=1, most=1000)
    """Additional documents of each query of a batch, drawn anew at every step; judged ones (score 0) come first."""
    file: str | None = path()
    """source=file: a table with the columns query (ids or texts) and document (ids)."""

    def check(self, prefix: str) -> None:
        """Raises ValueError for values that are impossible together; `prefix` goes before their names."""
        if len(self.ranks) != 2 or not 1 <= self.ranks[0] <= self.ranks[1]:
            raise ValueError(f"{prefix}ranks={self.ranks}: expected the first and the last place, as in [10,100].")
        if (self.source is Miner.file) != (self.file is not None):
            raise ValueError(f"{prefix}source=file and {prefix}file=<table> need each other: set both or none.")
        if self.every is not None and self.source is not Miner.model:
            raise ValueError(f"{prefix}every={self.every} needs {prefix}source=model: other results never change.")


@dataclass
class PlanConfig:
    """Which pairs meet in a batch."""

    unique: Unique | None = None
    """The side whose records come at most once in a batch, so that no pair is another one's false negative; null: pairs
    meet as chance has it."""
    documents_per_query: int | None = number(None, least=1)
    """The most pairs of one query that are kept together in a batch, for graded and multi-positive losses; null: every
    pair is drawn by itself."""
    drop_last: bool = False
    """Leave out the last batch of an epoch where it would be smaller than the others."""
    hard_negatives: HardNegatives = field(default_factory=HardNegatives)
    """Mined documents that come with the queries of a batch; off unless a source is set."""

    def check(self, prefix: str = "", *, mixed: bool = False) -> None:
        """Raises ValueError for values that are impossible alone or together; `prefix` goes before their names.

        mixed: whether a batch holds pairs of several catalogs (data.batches=mixed).
        """
        check_numbers(self, prefix)
        self.hard_negatives.check(f"{prefix}hard_negatives.")
        if mixed and self.unique is not None:
            rest = "a mixed batch is cut from several catalogs' sequences."
            raise ValueError(f"{prefix}unique needs data.batches=one: {rest}")
        for name, value in (("documents_per_query", self.documents_per_query), ("drop_last", self.drop_last)):
            if self.unique is not None and value:
                raise ValueError(
                    f"{prefix}unique={self.unique} and {prefix}{name}={str(value).lower()} exclude each other: leave "
                    "one of them out."
                )


def check_batch_size(batch_size: int, pairs: int) -> None:
    """Raises ValueError for a batch of no pair, or of more pairs than there are."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: a batch has at least one pair.")
    if batch_size > pairs:
        raise ValueError(
            f"batch_size is {batch_size:,}, but there are only {pairs:,} training pairs: choose a train.batch_size of "
            f"at most {pairs:,} (it counts all ranks together)."
        )
