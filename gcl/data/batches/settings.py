"""What `plan:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from gcl.options import Choice


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
    documents_per_query: int | None = None
    """The most pairs of one query that are kept together in a batch, for graded and multi-positive losses; null: every
    pair is drawn by itself."""
    drop_last: bool = False
    """Leave out the last batch of an epoch where it would be smaller than the others."""

    def check(self, prefix: str = "") -> None:
        """Raises ValueError for values that are impossible alone or together; `prefix` goes before their names."""
        if self.documents_per_query is not None and self.documents_per_query < 1:
            given = f"{prefix}documents_per_query={self.documents_per_query}"
            raise ValueError(f"{given}: a number of at least 1, or null.")
        for name, value in (("documents_per_query", self.documents_per_query), ("drop_last", self.drop_last)):
            if self.unique is not None and value:
                raise ValueError(
                    f"{prefix}unique={self.unique} and {prefix}{name}={str(value).lower()} exclude each other: leave "
                    "one of them out."
                )
