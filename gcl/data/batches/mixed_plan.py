"""Which pairs of several catalogs each step sees: as pure a function as Plan, and made of one Plan per catalog.

An epoch has as many pairs as the catalogs have together, so its length does not depend on the shares. Of these, each
catalog gives its share, to the pair ("mixed") or to the batch ("one"): a small catalog with a large share is run
through several times in an epoch, a large one with a small share continues in the next epoch where this one ended.
Every run through a catalog shows each of its pairs once, in a new order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gcl.data.batches.chance import permutation, random_stream
from gcl.data.batches.order import BatchOrder, Draw
from gcl.data.batches.plan import Plan
from gcl.data.batches.settings import PlanConfig, check_batch_size
from gcl.data.catalog import Batches
from gcl.data.store.prepared import Pairs

_FORMAT = 1


class CatalogShare(NamedTuple):
    """One catalog of a mix. share: counts relative to the others'. pairs: how many there are. shard_of_document: as in
    Plan, for the catalog's own document rows, which begin at `first_document`."""

    share: float
    pairs: int
    shard_of_document: np.ndarray | None = None
    first_document: int = 0


class MixedPlan(BatchOrder):
    """The sequence of batches over several catalogs, whose pairs lie one after the other in `pairs`.

    catalogs: {name: its share and pairs}, in the order of the pairs.
    batches: "mixed": every batch is full and holds pairs of all catalogs; at any moment each has given its share to
        within half a pair for every catalog there is. "one": every batch is one of a single catalog's own plan (the
        last of a run through it may be smaller); the catalogs take turns at random.
    options: Plan's documents_per_query, unique (with "one" only) and drop_last.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        catalogs: Mapping[str, CatalogShare],
        batch_size: int,
        seed: int,
        batches: Batches = Batches.mixed,
        drop_last: bool = False,
        **options: Any,
    ) -> None:
        self.pairs, self.batch_size, self.seed, self.batches = pairs, batch_size, seed, batches
        self.names, each = list(catalogs), list(catalogs.values())
        share = np.array([one.share for one in each], dtype=np.float64) / sum(one.share for one in each)
        PlanConfig(unique=options.get("unique")).check(mixed=batches is Batches.mixed)
        total = sum(one.pairs for one in each)
        check_batch_size(batch_size, total)
        self.steps_per_epoch = total // batch_size if drop_last else -(-total // batch_size)
        slots = self.steps_per_epoch * (batch_size if batches is Batches.mixed else 1)
        self._each = _largest_remainder(share, slots)  # pairs, or batches, of each catalog in an epoch
        for name, count in zip(self.names, self._each, strict=True):
            if not count:
                what = "pair" if batches is Batches.mixed else "batch"
                raise ValueError(f"data.mix.{name} is so small that no {what} of an epoch's {slots:,} is of {name}.")
        self._taken = _spread(self._each, self.steps_per_epoch) if batches is Batches.mixed else None
        self._start = np.concatenate([[0], np.cumsum([one.pairs for one in each])])
        self._largest = self._most_of_each()
        self._plans = [
            Plan(
                own,
                batch_size=int(self._largest[number]),
                seed=int(np.random.SeedSequence((seed, number)).generate_state(1)[0]),
                shard_of_document=each[number].shard_of_document,
                drop_last=drop_last and batches is Batches.one,
                **options,
            )
            for number, own in enumerate(self._parts(each))
        ]
        self._passes: dict[tuple[int, int], np.ndarray] = {}
        self._turns: tuple[int, np.ndarray] | None = None
        self._fingerprint: str | None = None

    def _most_of_each(self) -> np.ndarray:
        """The most pairs of each catalog that a batch holds. Raises ValueError for a catalog with too few."""
        if self._taken is None:
            largest, least = [np.full(len(self._each), self.batch_size)] * 2
        else:
            largest = np.diff(self._taken, axis=0).max(axis=0)
            least = 2 * largest  # else no run could begin without the pairs that the run before ended with
        for name, most, needed, size in zip(self.names, largest, least, np.diff(self._start), strict=True):
            if size < needed:
                raise ValueError(
                    f"A batch of {self.batch_size:,} takes up to {most:,} pairs of {name}, which has {size:,}; at "
                    f"least {needed:,} are needed: choose a smaller train.batch_size or data.mix.{name}."
                )
        return largest

    def _parts(self, catalogs: Sequence[CatalogShare]) -> Iterator[Pairs]:
        pairs = self.pairs
        for one, low, high in zip(catalogs, self._start, self._start[1:], strict=False):
            own = pairs.take(slice(low, high))
            yield replace(own, document=own.document - one.first_document)

    def __getstate__(self) -> dict[str, Any]:
        plans = [copy(plan) for plan in self._plans]  # each with an epoch of its own
        return {**self.__dict__, "_plans": plans, "_passes": {}, "_turns": None}

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            own = [_FORMAT, self.batch_size, self.seed, self.batches.value, self.names, self._each.tolist()]
            parts = [plan.fingerprint for plan in self._plans]
            self._fingerprint = hashlib.sha256(json.dumps([own, parts]).encode()).hexdigest()
        return self._fingerprint

    def draws(self) -> list[Draw]:
        each = self._each / self.steps_per_epoch
        size, share = (each, np.ones_like(each)) if self._taken is not None else (self._largest, each)
        ends = zip(self._start.tolist(), self._start[1:].tolist(), size.tolist(), share.tolist(), strict=False)
        return [Draw(*one) for one in ends]

    @property
    def of_an_epoch(self) -> dict[str, tuple[int, float]]:
        """Of each catalog: pairs ("mixed") or batches ("one") in an epoch, and how often that runs through it."""
        whole = [plan.steps_per_epoch if self._taken is None else len(plan.pairs) for plan in self._plans]
        return {name: (int(n), float(n / size)) for name, n, size in zip(self.names, self._each, whole, strict=True)}

    def batch(self, step: int) -> np.ndarray:
        """Pair rows of a global step, int64[N]; with "one" those of a single catalog, fewer at its end."""
        self._check_step(step)
        epoch, position = self.epoch_of(step), self.position_of(step)
        if self._taken is None:
            catalog, number = self._turn(epoch, position)
            return self._start[catalog] + self._plans[catalog].batch(epoch * int(self._each[catalog]) + number)
        low, high = (epoch * self._each + self._taken[position : position + 2]).tolist()
        parts = [
            start + self._run(catalog, *ends)
            for catalog, (start, *ends) in enumerate(zip(self._start, low, high, strict=False))
        ]
        return np.concatenate(parts)

    def _turn(self, epoch: int, position: int) -> tuple[int, int]:
        """Whose turn it is, and how many batches of this epoch that catalog had before."""
        if self._turns is None or self._turns[0] != epoch:
            turns = np.repeat(np.arange(len(self._each)), self._each)
            self._turns = epoch, turns[permutation(random_stream(self.seed, epoch), len(turns))]
        turns = self._turns[1]
        return int(turns[position]), int((turns[:position] == turns[position]).sum())

    def _run(self, catalog: int, low: int, high: int) -> np.ndarray:
        """Rows low … high - 1 of the endless sequence of runs through one catalog."""
        size = len(self._plans[catalog].pairs)
        number, start = divmod(low, size)
        if low == high:
            return np.empty(0, dtype=np.int64)
        end = start + high - low
        rows = self._pass(catalog, number)[start:end]
        return rows if end <= size else np.concatenate([rows, self._pass(catalog, number + 1)[: end - size]])

    def _pass(self, catalog: int, number: int) -> np.ndarray:
        """One run through a catalog. Where the last batch of the run before reaches into it, it begins with pairs that
        this batch does not hold yet: no pair comes twice in a batch."""
        if (catalog, number) not in self._passes:
            order = self._plans[catalog].order(number)
            if number:
                tail, head = self._seam(catalog, number)
                if tail and head:
                    before = self._passes.get((catalog, number - 1))  # whose end is never moved (below)
                    held = (self._plans[catalog].order(number - 1) if before is None else before)[-tail:]
                    order = _beginning_without(order, held, head, keep=int(self._largest[catalog]))
            self._passes = {
                key: value for key, value in self._passes.items() if key[0] != catalog or key[1] == number - 1
            }
            self._passes[catalog, number] = order
        return self._passes[catalog, number]

    def _seam(self, catalog: int, number: int) -> tuple[int, int]:
        """How many pairs the batch around the start of a run takes from the run before it, and from it."""
        place = number * len(self._plans[catalog].pairs)
        _epoch, inside = divmod(place, int(self._each[catalog]))
        assert self._taken is not None  # only mixed batches reach from one run into the next
        taken = self._taken[:, catalog]
        position = int(np.searchsorted(taken, inside, side="right")) - 1
        if position >= self.steps_per_epoch:
            return 0, 0
        return inside - int(taken[position]), int(taken[position + 1]) - inside


def _beginning_without(order: np.ndarray, held: np.ndarray, count: int, *, keep: int) -> np.ndarray:
    """`order` with its first `count` rows not among `held`; its last `keep` rows stay where they are.

    >>> _beginning_without(np.array([3, 1, 2, 0, 4, 5]), np.array([1, 3]), 2, keep=2).tolist()
    [2, 0, 3, 1, 4, 5]
    """
    front, back = order[: len(order) - keep], order[len(order) - keep :]
    free = np.flatnonzero(~np.isin(front, held))[:count]
    return np.concatenate([front[free], np.delete(front, free), back])


def _largest_remainder(share: np.ndarray, slots: int) -> np.ndarray:
    """Whole numbers in proportion to the shares that sum to `slots`, int64.

    >>> _largest_remainder(np.array([0.5, 0.3, 0.2]), 7).tolist()
    [4, 2, 1]
    """
    exact = share * slots
    count = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - count).round(9), kind="stable")
    count[order[: slots - int(count.sum())]] += 1
    return count


def _spread(each: np.ndarray, steps: int) -> np.ndarray:
    """How many pairs of each catalog lie before each batch, int64[steps + 1, C], as evenly as whole numbers go.

    The k-th of a catalog's n pairs has the moment (k + 1/2) / n; batches are cut from the moments in order.
    """
    moment = np.concatenate([(np.arange(count) + 0.5) / count for count in each])
    owner = np.repeat(np.arange(len(each), dtype=np.int16), each)[np.argsort(moment, kind="stable")]
    counts = np.stack([(owner.reshape(steps, -1) == catalog).sum(axis=1) for catalog in range(len(each))], axis=1)
    return np.concatenate([np.zeros((1, len(each)), dtype=np.int64), np.cumsum(counts, axis=0)])
