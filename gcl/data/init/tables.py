"""The tables that were named -> which of them is which: products, pairs, queries, judgments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gcl.data.catalog import Catalog
from gcl.data.importers.layouts.layout import Layout
from gcl.data.importers.layouts.registry import LAYOUTS
from gcl.data.importers.layouts.translate import catalog_of_export
from gcl.data.init.inputs import Input, Kind
from gcl.data.init.look import Looked, look
from gcl.data.init.roles import Products, Searches, choose_id, find_products, find_searches, is_products, products_in
from gcl.data.tables.quarantine import Bad
from gcl.errors import nearest

SETS: dict[str, tuple[str, tuple[frozenset[str], ...]]] = {
    "esci": ("Shopping Queries (ESCI): examples and products as Parquet", (
        frozenset({"query", "product_id", "esci_label"}), frozenset({"product_id", "product_title"}))),
    "wands": ("WANDS: query.csv, product.csv and label.csv", (
        frozenset({"query_id", "query"}), frozenset({"query_id", "product_id", "label"}),
        frozenset({"product_id", "product_name"}))),
}  # fmt: skip
"""Public sets of tables, by the columns that each of their tables has."""
OTHERS = {
    "marqtune": "a JSON file of Marqtune's settings, or the table that Marqtune trains on",
    "img2dataset": "shards (.tar) that img2dataset or WebDataset wrote",
}
LIKE = {**{layout.name: layout.description for layout in LAYOUTS.values()},
        **{name: description for name, (description, _) in SETS.items()}, **OTHERS}  # fmt: skip


def check_like(like: str | None) -> None:
    """Raises ValueError for a name that `like` does not have."""
    if like is not None and like not in LIKE:
        raise ValueError(f"There is no layout or set {like!r}.{nearest(like, LIKE)}")


@dataclass
class Tables:
    """Which table is which."""

    products: Products | None = None
    pairs: Searches | None = None
    queries: Searches | None = None
    judgments: Searches | None = None
    trec: Input | None = None
    truth: Input | None = None
    notes: list[str] = field(default_factory=list)
    """What a person should look at."""


def sort_tables(inputs: Sequence[Input], like: str | None, folder: Path) -> Tables:
    wanted = LAYOUTS.get(like or "")
    tables = Tables()
    looked = [_look(tables, item, wanted if number == 0 else None, folder)
              for number, item in enumerate(item for item in inputs if item.kind is Kind.table)]  # fmt: skip
    tables.trec = next((item for item in inputs if item.kind is Kind.trec), None)
    tables.truth = next((item for item in inputs if item.kind is Kind.truth), None)
    if like in SETS:
        _check_set(like, looked)
    offers = [one for one in looked if is_products(one)]
    if offers:
        tables.products = max(map(find_products, offers), key=_richness)
    others = [one for one in looked if tables.products is None or one is not tables.products.looked]
    for one in others:
        _sort_searches(tables, find_searches(one, tables.products))
    if tables.products is not None:
        asked = [one for one in (tables.pairs, tables.judgments) if one is not None]
        choose_id(tables.products, asked)
        if tables.products.id is None:
            raise ValueError(
                f"{tables.products.looked.name} has no column that tells its products apart: its columns are "
                f"{', '.join(list(tables.products.looked.columns)[:20])}. Add one (product_id), or name it in a YAML."
            )
    elif tables.pairs is None:
        raise ValueError(_nothing_found(looked))
    else:
        _check_alone(tables.pairs, looked)
    return tables


def _check_alone(pairs: Searches, looked: Sequence[Looked]) -> None:
    """Without a table of products, that of the searches has to hold them."""
    if not products_in(pairs).shown:
        by = f" by {pairs.document}" if pairs.document else ""
        searches = f"{pairs.looked.name} holds searches ({pairs.query}), which name products{by}"
        if others := [one for one in looked if one is not pairs.looked]:
            raise ValueError(f"{searches}. {_nothing_found(others)}")
        raise ValueError(f"{searches}, and no table of products was given: gcl init products.csv pairs.csv.")


def _look(tables: Tables, item: Input, layout: Layout | None, folder: Path) -> Looked:
    looked = look(item.path, item.files, layout=layout)
    tables.notes += looked.notes
    _check_rows(looked)
    if looked.layout is None:
        return looked
    reading = looked.table.reading
    source = str(item.files[0]) if len(item.files) == 1 else item.path
    export = Catalog(name="export", products=source, layout=looked.layout.name, max_bad=1.0,
                     encoding=reading.encoding, delimiter=reading.delimiter, quote=reading.quote)  # fmt: skip
    translated = catalog_of_export(export, Path.cwd(), folder)
    assert translated.products is not None
    found = look(translated.products, [Path(translated.products)])
    found.path, found.layout, found.table.reading = item.path, looked.layout, reading
    found.folder = item.files[0].parent
    return found


def _check_rows(looked: Looked) -> None:
    """Raises ValueError, in a sentence, for a table of which no row can be read."""
    if looked.rows or not looked.columns:
        return
    bad = [bad for block in looked.table.blocks(looked.table.columns[:1]) for bad in block.bad]
    if not bad:
        named = _columns_of(looked)
        raise ValueError(f"{looked.name} has a header ({named}) and no rows below it: fill it, or leave it out.")
    if len(looked.columns) > 1:  # a line above the header is told otherwise
        number, reason, detail = bad[0]
        raise ValueError(f"No row of {looked.name} can be read. Row {number}: {Bad(reason, detail)}.")


def _sort_searches(tables: Tables, found: Searches) -> None:
    name = found.looked.name
    if found.query_id and found.query and not found.document and tables.queries is None:
        tables.queries = found
    elif found.query_id and found.document and (not found.query or found.is_judged) and tables.judgments is None:
        tables.judgments = found
    elif found.query and found.document and found.is_judged and tables.judgments is None and tables.products:
        tables.judgments = found
    elif found.query and (found.document or not tables.products) and tables.pairs is None:
        tables.pairs = found
    else:
        tables.notes.append(f"{name} is not used: its columns ({', '.join(list(found.looked.columns)[:12])}) are "
                          "neither searches with products nor judgments")  # fmt: skip


def _richness(products: Products) -> tuple:
    return products.looked.layout is not None, products.shown, products.looked.rows


def _check_set(like: str, looked: Sequence[Looked]) -> None:
    description, tables = SETS[like]
    for columns in tables:
        if not any(columns <= set(one.columns) for one in looked):
            given = "; ".join(f"{one.name}: {', '.join(list(one.columns)[:10])}" for one in looked)
            raise ValueError(f"like={like} is {description}, but no table has the columns {', '.join(sorted(columns))} "
                             f"(given: {given}).")  # fmt: skip


def _nothing_found(looked: Sequence[Looked]) -> str:
    given = "; ".join(f"{one.name}: {_columns_of(one)}" for one in looked) or "no table"
    return (
        f"No table of products was found. One has a row for each product, with an id and a title, an image or a "
        f"description. Given: {given}. Name the columns so, or write the YAML by hand (docs/catalogs.md)."
    )


def _columns_of(one: Looked) -> str:
    """In words, and what a table with next to no columns probably is."""
    columns = list(one.columns)
    if not columns:
        return 'no columns (rows are a list of objects, each with its id: [{"sku": …, "title": …}, …])'
    if len(columns) == 1:
        return f"{columns[0]} alone (if the names of the columns stand further down, delete what is above them)"
    return ", ".join(columns[:12])
