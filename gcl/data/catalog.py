"""One YAML says what a catalog is: these dataclasses are its words (DESIGN: "One YAML says what a catalog is").

Imports only the standard library: the config is checked against them before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gcl.options import MISSING, mapping, node, path
from gcl.schema import Field, Schema


class Batches(Enum):
    """What a batch of several catalogs holds: pairs of all of them in their shares, or of one of them."""

    mixed = "mixed"
    one = "one"


@dataclass
class Split:
    """GCL's two-way split: `queries` x `documents` is what training sees, the other three quarters are held out.

    Which half a query or a product falls into depends only on its content or id and the seed (a hash), so adding
    rows to a catalog never moves the others. `dev` is the share of every situation's queries used while training
    (best checkpoint, early stopping, sweeps); the rest is the test half that the final table reports.
    """

    queries: float = 0.8
    documents: float = 0.5
    dev: float = 0.5
    seed: int = 0


@dataclass
class Task:
    """An explicit retrieval task: a table of queries and a table of judgments against the catalog's products.

    queries: table with `query_id` and the query fields' columns; qrels: table with `query_id`, the catalog's
    document id column and `score`. `kind`: a column of the queries table; each of its values (or those in `kinds`)
    becomes a task of its own. `part`: a column of the queries table that says "dev" or "test"; otherwise a hash does.
    `corpus`: "held_out" = products no training pair shows (of a catalog without training: all of them), "all" = the
    whole catalog, or a table of product ids.
    `document`: weights of the document fields in this task alone, for example {image: 1.0}.
    `qrels_query_id`: the query id's column in qrels, where it is another than in queries. Judgments may also be TREC
    qrels (qrels.trec, .qrels or .txt), or Marqo's ground truth (a .json of {query: {document id: relevance}}), whose
    keys are the queries: leave `queries` out. `column`: no tables at all, each value of this column of the products
    is a query for the products that have it.
    `hold_out_queries`: training pairs whose query equals one of this task's are left out of training.
    """

    queries: str | None = path()
    qrels: str | None = path()
    column: str | None = None
    query_id: str = "query_id"
    qrels_query_id: str | None = None
    document_id: str | None = None
    score: str = "score"
    kind: str | None = None
    kinds: list[str] | None = None
    part: str | None = None
    corpus: str = "held_out"
    hold_out_queries: bool = True
    document: dict[str, float] = field(default_factory=dict)


@dataclass
class Store:
    """How `prepare` writes: bytes a shard, optional shrinking of stored images, processes."""

    shard_bytes: int = 268435456
    image_side: int | None = None
    workers: int = 2


@dataclass
class Download:
    """How `prepare` fetches pictures that a table names by http or https URL.

    headers: sent with every request, for example {Authorization: "Bearer $SHOP_KEY"}: $NAME is the environment's
    variable, so that no key stands in a file; a redirect to another host goes without them.
    timeout: seconds for one answer, to its last byte. retries: further attempts after a failure that may pass.
    rate: requests a second to one host; null: no limit. cache: where pictures are kept by URL; null: downloads/ beside
    the prepared catalogs. A URL that was fetched is not asked for again: empty the cache to have it anew.
    """

    headers: dict[str, str] = field(default_factory=dict)
    timeout: float = 20.0
    retries: int = 3
    rate: float | None = 10.0
    workers: int = 8
    cache: str | None = path()
    max_bytes: int = 50_000_000


@dataclass
class Clicks:
    """data.pairs is a log of what was shown: graded pairs are made of it (how: gcl/data/prepare/clicks.py).

    position, clicks, impressions, purchases: columns. Without `impressions` every row is one; without `purchases`
    clicks alone count. power: a place is looked at with probability position^-power; null: fitted to the log.
    purchase_weight: clicks that a purchase is worth. prior: looks by which rates of few looks are drawn to the mean.
    scale: the best product of each "query" gets 100, or only the best of the whole "log".
    least_shown: pairs shown less often are left out.
    """

    position: str = "position"
    clicks: str = "clicks"
    impressions: str | None = None
    purchases: str | None = None
    power: float | None = None
    purchase_weight: float = 5.0
    prior: float = 10.0
    scale: str = "query"
    least_shown: float = 1.0


@dataclass
class Catalog:
    """What a catalog is: where its tables lie, which columns make a query and a product, how it is split.

    own_queries: beside the pairs, every product is an answer, with `own_score`, to the query that its own columns make:
    `{query: title}` adds (title, product) pairs.
    training: false = a catalog to evaluate on alone: there are no pairs, and all of its tasks' queries are measured.
    mix: several catalogs at once, {conf/data name: share of the pairs}, instead of tables (what that means:
    gcl/data/mix.py). batches: whether a batch holds all of them or one. catalogs: settings on top of their files,
    `{name: {root: …}}`; a run's config.yaml has them whole.
    """

    name: str = MISSING
    products: str | None = path()
    pairs: str | None = path()
    shards: str | None = path()
    document_id: str = "product_id"
    query_id: str | None = None
    query: dict[str, Field] = mapping()
    document: dict[str, Field] = mapping()
    score: str | None = None
    own_queries: dict[str, str] = mapping()
    own_score: float = 100.0
    training: bool = True
    image_root: str | None = path()
    split: Split = field(default_factory=Split)
    tasks: dict[str, Task] = mapping()
    store: Store = field(default_factory=Store)
    download: Download = field(default_factory=Download)
    clicks: Clicks | None = None
    max_bad: float = 0.01
    max_image_pixels: int = 100_000_000
    generator: str | None = None
    root: str | None = path()
    mix: dict[str, float] = node({})
    batches: Batches = Batches.mixed
    catalogs: dict[str, Any] = node({})

    @property
    def schema(self) -> Schema:
        return Schema(query=self.query, document=self.document)
