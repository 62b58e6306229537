"""Products in memory that are searched: `Model.index`, `Index.search`, and what a notebook shows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import escape
from typing import Any, Protocol

from gcl.api.tabular import Tabular
from gcl.data.catalog import Catalog
from gcl.data.store.records import Record, images_of, shortened
from gcl.data.tables.frame import arrow_table, collected, is_frame
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import EmbedOptions
from gcl.retrieval.page.details import Side
from gcl.retrieval.page.thumbnails import thumbnail
from gcl.retrieval.tasks.items import Items, items
from gcl.schema import Field, Modality
from gcl.serve.engine import Engine
from gcl.table import Table, Value

_PICTURE = 120  # pixels
_MOST_SHOWN = 20


class Embeds(Protocol):
    """What an index needs of a `gcl.Model`."""

    name: str
    encoder: DualEncoder
    catalog: Catalog
    cache_dir: str


class Index:
    """Products and their embeddings. Search is exact; equal scores are in the order of the ids, as on the search page.

    Made by `Model.index`.
    """

    def __init__(self, model: Embeds, products: Any, *, id: str | None, options: EmbedOptions) -> None:
        self.model, catalog, products = model, model.catalog, collected(products)
        self._table = arrow_table(products) if _has_columns(products) else None
        if id is None and self._table is not None:
            id = catalog.document_id if catalog.document_id in self._table.column_names else None
        rows = products if self._table is None else self._table
        self.documents: Items = items(
            rows, catalog, "document", cache_dir=model.cache_dir, id=id, progress=options.progress
        )
        self._engine = Engine({model.name: model.encoder}, self.documents, options)
        self.documents.check_something()
        self.documents.warn()

    def __len__(self) -> int:
        return len(self.documents)

    def __repr__(self) -> str:
        return f"<gcl.Index of {len(self):,} products, {self.model.name}>"

    @property
    def weights(self) -> dict[str, float]:
        """What each field of a product counts by default."""
        return self._engine.weights

    def search(self, query: Any, k: int = 10, *, weights: Mapping[str, float] | None = None) -> Hits:
        """The k best products. query: a text, an image (PIL, bytes, a pathlib.Path), or a dict of the query's fields.

        weights: of the products' fields, in place of the model's; those not named keep theirs. Raises ValueError, in a
        sentence, for an empty query, an unknown field, weights that are all 0.
        """
        if k < 1:
            raise ValueError(f"k={k}: the number of results, at least 1.")
        record = self._record(query)
        chosen = None if weights is None else {**self.weights, **weights}
        hits = self._engine.answer(record, k=k, weights=chosen)[self.model.name]
        return Hits(self, [hit.row for hit in hits], [hit.score for hit in hits])

    def _record(self, query: Any) -> Record:
        """The query with all the fields that the engine takes."""
        fields = self._engine.query_fields
        if isinstance(query, str):
            return self._engine.record(query, None)
        if isinstance(collected(query), list | tuple):
            raise ValueError("A search has one query, and this is a list: call search for each of them.")
        given = query if isinstance(query, Mapping) else {"image": query}
        whole = replace(self.model.catalog, query=fields)
        found = items([_by_field(given, fields)], whole, "query", cache_dir=self.model.cache_dir)
        record = found[0]
        found.check_something()
        return record

    def record(self, row: int) -> dict[str, Any]:
        """A product as it was given, with all its columns."""
        if self._table is not None:
            return self._table.slice(row, 1).to_pylist()[0]
        return {name: value for name, value in self.documents[row].items() if value is not None}


def _has_columns(products: Any) -> bool:
    return is_frame(products) or any(isinstance(one, Mapping) for one in products)


def _by_field(query: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """A query with "text" and "image" as what its first such fields are called."""
    named = {}
    for key, value in query.items():
        if key not in fields and key in ("text", "image"):
            kind = Modality(key)
            name = next((name for name, field in fields.items() if field.modality is kind), None)
            if name is None:
                raise ValueError(f"This model cannot search by {key}.")
            key = name
        named[key] = value
    return named


class Hits(Tabular):
    """The results of a search, best first. ids, scores (cosines), rows: of the products, in the order given."""

    def __init__(self, index: Index, rows: list[int], scores: list[float]) -> None:
        self.index, self.rows, self.scores = index, rows, scores
        self.ids = [str(index.documents.ids[row]) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The products as they were given."""
        return [self.index.record(row) for row in self.rows]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """(id, score)"""
        return iter(zip(self.ids, self.scores, strict=True))

    def to_dicts(self) -> list[dict[str, Any]]:
        """id and score, then the product's own columns."""
        return [
            {"id": name, "score": score, **{k: v for k, v in record.items() if k not in ("id", "score")}}
            for name, score, record in zip(self.ids, self.scores, self.records, strict=True)
        ]

    def __repr__(self) -> str:
        side = Side(self.index.documents)
        titles = [shortened(side.title(row), 60) for row in self.rows]
        shown: list[list[Value]] = [[name, score, title] for (name, score), title in zip(self, titles, strict=True)]
        return Table(["id", "score", "product"], shown, align="lrl").text()

    def _repr_html_(self) -> str:
        side = Side(self.index.documents)
        cards = [
            self._card(side, row, name, score)
            for row, name, score in zip(self.rows[:_MOST_SHOWN], self.ids, self.scores, strict=False)
        ]
        more = len(self) - _MOST_SHOWN
        note = f"<p>and {more:,} more</p>" if more > 0 else ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(cards)}</div>{note}'

    def _card(self, side: Side, row: int, name: str, score: float) -> str:
        images = [image for field in side.pictures for image in images_of(side.records[row][field])]
        picture = thumbnail(images[0], _PICTURE) if images else None
        box = f"width:{_PICTURE}px;height:{_PICTURE}px"
        shown = (
            f'<img src="{picture}" alt="" style="max-{box};max-height:{_PICTURE}px;width:auto;height:auto">'
            if picture else '<span style="opacity:.6">no picture</span>'
        )  # fmt: skip
        title = escape(shortened(side.title(row), 80))
        return (
            f'<figure style="margin:0;width:{_PICTURE}px"><div style="{box};display:flex;align-items:center;'
            f'justify-content:center">{shown}</div><figcaption style="font-size:.85em;line-height:1.3;'
            f'overflow-wrap:anywhere">{title}<br><span style="opacity:.7">{escape(name)} · {score:.3f}</span>'
            "</figcaption></figure>"
        )
