"""What `plan:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PlanConfig:
    """Which pairs meet in a batch. unique: "query" or "document", none of them twice in a batch. documents_per_query:
    so many pairs of one query lie in the same batch, where it has them. drop_last: leave out an epoch's last, partial
    batch."""

    unique: str | None = None
    documents_per_query: int | None = None
    drop_last: bool = False
