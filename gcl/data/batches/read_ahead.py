"""Shards of an object store, fetched before training comes to them.

A thread of each rank walks the rank's own steps in the plan's order, as far ahead of training as its share of the cache
allows: it fetches the shards that this rank reads in them, several at a time, and keeps those of all steps between here
and there from being dropped. It changes no batch: a reader that does not find a shard fetches it itself.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from gcl.data.batches.batch import PairDataset
from gcl.data.store.remote_shards import RemoteShard, ShardCache, gigabytes

logger = logging.getLogger(__name__)
Needs = Callable[[int], set[RemoteShard]]
_AT_ONCE = 4  # shards that arrive at a time
_FARTHEST = 4096  # steps ahead
_AT_A_TIME = 64  # steps that are looked through before training gets the interpreter back
_LOOKED_AT = 64  # steps of an epoch by which it is told whether the cache is large enough
_OF_TRAINING = 0.8  # of the cache; in the rest others read meanwhile: validation, mined documents


class ReadAhead:
    """needs: the shards of a step. room: bytes of the cache that are this rank's."""

    def __init__(self, needs: Needs, room: int) -> None:
        self.needs, self.room = needs, room
        self._current = 0
        self._wanted: dict[RemoteShard, int] = {}  # and the last step known to need each
        self._arriving: dict[RemoteShard, Future[None]] = {}
        self._moved, self._ended = threading.Event(), False

    @contextmanager
    def running(self, steps: Iterable[int]) -> Iterator[None]:
        """Works while the block runs."""
        self._ended = False
        thread = threading.Thread(target=self._run, args=(iter(steps),), name="read ahead", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended = True
            self._moved.set()
            thread.join()

    def at(self, step: int) -> None:
        """Training has come to this step."""
        self._current = step
        self._moved.set()

    def _run(self, steps: Iterator[int]) -> None:
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")
        try:
            following = next(steps, None)
            if following is not None:
                self._current = max(self._current, following)
            while not self._ended:
                self._wanted = {shard: last for shard, last in self._wanted.items() if last >= self._current}
                looked_through = 0
                while following is not None and looked_through < _AT_A_TIME and self._want(following, pool):
                    following = next(steps, None)
                    looked_through += 1
                if sum(shard.size for shard in self._wanted) <= self.room:  # else some must go for others
                    for shard in self._wanted:
                        shard.touch()
                more = looked_through == _AT_A_TIME
                self._moved.wait(0.01 if more else 1.0)
                self._moved.clear()
        except Exception:  # readers fetch for themselves, and say what is wrong in the main thread
            logger.exception("Nothing is read ahead any more")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _want(self, step: int, pool: ThreadPoolExecutor) -> bool:
        """Fetches what a step needs; False where it lies too far ahead."""
        needed = self.needs(step)
        both = self._wanted.keys() | needed
        if step > self._current and (step > self._current + _FARTHEST or sum(one.size for one in both) > self.room):
            return False
        for shard in sorted(needed, key=lambda one: one.url):
            self._wanted[shard] = step
            arriving = self._arriving.get(shard)
            if (arriving is None or arriving.done()) and not shard.touch():
                if arriving is None or arriving.exception() is None:  # what was refused is left to who reads it
                    self._arriving[shard] = pool.submit(shard.fetch)
        return True


def read_ahead(dataset: PairDataset, first: int, *, ranks_here: int = 1) -> ReadAhead | None:
    """For a rank's steps from `first` on; None where all shards lie here. ranks_here: of this machine, which share the
    cache.

    Raises ValueError where this rank's share of the cache is smaller than what a step is read from.
    """
    for side in (dataset.query, dataset.document):  # of rows here and there: the plan of an epoch is not made for this
        if side.remote_shards(np.linspace(0, len(side.store) - 1, _LOOKED_AT, dtype=np.int64)):
            break
    else:
        return None
    some = dataset.remote_shards(first)
    if not some:
        return None
    dataset = copy.copy(dataset)
    dataset.plan = copy.copy(dataset.plan)  # with an epoch of its own: this thread is ahead of the other
    _check_room(dataset, first, ranks_here, next(iter(some)).cache)
    room = _room(next(iter(some)).cache, ranks_here)
    # One is fetched in this thread: what is wrong with the store is said before training, and its client is imported
    # and made here, since a worker that is forked while another thread imports something waits for it forever.
    first_of_all, *others = sorted(some, key=lambda shard: shard.size)
    first_of_all.fetch()
    # The first batch waits for the others anyway; a worker that came to them first would make a client of its own.
    if sum(shard.size for shard in some) <= room:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(RemoteShard.fetch, others))
    return ReadAhead(dataset.remote_shards, room)


def _room(cache: ShardCache, ranks_here: int) -> int:
    return int(_OF_TRAINING * cache.limit()) // ranks_here


def _check_room(dataset: PairDataset, first: int, ranks_here: int, cache: ShardCache) -> None:
    room = _room(cache, ranks_here)
    if cache.most is None:
        sides = ((dataset.query, dataset.query.store), (dataset.document, dataset.document.store))
        whole = set().union(*(side.remote_shards(np.arange(len(store))) for side, store in sides))
        if (size := sum(shard.size for shard in whole)) > cache.limit():
            raise ValueError(
                f"The shards have {gigabytes(size)}, and {cache.folder} has room for {gigabytes(cache.limit())}: set "
                "data.cache_gb to what may be used there, and the others are dropped as training goes on."
            )
        return
    steps = np.unique(np.linspace(first, first + dataset.plan.steps_per_epoch - 1, _LOOKED_AT, dtype=np.int64))
    needed = [sum(shard.size for shard in dataset.remote_shards(step)) for step in steps.tolist()]
    if (most := int(np.median(needed))) > room:  # a step at the border of two windows is read from both
        enough = 2 * most * ranks_here / _OF_TRAINING / 1e9
        raise ValueError(
            f"A window of shards has {gigabytes(most)} for rank {dataset.rank}, and of data.cache_gb="
            f"{cache.most / 1e9:g} ({gigabytes(cache.limit())} in {cache.folder}) a rank's training may use "
            f"{gigabytes(room)}: pairs are shuffled inside a window. Set data.cache_gb={enough:.2g} or more (two "
            "windows: one is read while the next arrives), or use smaller shards (data.store.shard_bytes)."
        )
