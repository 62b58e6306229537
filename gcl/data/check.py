"""`check_catalog`: what can be refused of a catalog without opening a table, before anything heavy is loaded."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gcl.data.catalog import BACKSLASH, Catalog, Clicks, Download, Scale, Split, is_corpus
from gcl.data.importers.layouts.registry import check_layout
from gcl.schema import SIDES, Modality

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_catalog(catalog: Catalog) -> None:
    """Raises ValueError for what can be known without opening anything."""
    _check_tables(catalog)
    if catalog.shards:
        _check_shards(catalog)
    catalog.schema.check()
    check_split(catalog.split)
    _check_writing(catalog)
    _check_reading(catalog)
    check_download(catalog.download)
    _check_tasks(catalog)
    if catalog.own_queries:
        _check_own_queries(catalog)
    _check_hidden(catalog, catalog.own_columns.values(), "A query is made of")
    if catalog.clicks is not None:
        _check_clicks(catalog, catalog.clicks)


def _check_tables(catalog: Catalog) -> None:
    if not _SAFE_NAME.fullmatch(catalog.name):
        raise ValueError(f"data.name is {catalog.name!r}: it names a folder, so use letters, digits, '.', '_' and '-'.")
    if catalog.mix:
        raise ValueError(f"{catalog.name} is a mix of {', '.join(catalog.mix)}: each of them is prepared by itself.")
    if not (catalog.products or catalog.pairs or catalog.shards):
        raise ValueError("The catalog names no table: set data.pairs, data.products or both (or data.shards).")
    if catalog.shards and (catalog.products or catalog.pairs):
        both = "data.products" if catalog.products else "data.pairs"
        raise ValueError(f"data.shards and {both} are both set: a catalog is tables or ready shards, not both.")
    if catalog.layout is not None:
        check_layout(catalog.layout)
        if not catalog.products:
            raise ValueError(f"data.layout is {catalog.layout}, but data.products names no export.")
    for name in ("changes_op", "changes_order"):
        if getattr(catalog, name) and not catalog.changes:
            raise ValueError(f"data.{name} is a column of data.changes, which is not set.")
    if catalog.changes and (not catalog.products or catalog.layout is not None):
        why = "data.layout translates an export" if catalog.products else "there is no data.products"
        raise ValueError(
            f"data.changes applies a change feed to data.products, and {why}: name a table of products, whose ids "
            "(data.document_id) the feed names."
        )
    if catalog.judgments and not (catalog.training and catalog.pairs and catalog.products):
        raise ValueError(
            "data.judgments measures what is held out of data.pairs: name data.products and data.pairs, too, or make "
            "the judgments a task (data.tasks)."
        )
    if not catalog.training and (catalog.pairs or not catalog.products or not catalog.tasks):
        raise ValueError(
            "data.training is false, so the catalog is evaluated on alone: it needs data.products and data.tasks, and "
            "no data.pairs."
        )


def _check_shards(catalog: Catalog) -> None:
    for side in SIDES:
        for name, spec in catalog.schema.side(side).items():
            if spec.is_set:
                raise ValueError(
                    f"data.{side}.{name}.images is all, but a sample of ready shards has one image of a field: leave "
                    "it at first, or prepare from tables."
                )


def check_split(split: Split) -> None:
    """Raises ValueError for shares outside of 0 to 1, and for those that leave nothing to train on."""
    for name in ("queries", "documents", "dev"):
        share = getattr(split, name)
        if not 0 <= share <= 1:
            raise ValueError(f"data.split.{name} is {share}: a share is at least 0 and at most 1.")
    for name in ("queries", "documents"):
        if getattr(split, name) == 0:
            raise ValueError(
                f"data.split.{name} is 0: no {name} would be left for training; GCL's own split is 0.8 x 0.5."
            )


def _check_writing(catalog: Catalog) -> None:
    if not 0 <= catalog.max_bad <= 1:
        raise ValueError(f"data.max_bad is {catalog.max_bad}: expected a share of the rows, from 0 to 1.")
    if catalog.store.workers < 1:
        raise ValueError(f"data.store.workers is {catalog.store.workers}: at least one thread checks the images.")
    if catalog.store.image_side is not None and catalog.store.image_side < 1:
        raise ValueError(
            f"data.store.image_side is {catalog.store.image_side}: give pixels, or null to store images unchanged."
        )


def check_download(settings: Download) -> None:
    """Raises ValueError for settings that fetch nothing."""
    for name, least in (("timeout", 1e-3), ("workers", 1), ("retries", 0), ("max_bytes", 1)):
        if getattr(settings, name) < least:
            raise ValueError(f"data.download.{name} is {getattr(settings, name)}: give at least {least:g}.")
    if settings.rate is not None and not settings.rate > 0:
        raise ValueError(f"data.download.rate is {settings.rate}: requests per second to one host; null: no limit.")


def _check_tasks(catalog: Catalog) -> None:
    for name, task in catalog.tasks.items():
        if task.column:
            _check_hidden(catalog, [task.column], f"The queries of data.tasks.{name} are made of")
        if unknown := [key for key in task.query_columns if key not in catalog.query]:
            raise ValueError(
                f"data.tasks.{name}.query_columns.{unknown[0]}: the query side has no such field; it has "
                f"{', '.join(catalog.query)}."
            )
        if not is_corpus(task.corpus) and not Path(task.corpus).suffix:
            raise ValueError(
                f"data.tasks.{name}.corpus is {task.corpus!r}; expected 'held_out', 'all' or a table of product ids."
            )
        titles = task.title.values() if isinstance(task.title, Mapping) else [task.title]
        if not all(title is None or isinstance(title, str) for title in titles):
            raise ValueError(f"data.tasks.{name}.title is {task.title!r}; expected a text, or {{kind: text}}.")
        if task.kinds is not None and task.kind is None:
            raise ValueError(
                f"data.tasks.{name}.kinds is set but data.tasks.{name}.kind is not: name the column that holds them."
            )


def _check_reading(catalog: Catalog) -> None:
    if catalog.encoding is not None:
        try:
            codecs.lookup(catalog.encoding)
        except LookupError:
            raise ValueError(
                f"data.encoding is {catalog.encoding!r}: Python knows no such encoding; Windows exports are cp1252, "
                'Excel\'s "Unicode text" is utf-16.'
            ) from None
    for name in ("delimiter", "quote"):
        sign = getattr(catalog, name)
        words = {"delimiter": "\\t", "quote": BACKSLASH}
        if sign is not None and len(sign.encode()) != 1 and sign != words[name]:
            raise ValueError(f"data.{name} is {sign!r}: it is one ASCII character, or {words[name]}.")
    if catalog.decimal not in (".", ","):
        raise ValueError(f"data.decimal is {catalog.decimal!r}: the decimal sign is '.' or ','.")


def _check_own_queries(catalog: Catalog) -> None:
    if not catalog.products:
        raise ValueError("data.own_queries makes queries of the products table: set data.products.")
    if not catalog.training:
        raise ValueError("data.own_queries makes training pairs, and data.training is false: leave one of them out.")
    if catalog.query_id:
        raise ValueError(
            "data.own_queries makes queries without an id, and data.query_id is set: leave one of them out."
        )
    unknown = next((name for name in catalog.own_queries if name not in catalog.query), None)
    if unknown is not None:
        raise ValueError(
            f"data.own_queries.{unknown}: the query side has no such field; it has {', '.join(catalog.query)}."
        )


def _check_hidden(catalog: Catalog, columns: Iterable[str], why: str) -> None:
    columns = list(columns)
    hidden = catalog.hidden_fields(columns)
    if hidden and not any(spec.weight > 0 for name, spec in catalog.document.items() if name not in hidden):
        fields = ", ".join(f"data.document.{name}" for name in hidden)
        raise ValueError(
            f"{why} the column {' and '.join(map(repr, columns))}, which is {fields} too: a query that "
            "stands word for word in its document is not a task, so the document is shown without it, and no other "
            "field with a weight is left. Add a field (an image, a description), make queries of another column, or "
            "set data.own_field=shown to keep it, where every result will look better than it is."
        )


def _check_clicks(catalog: Catalog, clicks: Clicks) -> None:
    if not (catalog.pairs and catalog.products):
        raise ValueError("data.clicks needs the log as data.pairs and the products as data.products.")
    if any(spec.modality is Modality.image for spec in catalog.query.values()):
        raise ValueError("data.clicks: queries of a log are texts; it has no place for query images.")
    if clicks.power is not None and clicks.power < 0:
        raise ValueError(f"data.clicks.power is {clicks.power}: examination falls with the position, so at least 0.")
    if clicks.scale not in list(Scale):
        raise ValueError(f"data.clicks.scale is {clicks.scale!r}; expected 'query' or 'log'.")
    if not clicks.prior > 0:
        raise ValueError(f"data.clicks.prior is {clicks.prior}: give a number of looks above 0.")
