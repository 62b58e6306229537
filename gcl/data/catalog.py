"""One YAML says what a catalog is: these dataclasses are its words (DESIGN: "One YAML says what a catalog is").

Imports only the standard library: the config is checked against them before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gcl.schema import Field, Schema


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
    becomes a task of its own. `corpus`: "held_out" = products no training pair shows, "all" = the whole catalog.
    `hold_out_queries`: training pairs whose query equals one of this task's are left out of training.
    """

    queries: str = "???"
    qrels: str = "???"
    query_id: str = "query_id"
    document_id: str | None = None
    score: str = "score"
    kind: str | None = None
    kinds: list[str] | None = None
    corpus: str = "held_out"
    hold_out_queries: bool = True


@dataclass
class Store:
    """How `prepare` writes: bytes a shard, optional shrinking of stored images, processes."""

    shard_bytes: int = 268435456
    image_side: int | None = None
    workers: int = 2


@dataclass
class Catalog:
    """What a catalog is: where its tables lie, which columns make a query and a product, how it is split."""

    name: str = "???"
    products: str | None = None
    pairs: str | None = None
    shards: str | None = None
    document_id: str = "product_id"
    query_id: str | None = None
    query: dict[str, Field] = field(default_factory=dict)
    document: dict[str, Field] = field(default_factory=dict)
    score: str | None = None
    image_root: str | None = None
    split: Split = field(default_factory=Split)
    tasks: dict[str, Task] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    max_bad: float = 0.01
    max_image_pixels: int = 100_000_000
    generator: str | None = None
    root: str | None = None

    @property
    def schema(self) -> Schema:
        return Schema(query=self.query, document=self.document)
