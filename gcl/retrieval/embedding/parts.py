"""An array of embeddings that is made a part at a time: a part is kept, with its digest, as soon as it is whole, and a
job that was killed takes up at the first part that is not there.

Parts are the same rows on any number of ranks, so that a job may go on with another number of them. They are entries of
the cache like any other, named by the whole's name and their rows, and nothing refers to them when the whole is done.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl.files.arrays import ArrayCache

PART_BATCHES = 4  # of a part, at least: what is lost at most when a process is killed

logger = logging.getLogger("gcl")


@dataclass
class Parts:
    """name: of the whole, a digest of all that it depends on. ends[P + 1]: the rows at which parts begin and end.
    cache: None keeps nothing."""

    name: str
    ends: Sequence[int]
    cache: ArrayCache | None

    def __len__(self) -> int:
        return len(self.ends) - 1

    def rows(self, part: int) -> range:
        return range(self.ends[part], self.ends[part + 1])

    def part_of(self, row: int) -> int:
        """The part that holds a row."""
        return bisect_right(self.ends, row) - 1

    def entry(self, part: int) -> str:
        """The name of a part's entry in the cache."""
        rows = self.rows(part)
        return hashlib.sha256(f"{self.name} {rows.start} {rows.stop}".encode()).hexdigest()

    def load(self, part: int) -> np.ndarray | None:
        """The part as it was kept; None if it was not, or is not what was written."""
        return None if self.cache is None else self.cache.load(self.entry(part), len(self.rows(part)))

    def keep(self, part: int, array: np.ndarray) -> None:
        """A cache that cannot be written costs time, not the result: it is said once."""
        if self.cache is None:
            return
        try:
            self.cache.put(self.entry(part), array)
        except OSError as problem:
            logger.warning(
                f"note: embeddings could not be kept in {self.cache.folder} ({problem.strerror or problem})."
            )
            self.cache = None

    def keep_until(self, end: int, array: np.ndarray) -> None:
        """Keeps the part that ends at this row of the whole, if there is one, all of which is in `array`[M, …]."""
        if self.cache is not None and (part := bisect_left(self.ends, end)) and self.ends[part] == end:
            rows = self.rows(part - 1)
            self.keep(part - 1, array[rows.start : rows.stop])

    def forget(self) -> None:
        """Removes all parts: the whole is kept elsewhere."""
        if self.cache is not None:
            for part in range(len(self)):
                self.cache.remove(self.entry(part))


def ends_of(sizes: Sequence[int], least: int) -> list[int]:
    """Rows at which parts of at least `least` rows end, none of which cuts one of the pieces of these sizes.

    >>> ends_of([3, 3, 3, 1], 5)
    [0, 6, 10]
    """
    ends = [0]
    for end in np.cumsum(sizes).tolist():
        if end - ends[-1] >= least:
            ends.append(end)
    total = int(np.sum(sizes))
    return ends if ends[-1] == total else [*ends, total]
