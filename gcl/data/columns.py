"""Columns of a catalog's tables that are no field of a model: read by id when a report asks for them, kept nowhere."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gcl.data.catalog import Catalog
from gcl.data.prepare import opened_catalog
from gcl.data.sources import open_sources
from gcl.data.tables import Table

Values = dict[str, dict[str, str]]  # column -> id -> value


@dataclass
class Columns:
    """What the tables say about products and queries, by the ids of the stores; without a value, no entry."""

    documents: Values = field(default_factory=dict)
    queries: Values = field(default_factory=dict)


def read_columns(catalog: Catalog, folder: str | Path, names: Sequence[str]) -> Columns:
    """The columns `names` of the products table (or of the pairs, where they hold the products) and of the tables of
    the explicit tasks' queries. folder: where prepared catalogs lie.

    Raises KeyError, naming the nearest column there is, for a name that no table has.
    """
    if catalog.mix:
        return _of_several(catalog, folder, names)
    catalog, root, folder = opened_catalog(catalog, folder)
    found = Columns({name: {} for name in names}, {name: {} for name in names})
    if not names:
        return found
    if catalog.shards:
        raise KeyError(f"evaluate.slices: {names[0]!r} is no field, and ready shards have no tables to read it from.")
    sources = open_sources(catalog, root, copies=folder / "tables")
    tables = [(sources.documents, sources.document_id, found.documents)]
    tables += [(task.queries, task.spec.query_id, found.queries) for task in sources.tasks.values()]
    known = dict.fromkeys(name for table, _, _ in tables for name in table.columns)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"evaluate.slices: there is no column {name!r}.{hint} There are {', '.join(known)}.")
    for table, identifier, values in tables:
        if identifier is not None:
            _read(table, identifier, [name for name in names if name in table.columns], values)
    return found


def _read(table: Table, identifier: str, names: Sequence[str], values: Values) -> None:
    """The first value of an id counts."""
    for block in table.blocks([identifier, *names]) if names else ():
        ids = block.columns[identifier]
        for name in names:
            for key, value in zip(ids, block.columns[name], strict=True):
                if key is not None and value is not None:
                    values[name].setdefault(key.strip(), value.strip())


def _of_several(catalog: Catalog, folder: str | Path, names: Sequence[str]) -> Columns:
    found = Columns({name: {} for name in names}, {name: {} for name in names})
    for key, one in catalog.catalogs.items():
        own = read_columns(one, folder, names)
        for ours, theirs in ((found.documents, own.documents), (found.queries, own.queries)):
            for name, values in theirs.items():
                ours[name] |= {f"{key}/{identifier}": value for identifier, value in values.items()}
    return found
