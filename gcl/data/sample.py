"""One sample as it is before any tensor: two raw records, a score and two ids."""

from __future__ import annotations

from typing import NamedTuple

Record = dict[str, str | bytes | None]
"""One side of one sample by field name: str for a text, the file's bytes for an image, None for an absent value."""

MOST_TEXT = 1_000_000
"""Characters (of a shard's member: bytes) of the longest text: a file that slipped into a cell is no description."""


class Example(NamedTuple):
    """One (query, document) pair, raw."""

    query: Record
    document: Record
    score: float
    query_id: str
    document_id: str
