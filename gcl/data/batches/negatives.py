"""The additional documents of a batch: what its queries must not find, each a pair of score 0 (gcl.loss.gcl).

They are judged (the catalog's own pairs of score 0) or mined (gcl.retrieval.mining). Every query of a batch brings up
to `per_query` of its own, the judged ones first; which ones is a pure function of (seed, step, the two tables), so
neither ranks nor workers nor a resume change them.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from torch.utils.data import get_worker_info

from gcl.data.batches.by_query import ByQuery
from gcl.data.batches.chance import random_stream
from gcl.data.store.prepared import Pairs
from gcl.errors import ProcessLost
from gcl.files.atomic import replacing

_STREAM = 0x6E6567  # tells the stream of random numbers from the plan's, which is named by (seed, epoch)


NO_NEGATIVES = ByQuery.of(np.zeros(0, np.int64), np.zeros(0, np.int64))


class Negatives:
    """judged: the catalog's pairs of score 0. mined: where the mined ones are, if there are any."""

    def __init__(self, judged: Pairs, *, per_query: int = 1, seed: int = 0, mined: Rounds | None = None) -> None:
        self.per_query, self.seed, self.mined = per_query, seed, mined
        self._judged = ByQuery.of(judged.query, judged.document)
        self._read: tuple[Path, ByQuery] | None = None

    def __bool__(self) -> bool:
        return self.mined is not None or len(self._judged.document) > 0

    @property
    def digest(self) -> str | None:
        """Of the judged ones; None: there are none."""
        return self._judged.digest if len(self._judged.document) else None

    def of_batch(self, step: int, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """queries[U]: the distinct query rows of the step's batch -> place[E] in queries, and document[E]."""
        tables = [self._judged] + ([self._table(self.mined(step))] if self.mined is not None else [])
        found = [table.entries(queries) for table in tables]
        place = np.concatenate([place for place, _ in found])
        document = np.concatenate([table.document[entry] for table, (_, entry) in zip(tables, found, strict=True)])
        later = np.repeat(np.arange(len(found)), [len(place) for place, _ in found])
        chance = random_stream(self.seed, step, _STREAM).random_raw(len(place))
        order = np.lexsort((chance, later, place))
        place, document = place[order], document[order]
        first = np.searchsorted(place, place)
        kept = np.arange(len(place)) - first < self.per_query
        return place[kept], document[kept]

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run has the same additional documents."""
        state: dict[str, Any] = {"judged": self._judged.digest}
        if self.mined is not None and (path := self.mined(step)).exists():
            state["mined"] = {"file": path.name, "digest": read_mined(path).digest}
        return state

    def check(self, state: dict[str, Any]) -> None:
        """Raises ValueError unless a saved state's documents are those that are here."""
        if state.get("judged", NO_NEGATIVES.digest) != self._judged.digest:
            raise ValueError(
                "The checkpoint was written for other pairs with the score 0 than the catalog has now. Restore the "
                "table, or continue with what there is: train.allow_change=[data]."
            )
        if self.mined is not None and (mined := state.get("mined")) is not None:
            path = self.mined(0).with_name(mined["file"])
            if read_mined(path).digest != mined["digest"]:
                raise ValueError(
                    f"{path} is not what the checkpoint was trained with: put back what the run wrote, or continue "
                    "with what there is: train.allow_change=[plan]."
                )

    def _table(self, path: Path) -> ByQuery:
        if self._read is None or self._read[0] != path:
            _wait_for(path)
            mined = read_mined(path)
            self._read = path, ByQuery.of(mined.query, mined.document)
        return self._read[1]


class Rounds(NamedTuple):
    """The files of a run's rounds of mining: one for every `every` batches, or one alone."""

    folder: Path
    every: int | None = None

    def first_step(self, step: int) -> int:
        """At which the round that holds a step began."""
        return step // self.every * self.every if self.every else 0

    def __call__(self, step: int) -> Path:
        return self.folder / f"{self.first_step(step):08d}.parquet"

    def files(self) -> list[Path]:
        """In order of their steps."""
        return sorted(self.folder.glob("[0-9]*.parquet"))


class Mined(NamedTuple):
    """One round of mining: query[M], document[M] (rows of the stores) and how similar they were, score[M]."""

    query: np.ndarray
    document: np.ndarray
    score: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 over what batches are made of."""
        whole = hashlib.sha256(np.ascontiguousarray(self.query, np.int64).data)
        whole.update(np.ascontiguousarray(self.document, np.int64).data)
        return whole.hexdigest()

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"query": self.query, "document": self.document, "score": self.score})
        with replacing(path) as partial:
            parquet.write_table(table, partial, compression="zstd")


def read_mined(path: Path) -> Mined:
    """What `write` wrote. Raises ValueError, in a sentence, for a file that cannot be read."""
    try:
        table = parquet.read_table(path)
        return Mined(*(table[name].to_numpy() for name in Mined._fields))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): put back what the run wrote.") from error


def _wait_for(path: Path) -> None:
    """A process that reads ahead comes to a step for which nothing is mined before training has come there."""
    parent = os.getppid()
    while get_worker_info() is not None and not path.exists():
        if os.getppid() != parent:
            raise ProcessLost("The training process has ended.")
        time.sleep(0.05)
