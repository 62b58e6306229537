"""Columns of a catalog's tables that are no field of a model: read by id when a report asks for them, kept nowhere."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gcl.data.catalog import Catalog
from gcl.data.prepare.prepare import opened_catalog
from gcl.data.prepare.sources import open_sources
from gcl.data.tables.table import Table

Values = dict[str, dict[str, str]]  # column -> id -> value


@dataclass
class Columns:
    """What the tables say about products and queries, by the ids of the stores; without a value, no entry."""

    documents: Values = field(default_factory=dict)
    queries: Values = field(default_factory=dict)


def read_columns(catalog: Catalog, folder: str | Path, names: Sequence[str]) -> Columns:
    """The columns `names` of the products table (or of the pairs, where they hold the products) and of the tables of
    the explicit tasks' queries. folder: where prepared catalogs lie. A mix's ids begin with `<catalog>/`.

    Raises KeyError, naming the nearest column there is, for a name that no table has.
    """
    found = Columns({name: {} for name in names}, {name: {} for name in names})
    if not names:
        return found
    known: dict[str, None] = {}
    parts = {f"{name}/": one for name, one in catalog.catalogs.items()} if catalog.mix else {"": catalog}
    for prefix, one in parts.items():
        known |= dict.fromkeys(_read_catalog(one, folder, names, prefix, found))
    for name in names:
        if name not in known:
            raise KeyError(_unknown(name, list(known)))
    return found


def _read_catalog(catalog: Catalog, folder: str | Path, names: Sequence[str], prefix: str, found: Columns) -> list[str]:
    """Reads what this catalog's tables have of `names` into `found`; returns the names of all their columns."""
    if catalog.shards:
        return []
    catalog, root, folder = opened_catalog(catalog, folder)
    sources = open_sources(catalog, root, copies=folder / "tables")
    tables = [(sources.documents, sources.document_id, found.documents)]
    tables += [(task.queries, task.spec.query_id, found.queries) for task in sources.tasks.values()]
    for table, identifier, values in tables:
        if identifier is not None:
            _read(table, identifier, [name for name in names if name in table.columns], prefix, values)
    return [name for table, _, _ in tables for name in table.columns]


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return f"evaluate.slices: {name!r} is no field, and ready shards have no tables to read it from."
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"evaluate.slices: there is no column {name!r}.{hint} There are {', '.join(known)}."


def _read(table: Table, identifier: str, names: Sequence[str], prefix: str, values: Values) -> None:
    """The first value of an id counts."""
    for block in table.blocks([identifier, *names]) if names else ():
        ids = block.columns[identifier]
        for name in names:
            for key, value in zip(ids, block.columns[name], strict=True):
                if key is not None and value is not None:
                    values[name].setdefault(prefix + key.strip(), value.strip())
