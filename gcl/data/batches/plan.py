"""Which pairs each step sees: a pure function of (pairs, options, seed, step); ranks and workers do not enter."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np

from gcl.data.batches.chance import permutation, random_stream
from gcl.data.batches.order import BatchOrder
from gcl.data.batches.settings import PlanConfig, Unique, check_batch_size
from gcl.data.store.prepared import Pairs

_FORMAT = 1  # part of the fingerprint: a change of the order below must not pass for the same plan


class _Epoch(NamedTuple):
    number: int
    order: np.ndarray  # pair rows, int64[P]
    bounds: np.ndarray  # batch b is order[bounds[b]:bounds[b + 1]]


class Plan(BatchOrder):
    """The sequence of batches: every pair exactly once per epoch (with `drop_last`, all but the last, partial batch).

    pairs: `query`, `document` (int64[P] store rows) and `score`.
    batch_size: N, pairs of a batch over all ranks; batches may be smaller at the end of an epoch.
    shard_of_document: the shard each document row lies in. Shards are taken in random order, `shuffle_shards` at a
        time, and pairs are shuffled inside such a window: few files are being read at any moment. With no more shards
        than that (or without this option) an epoch is one uniform permutation.
    documents_per_query: k; an epoch is made of groups of up to k pairs of one query, kept together.
    unique: no query (or no document) twice in a batch. Its further pairs move to other batches; what one record has
        beyond the number of full batches ends up in smaller batches at the end of the epoch.

    How an epoch is made, from one stream of random numbers per (seed, epoch):
    1. the shards are divided into windows of `shuffle_shards`; without shards there is one window;
    2. in each window the pairs are permuted, one by one, in groups of one query (`_grouped`), or dealt into batches
       in which no record comes twice (`_unique`);
    3. the windows follow one another, and the sequence is cut into batches.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch_size: int,
        seed: int,
        shard_of_document: np.ndarray | None = None,
        shuffle_shards: int = 16,
        documents_per_query: int | None = None,
        unique: Unique | str | None = None,
        drop_last: bool = False,
    ) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.unique = None if unique is None else Unique(unique)
        self.documents_per_query, self.drop_last, self.shuffle_shards = documents_per_query, drop_last, shuffle_shards
        PlanConfig(self.unique, documents_per_query, drop_last).check()
        self._check(len(pairs.query))
        self._shard = None if shard_of_document is None else np.asarray(shard_of_document)[pairs.document]
        if self._shard is not None and len(self._shard) and int(self._shard.max()) < shuffle_shards:
            self._shard = None
        self._epoch: _Epoch | None = None
        self._fingerprint: str | None = None
        self.steps_per_epoch = self._count_steps()

    def _check(self, count: int) -> None:
        check_batch_size(self.batch_size, count)
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: a seed is at least 0.")
        if self.shuffle_shards < 1:
            raise ValueError(f"shuffle_shards is {self.shuffle_shards}: at least one shard is read at a time.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_epoch": None}  # a worker makes its own order: cheaper than sending it

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the pairs and every option that moves a pair; resuming needs the same one."""
        if self._fingerprint is None:
            options = [_FORMAT, self.batch_size, self.seed, self.documents_per_query, self.unique, self.drop_last,
                       self.shuffle_shards if self._shard is not None else None]  # fmt: skip
            digest = hashlib.sha256(json.dumps(options).encode())
            pairs = self.pairs
            for values in (pairs.query, pairs.document, pairs.score, pairs.hidden, self._shard):
                if values is not None:
                    digest.update(np.ascontiguousarray(values).data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def batch(self, step: int) -> np.ndarray:
        """Pair rows of a global step, int64[N]; fewer than batch_size only where the class says so."""
        self._check_step(step)
        epoch = self._of(self.epoch_of(step))
        start, stop = epoch.bounds[self.position_of(step) :][:2]
        return epoch.order[start:stop]

    def order(self, epoch: int) -> np.ndarray:
        """All pair rows of an epoch, one batch after the other (with `drop_last`, what it drops at the end)."""
        return self._of(epoch).order

    def _of(self, number: int) -> _Epoch:
        if self._epoch is None or self._epoch.number != number:
            order, bounds = self._make(number)
            order.flags.writeable = False  # batches are views of it
            self._epoch = _Epoch(number, order, bounds)
        return self._epoch

    def _count_steps(self) -> int:
        if self.unique is None:
            whole, rest = divmod(len(self.pairs.query), self.batch_size)
            return whole + (rest > 0 and not self.drop_last)
        steps = 0
        for rows in self._windows(random_stream(self.seed)):
            count = np.unique(self._key[rows], return_counts=True)[1]
            full, extra = _batches_needed(count, self.batch_size)
            steps += full + extra
        return steps

    @property
    def _key(self) -> np.ndarray:
        return self.pairs.query if self.unique is Unique.query else self.pairs.document

    def _windows(self, stream: np.random.Philox) -> list[np.ndarray]:
        """Pair rows by the window of shards they lie in."""
        count = len(self.pairs.query)
        if self._shard is None:
            return [np.arange(count)]
        shards = int(self._shard.max()) + 1
        windows = -(-shards // self.shuffle_shards)
        window = (np.argsort(permutation(stream, shards)) * windows // shards)[self._shard]
        parts = np.split(np.argsort(window, kind="stable"), np.cumsum(np.bincount(window, minlength=windows))[:-1])
        return [rows for rows in parts if len(rows)]  # of some shards every document may be held out

    def _make(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        stream = random_stream(self.seed, number)
        if self.unique is not None:  # which shards share a window is fixed, so that every epoch has as many steps
            windows = self._windows(random_stream(self.seed))
            parts = [
                _unique(windows[place], self._key, size=self.batch_size, stream=stream)
                for place in permutation(stream, len(windows))
            ]
            sizes = np.concatenate([size for _, size in parts])
            return np.concatenate([rows for rows, _ in parts]), np.r_[0, np.cumsum(sizes)]
        windows = self._windows(stream)
        if self.documents_per_query is None:
            order = np.concatenate([rows[permutation(stream, len(rows))] for rows in windows])
        else:
            size, key = self.documents_per_query, self.pairs.query
            order = np.concatenate([_grouped(rows, key, size=size, stream=stream) for rows in windows])
        return order, np.minimum(np.arange(self.steps_per_epoch + 1) * self.batch_size, len(order))


def _grouped(rows: np.ndarray, key: np.ndarray, *, size: int, stream: np.random.Philox) -> np.ndarray:
    """Rows in random order, but in groups of up to `size` that share a key."""
    rows = rows[permutation(stream, len(rows))]
    rows = rows[np.argsort(key[rows], kind="stable")]
    begins = _occurrence(key[rows]) % size == 0
    place = permutation(stream, int(begins.sum()))
    return rows[np.argsort(place[np.cumsum(begins) - 1], kind="stable")]


def _occurrence(key: np.ndarray) -> np.ndarray:
    """How many equal keys come before each one, where equal keys lie together.

    >>> _occurrence(np.array([5, 5, 5, 2, 7, 7]))
    array([0, 1, 2, 0, 0, 1])
    """
    place = np.arange(len(key))
    return place - np.maximum.accumulate(np.where(np.r_[True, key[1:] != key[:-1]], place, 0))


def _batches_needed(count: np.ndarray, size: int) -> tuple[int, int]:
    """Full batches, and the smaller ones after them, for keys that occur `count` times and may not meet themselves."""
    full = -(-int(count.sum()) // size)
    excess = np.maximum(count - full, 0)
    return full, max(-(-int(excess.sum()) // size), int(excess.max(initial=0)))


def _unique(rows: np.ndarray, key: np.ndarray, *, size: int, stream: np.random.Philox) -> tuple[np.ndarray, np.ndarray]:
    """Deals rows into random batches of at most `size` in which no key occurs twice: rows by batch, batch sizes."""
    rows = rows[permutation(stream, len(rows))]
    _, group, count = np.unique(key[rows], return_inverse=True, return_counts=True)
    full, extra = _batches_needed(count, size)
    by_group = np.argsort(permutation(stream, len(count))[group], kind="stable")  # keys in random order, each together
    rows, group = rows[by_group], group[by_group]
    occurrence = _occurrence(group)
    parts = [_deal(rows[part], group[part], batches, stream) for part, batches in
             ((occurrence < full, full), (occurrence >= full, extra)) if batches]  # fmt: skip
    return np.concatenate([dealt for dealt, _ in parts]), np.concatenate([sizes for _, sizes in parts])


def _deal(rows: np.ndarray, group: np.ndarray, batches: int, stream: np.random.Philox) -> tuple[np.ndarray, np.ndarray]:
    """Deals rows, whose equal groups lie together and have at most `batches` rows, round by round like cards.

    Every round gives each batch one row in a random order, so a group inside one round meets no batch twice. A group
    that spans two rounds (it never spans three) is kept apart by drawing its second part from the batches it missed.
    """
    rounds = -(-len(rows) // batches)
    batch = np.argsort(stream.random_raw(rounds * batches).reshape(rounds, batches), axis=1, kind="stable")
    starts = np.arange(1, rounds) * batches
    for number in np.flatnonzero(group[starts] == group[starts - 1]) + 1:
        here, start = group[number * batches], number * batches
        before = batches - np.searchsorted(group[start - batches : start][::-1] != here, True)
        after = np.searchsorted(group[start : start + batches] != here, True)
        missed = np.flatnonzero(~np.isin(batch[number], batch[number - 1, before:]))[:after]
        others = np.delete(batch[number], missed)
        batch[number] = np.r_[batch[number, missed], others]
    batch = batch.ravel()[: len(rows)]
    return rows[np.argsort(batch, kind="stable")], np.bincount(batch, minlength=batches)
