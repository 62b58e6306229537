"""What one YAML says about a catalog, as dataclasses, and `check_catalog`: what can be refused without opening a table.

Imports only the standard library: the config is checked against them before anything heavy is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcl.options import MISSING, Choice, mapping, node, path
from gcl.schema import Field, Modality, Schema


class Batches(Choice):
    """What a batch of several catalogs holds: pairs of all of them in their shares, or of one of them."""

    mixed = "mixed"
    one = "one"


class Corpus(Choice):
    """Among which documents a task searches, unless it names a table of them."""

    held_out = "held_out"
    all = "all"


class Scale(Choice):
    """Whose best document gets the score 100: each query's, or that of the whole log."""

    query = "query"
    log = "log"


@dataclass
class Split:
    """GCL's two-way split: `queries` x `documents` is what training sees, the other three quarters are held out.

    Which half a query or a document falls into depends only on its content or id and the seed (a hash), so adding
    rows to a catalog never moves the others.
    """

    queries: float = 0.8
    """Share of the queries that training may see."""

    documents: float = 0.5
    """Share of the documents that training may see."""

    dev: float = 0.5
    """Share of every task's queries used while training (best checkpoint, early stopping, sweeps); the rest is the test
    half, which the final table reports."""

    seed: int = 0
    """Another seed draws other halves."""


@dataclass
class Task:
    """An explicit retrieval task: a table of queries and a table of judgments against the catalog's products.

    Judgments may also be TREC qrels (qrels.trec, .qrels or .txt), Marqo's ground truth (a .json of {query: {document
    id: relevance}}, whose keys are the queries: leave `queries` out), or made of a column of the products (`column`).
    """

    queries: str | None = path()
    """Table with the query id and the query fields' columns."""

    qrels: str | None = path()
    """Table with the query id, the document id and the score; or TREC qrels (.trec, .qrels, .txt), or a ground truth
    (.json)."""

    column: str | None = None
    """Without any table: each value of this column of the products is a query for the products that have it."""

    query_id: str = "query_id"
    """Column of the query id."""

    qrels_query_id: str | None = None
    """Column of the query id in qrels; null: as in queries."""

    document_id: str | None = None
    """Column of the document id in qrels and corpus; null: the catalog's."""

    score: str = "score"
    """Column of the relevance in qrels; above 0 means relevant."""

    kind: str | None = None
    """Column of queries; each of its values becomes a task of its own."""

    kinds: list[str] | None = None
    """The values of `kind` to make tasks of; null: all."""

    part: str | None = None
    """Column of queries that says "dev" or "test"; null: a hash decides."""

    corpus: str = Corpus.held_out.value
    """What is searched: "held_out" (products in no training pair; without training, all), "all" products, or a table of
    product ids."""

    hold_out_queries: bool = True
    """Leaves training pairs whose query equals one of this task's out of training."""

    document: dict[str, float] = field(default_factory=dict)
    """Weights of the document fields in this task alone, for example {image: 1.0}."""


@dataclass
class Store:
    """How `prepare` writes."""

    shard_bytes: int = 268435456
    """Size of a shard, in bytes, after which the next one is begun."""

    image_side: int | None = None
    """Pixels of the shorter side to which larger images are shrunk; null: they are stored unchanged."""

    workers: int = 2
    """Threads that read and check images."""


@dataclass
class Download:
    """How `prepare` fetches images that a table names by URL. A URL that was fetched is not asked for again: empty the
    cache to fetch it anew."""

    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request, for example {Authorization: "Bearer $SHOP_KEY"}: $NAME is the environment's variable, so
    that no file holds a key; a redirect to another host goes without them."""

    timeout: float = 20.0
    """Seconds for one answer, to its last byte."""

    retries: int = 3
    """Further attempts after a failure that may pass."""

    rate: float | None = 10.0
    """Requests per second to one host; null: no limit."""

    workers: int = 8
    """Downloads at a time."""

    cache: str | None = path()
    """Folder in which images are kept by URL; null: downloads/ next to the prepared catalogs."""

    max_bytes: int = 50_000_000
    """Size of the largest image that is fetched."""


@dataclass
class Clicks:
    """data.pairs is a log of what was shown: graded pairs are made of it (how: gcl/data/prepare/clicks.py)."""

    position: str = "position"
    """Column of the place in the list, from 1."""

    clicks: str = "clicks"
    """Column of the number of clicks."""

    impressions: str | None = None
    """Column of how often it was shown; null: every row counts once."""

    purchases: str | None = None
    """Column of the number of purchases; null: clicks alone count."""

    power: float | None = None
    """A place is looked at with probability position^-power; null: fitted to the log."""

    purchase_weight: float = 5.0
    """Clicks that a purchase is worth."""

    prior: float = 10.0
    """Looks whose worth draws rates of few looks to the mean."""

    scale: Scale = Scale.query
    """Whose best document gets 100: each "query"'s, or that of the whole "log"."""

    least_shown: float = 1.0
    """Pairs shown less often are left out."""


@dataclass
class Catalog:
    """What a catalog is: where its tables lie, which columns make a query and a document, how it is split."""

    name: str = MISSING
    """Begins the prepared folder's name, and is the folder of its runs."""

    products: str | None = path()
    """Table with one row per product; null: the pairs hold the products' columns."""

    pairs: str | None = path()
    """Table with one row per (query, product[, score]); null: each product's own columns make its query."""

    shards: str | None = path()
    """Ready tar shards (img2dataset, WebDataset) instead of tables, for example part-{000..127}.tar."""

    document_id: str = "product_id"
    """Column of the document id."""

    query_id: str | None = None
    """Column of the query id; null: a query is its content."""

    query: dict[str, Field] = mapping()
    """Fields of the query, by name."""

    document: dict[str, Field] = mapping()
    """Fields of the document, by name."""

    score: str | None = None
    """Column of a pair's score, a number of at least 0; null: all pairs count 1."""

    own_queries: dict[str, str] = mapping()
    """Additional pairs: every product answers the query that its own columns make; {query: title} adds (title, product)
    pairs."""

    own_score: float = 100.0
    """Score of the additional pairs of own_queries."""

    training: bool = True
    """false: a catalog to evaluate on alone, without pairs; all of its tasks' queries are measured."""

    image_root: str | None = path()
    """Folder that relative image paths start from; null: the folder of the table that names them."""

    split: Split = field(default_factory=Split)
    """What training sees and what is held out."""

    tasks: dict[str, Task] = mapping()
    """Explicit retrieval tasks, by name."""

    store: Store = field(default_factory=Store)
    """How shards are written."""

    download: Download = field(default_factory=Download)
    """How images behind URLs are fetched."""

    clicks: Clicks | None = None
    """Set where pairs is a log of impressions and clicks."""

    max_bad: float = 0.01
    """Share of a table's rows that may be unusable; more of them stop everything."""

    max_image_pixels: int = 100_000_000
    """Pixels of the largest image that is decoded."""

    generator: str | None = None
    """A function, package.module:name, that writes the tables, or translates the files in root into tables."""

    root: str | None = path()
    """Folder that relative paths of tables start from; null: the current folder."""

    mix: dict[str, float] = node({})
    """Several catalogs at once, {conf/data name: share of the pairs}, instead of tables (see gcl/data/mix.py)."""

    batches: Batches = Batches.mixed
    """Whether a batch of a mix holds pairs of all catalogs ("mixed") or of one ("one")."""

    catalogs: dict[str, Any] = node({})
    """Settings of a mix's catalogs on top of their files, {name: {root: …}}; a run's config.yaml has them whole."""

    @property
    def schema(self) -> Schema:
        """Both sides."""
        return Schema(query=self.query, document=self.document)


_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_catalog(catalog: Catalog) -> None:
    """Raises ValueError for what can be known without opening anything."""
    _check_tables(catalog)
    catalog.schema.check()
    check_split(catalog.split)
    _check_writing(catalog)
    check_download(catalog.download)
    _check_tasks(catalog)
    if catalog.own_queries:
        _check_own_queries(catalog)
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
    if not catalog.training and (catalog.pairs or not catalog.products or not catalog.tasks):
        raise ValueError(
            "data.training is false, so the catalog is evaluated on alone: it needs data.products and data.tasks, and "
            "no data.pairs."
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
        raise ValueError(f"data.max_bad is {catalog.max_bad}: it is a share of rows, between 0 and 1.")
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
        if not is_corpus(task.corpus) and not Path(task.corpus).suffix:
            raise ValueError(
                f"data.tasks.{name}.corpus is {task.corpus!r}; expected 'held_out', 'all' or a table of product ids."
            )
        if task.kinds is not None and task.kind is None:
            raise ValueError(
                f"data.tasks.{name}.kinds is set but data.tasks.{name}.kind is not: name the column that holds them."
            )


def is_corpus(name: str) -> bool:
    """Whether a task's corpus is one of Corpus, not a table."""
    return name in list(Corpus)


def _check_own_queries(catalog: Catalog) -> None:
    if not (catalog.products and catalog.pairs):
        raise ValueError(
            "data.own_queries adds pairs of the products table to the pairs table: set data.products and data.pairs."
        )
    if catalog.query_id:
        raise ValueError(
            "data.own_queries makes queries without an id, and data.query_id is set: leave one of them out."
        )
    unknown = next((name for name in catalog.own_queries if name not in catalog.query), None)
    if unknown is not None:
        raise ValueError(
            f"data.own_queries.{unknown}: the query side has no such field; it has {', '.join(catalog.query)}."
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
