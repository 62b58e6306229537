"""Several prepared catalogs behind the interface of one: stores row after row, tasks and ids with a catalog's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute

from gcl.data.catalog import Catalog
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import Fields, Pairs, Prepared, PreparedTask, open_prepared
from gcl.data.store.records import Column, Record, Stored, Subset, Value
from gcl.data.store.remote_shards import RemoteShard
from gcl.schema import SIDES, Field, Schema, SideName


class JoinedStore:
    """The records of several stores, one store after the other; rows count through. A field that a store does not have
    is absent from its records. ids are `<name>/<id>`."""

    def __init__(self, prefix: str, stores: Mapping[str, Stored], side: Mapping[str, Field]) -> None:
        self.prefix, self.names, self.stores, self.side = prefix, list(stores), list(stores.values()), dict(side)
        self.start = np.cumsum([0, *map(len, self.stores)])

    def __len__(self) -> int:
        return int(self.start[-1])

    def __getitem__(self, row: int) -> Record:
        number, own = self._find(row)
        record = self.stores[number][own]
        return {name: record.get(name) for name in self.side}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "ids"}

    @property
    def rows(self) -> np.ndarray:
        return np.arange(len(self))

    @property
    def shard(self) -> np.ndarray:
        """Number of the shard each row lies in, int32 [len(self)]; shards count through, too."""
        first = 0
        shards = []
        for store in self.stores:
            shards.append(store.shard + first)
            first += int(store.shard.max(initial=-1)) + 1
        return np.concatenate(shards)

    @cached_property
    def ids(self) -> Column:
        slash = pa.scalar("/", pa.large_string())
        named = [
            compute.binary_join_element_wise(pa.scalar(name, pa.large_string()), store.ids.values, slash)
            for name, store in zip(self.names, self.stores, strict=True)
        ]
        return Column(pa.concat_arrays(named))

    def hashes(self, field: str) -> Column:
        return self._joined(field, lambda store: store.hashes(field), pa.binary(16))

    def image_hashes(self, field: str) -> Column:
        return self._joined(field, lambda store: store.image_hashes(field), pa.list_(pa.binary(16)))

    def _joined(self, field: str, column: Callable[[Stored], Column], kind: pa.DataType) -> Column:
        if field not in self.side:
            raise KeyError(f"{self.prefix} has no field {field!r}; fields: {', '.join(self.side)}.")
        return Column(
            pa.concat_arrays([
                column(store).values if field in store.side else pa.nulls(len(store), kind) for store in self.stores
            ])
        )  # fmt: skip

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Which fields the rows have, bool[len(rows), F]."""
        rows = np.asarray(rows)
        present = np.zeros((len(rows), len(self.side)), dtype=bool)
        for store, places, own in self._shares(rows):
            here = store.present(own)
            for column, name in enumerate(self.side):
                if name in store.side:
                    present[places, column] = here[:, list(store.side).index(name)]
        return present

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        rows = np.asarray(rows)
        value: list[Value] = [None] * len(rows)
        for store, places, own in self._shares(rows):
            if field in store.side:
                for place, cell in zip(places.tolist(), store.column(field, own), strict=True):
                    value[place] = cell
        return value

    def remote_shards(self, rows: np.ndarray) -> set[RemoteShard]:
        return set().union(*(store.remote_shards(own) for store, _, own in self._shares(np.asarray(rows))))

    def place(self, row: int) -> str:
        number, own = self._find(row)
        return f"catalog {self.names[number]}, {self.stores[number].place(own)}"

    def subset(self, rows: np.ndarray) -> Subset:
        return Subset(self, rows)

    def _find(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"Row {row} of {self.prefix}, which has {len(self)}.")
        number = int(np.searchsorted(self.start, row, side="right")) - 1
        return number, int(row - self.start[number])

    def _shares(self, rows: np.ndarray) -> list[tuple[Stored, np.ndarray, np.ndarray]]:
        """(store, positions in `rows`, rows of the store) of each store that has any of them."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"Rows {rows.min()} to {rows.max()} of {self.prefix}, which has {len(self)}.")
        owner = np.searchsorted(self.start, rows, side="right") - 1
        shares = []
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            shares.append((self.stores[number], places, rows[places] - self.start[number]))
        return shares


@dataclass
class Joined(Prepared):
    """A mix, prepared. Pairs and tasks count rows of the joined stores; `parts` are the catalogs by name."""

    parts: dict[str, Prepared] = field(default_factory=dict)

    def task(self, name: str, part: str = "test") -> PreparedTask:
        """One half of the task `<catalog>/<task>`; raises KeyError for a task or a half that is not there."""
        catalog, _, own = name.partition("/")
        if catalog not in self.parts:
            known = ", ".join(self.task_names) or "none"
            raise KeyError(f"There is no task {name!r}; the tasks: {known}.")
        query, document = self.first_rows("query")[catalog], self.first_rows("document")[catalog]
        task = self.parts[catalog].task(own, part)
        return replace(
            task,
            name=name,
            corpus=task.corpus + document,
            query=task.query + query,
            document=task.document + document,
        )

    def first_rows(self, side: SideName) -> dict[str, int]:
        """{catalog: the row of the joined store at which its records begin}."""
        stores = [part.documents if side == "document" else part.queries for part in self.parts.values()]
        return dict(zip(self.parts, accumulate(map(len, stores), initial=0), strict=False))


def join(parts: Mapping[str, Prepared], schema: Schema) -> Joined:
    """Prepared catalogs as one, read through `schema`. Raises ValueError for records that have none of its fields."""
    stores: dict[SideName, JoinedStore] = {
        "query": JoinedStore("queries", {name: part.queries for name, part in parts.items()}, schema.query),
        "document": JoinedStore("documents", {name: part.documents for name, part in parts.items()}, schema.document),
    }
    for side in SIDES:
        _check_not_empty(side, stores[side])
    starts = {side: stores[side].start for side in SIDES}
    return Joined(
        folder=next(iter(parts.values())).folder.parent,
        fingerprint="+".join(f"{name}:{part.fingerprint}" for name, part in parts.items()),
        schema=schema,
        documents=stores["document"],
        queries=stores["query"],
        pairs=_joined([part.pairs for part in parts.values()], starts),
        counts=_counts(parts),
        not_relevant=_joined([part.not_relevant for part in parts.values()], starts),
        parts=dict(parts),
    )


def _joined(each: Sequence[Pairs], starts: Mapping[SideName, np.ndarray]) -> Pairs:
    """The pairs of several catalogs, in rows of the joined stores, which begin there."""
    query, document = (
        np.concatenate([getattr(pairs, side) + first for pairs, first in zip(each, starts[side], strict=False)])
        for side in ("query", "document")
    )
    return Pairs(query, document, np.concatenate([pairs.score for pairs in each]), *_hidden(each))


def _hidden(each: Sequence[Pairs]) -> tuple[np.ndarray | None, tuple[Fields, ...]]:
    """What the pairs of several catalogs hide, one after the other, as `Pairs` has it."""
    if all(pairs.hidden is None for pairs in each):
        return None, ((),)
    hides = tuple(dict.fromkeys([(), *(names for pairs in each for names in pairs.hides)]))
    codes = []
    for pairs in each:
        number = np.array([hides.index(names) for names in pairs.hides], np.uint8)
        codes.append(np.zeros(len(pairs), np.uint8) if pairs.hidden is None else number[pairs.hidden])
    return np.concatenate(codes), hides


def _check_not_empty(side: str, store: JoinedStore) -> None:
    for start in range(0, len(store), 1 << 16):
        rows = np.arange(start, min(start + (1 << 16), len(store)))
        empty = rows[~store.present(rows).any(axis=1)]
        if len(empty):
            raise ValueError(
                f"data.{side} names {', '.join(store.side)}, and {store.place(int(empty[0]))} has none of them: name "
                "a field that it has, or leave data.mix's own fields out to take all."
            )


def _counts(parts: Mapping[str, Prepared]) -> dict[str, Any]:
    names = ("products", "products_of_training", "queries", "queries_of_training", "pairs", "training_pairs")
    counts: dict[str, Any] = {name: sum(part.counts[name] for part in parts.values()) for name in names}
    for name in ("queries_trained_on", "products_trained_on"):
        if all(name in part.counts for part in parts.values()):  # folders of an earlier version have none
            counts[name] = sum(part.counts[name] for part in parts.values())
    tasks = {f"{name}/{task}": about for name, part in parts.items() for task, about in part.counts["tasks"].items()}
    return counts | {"tasks": tasks}


def open_catalog(catalog: Catalog, folder: str | Path, *, report: Callable[[str], None] | None = None) -> Prepared:
    """A catalog prepared below `folder` (unless it is already) and opened; of a mix each of its catalogs."""

    def opened(one: Catalog) -> Prepared:
        one = replace(one, cache_gb=catalog.cache_gb or one.cache_gb)
        prepared = prepare(one, folder, report=report)
        return open_prepared(prepared, one.schema, verify=one.verify, cache_gb=one.cache_gb)

    if not catalog.mix:
        return opened(catalog)
    return join({name: opened(catalog.catalogs[name]) for name in catalog.mix}, catalog.schema)
