"""What `plan:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from gcl.options import Choice, number


class Unique(Choice):
    """The side whose records come at most once in a batch."""

    query = "query"
    document = "document"


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

    def check(self, prefix: str = "", *, mixed: bool = False) -> None:
        """Raises ValueError for values that are impossible alone or together; `prefix` goes before their names.

        mixed: whether a batch holds pairs of several catalogs (data.batches=mixed).
        """
        if mixed and self.unique is not None:
            rest = "a mixed batch is cut from several catalogs' sequences."
            raise ValueError(f"{prefix}unique needs data.batches=one: {rest}")
        if self.documents_per_query is not None and self.documents_per_query < 1:
            given = f"{prefix}documents_per_query={self.documents_per_query}"
            raise ValueError(f"{given}: expected a number of at least 1, or null.")
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
