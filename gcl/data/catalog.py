"""What one YAML says about a catalog, as dataclasses. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gcl.data.importers.layouts.registry import LAYOUTS
from gcl.options import MISSING, Choice, free, mapping, node, number, path
from gcl.schema import Field, Schema


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


class BadImages(Choice):
    """What becomes of a product one of whose images cannot be used."""

    absent = "absent"
    drop = "drop"
    refuse = "refuse"


class SameProduct(Choice):
    """Which row counts where a product id is repeated with other content."""

    first = "first"
    last = "last"
    merge = "merge"
    refuse = "refuse"


class SamePair(Choice):
    """Which score counts where the same query and document have several."""

    max = "max"
    mean = "mean"
    last = "last"
    refuse = "refuse"


class OwnField(Choice):
    """What a document shows of the field that its own query was made from."""

    hidden = "hidden"
    shown = "shown"


class Copies(Choice):
    """On which side of the split products with the same image or the same texts fall."""

    together = "together"
    apart = "apart"


class Verify(Choice):
    """When the bytes of prepared shards are compared with their SHA-256."""

    always = "always"
    changed = "changed"
    never = "never"


MISSING_WORDS = ("", "NULL", "null", "None", "N/A", "n/a", "#N/A", "\\N", "<NA>", "nan", "NaN", "-", "no_selection")
BACKSLASH = "backslash"


@dataclass
class Duplicates:
    """What counts where a table says something twice, differently. Equal repetitions always pass."""

    products: SameProduct = SameProduct.refuse
    """A product id with other content: the "first" or the "last" row, "merge" (the first value of each field), or
    "refuse"."""

    pairs: SamePair = SamePair.max
    """A query and a product with several scores: "max", "mean", "last", or "refuse"."""

    judgments: SamePair = SamePair.max
    """The same in the judgments of a task."""


@dataclass
class Split:
    """GCL's two-way split: `queries` x `documents` is what training sees, the other three quarters are held out.

    Which half a query or a document falls into depends only on its content or id and the seed (a hash), so adding
    rows to a catalog never moves the others.
    """

    queries: float = number(0.8, least=0, most=1)
    """Share of the queries that training may see."""

    documents: float = number(0.5, least=0, most=1)
    """Share of the documents that training may see."""

    dev: float = number(0.5, least=0, most=1)
    """Share of every task's queries used while training (best checkpoint, early stopping, sweeps); the rest is the test
    half, which the final table reports."""

    seed: int = 0
    """Another seed draws other halves."""

    group: list[str] = field(default_factory=list)
    """Columns of the products, for example [parent]: products with equal values fall into the same half."""

    copies: Copies = Copies.together
    """Whether products with the same image, or equal in all texts, fall into the same half: "together" or "apart"."""


@dataclass
class Task:
    """An explicit retrieval task: a table of queries and a table of judgments against the catalog's products.

    Judgments may also be TREC qrels (of any suffix), a ground truth (a .json of {query: {document id: relevance}},
    whose keys are the queries without `queries`, else their ids), or made of a column of the products (`column`).
    """

    queries: str | None = path()
    """Table with the query id and the query fields' columns."""

    qrels: str | None = path()
    """Table with the query id, the document id and the score; or TREC qrels, or a ground truth
    (.json)."""

    column: str | None = None
    """Without any table: each value of this column of the products is a query for the products that have it."""

    title: Any = free(None, "a text, {kind: text} for a task of several kinds, or null")
    """What people read in place of the task's name, in tables and on the page, for example "Typed searches", or
    {attr: Attribute searches, text: Title searches} for kinds; null: the name in words."""

    query_id: str = "query_id"
    """Column of the query id."""

    qrels_query_id: str | None = None
    """Column of the query id in qrels; null: as in queries."""

    document_id: str | None = None
    """Column of the document id in qrels and corpus; null: the catalog's."""

    query_columns: dict[str, str] = mapping()
    """Columns of `queries` that are not called as in the pairs, {query field: column}."""

    score: str = "score"
    """Column of the relevance in qrels; above 0 means relevant."""

    grades: dict[str, float] = mapping()
    """What the words of that column count, for example {Exact: 2, Partial: 1, Irrelevant: 0}; empty: the catalog's."""

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

    document: dict[str, float] = mapping(least=0, most=1e6)
    """Weights of the document fields in this task alone, for example {image: 1.0}."""


@dataclass
class Store:
    """How `prepare` writes."""

    shard_bytes: int = number(268435456, least=1)
    """Size of a shard, in bytes, after which the next one is begun."""

    image_side: int | None = number(None, least=1)
    """Pixels of the shorter side to which larger images are shrunk; null: they are stored unchanged."""

    workers: int = number(2, least=1, most=1000)
    """Threads that read and check images."""


@dataclass
class Download:
    """How `prepare` fetches images that a table names by URL. A URL that was fetched is not asked for again: empty the
    cache to fetch it anew."""

    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request to `hosts`, for example {Authorization: "Bearer $SHOP_KEY"}: $NAME is the environment's
    variable, so that no file holds a key."""

    hosts: list[str] = field(default_factory=list)
    """Hosts that the headers are sent to (with a port where it is not the usual one); others, after a redirect too, get
    none."""

    private: bool = False
    """Also fetch from private addresses (127.0.0.1, 10.0.0.0/8, a host of your own network, …)."""

    timeout: float = number(20.0, least=1e-3, most=86_400)
    """Seconds for one answer, to its last byte."""

    retries: int = number(3, least=0, most=100)
    """Further attempts after a failure that may pass."""

    rate: float | None = number(10.0, above=0)
    """Requests per second to one host; null: no limit."""

    workers: int = number(8, least=1, most=1000)
    """Downloads at a time."""

    cache: str | None = path()
    """Folder in which images are kept by URL; null: downloads/ next to the prepared catalogs."""

    max_bytes: int = number(50_000_000, least=1)
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

    power: float | None = number(None, least=0, most=100)
    """A place is looked at with probability position^-power; null: fitted to the log."""

    purchase_weight: float = number(5.0, least=0, most=1e9)
    """Clicks that a purchase is worth."""

    prior: float = number(10.0, above=0, most=1e9)
    """Looks whose worth draws rates of few looks to the mean."""

    scale: Scale = Scale.query
    """Whose best document gets 100: each "query"'s, or that of the whole "log"."""

    least_shown: float = number(1.0, least=0)
    """Pairs shown less often are left out."""

    negative_looks: float | None = number(None, above=0, most=1e9)
    """Looks without a click or purchase after which a document is a negative of its query (score 0); null: it keeps
    its low score. A look is an impression times the probability that its place is looked at."""


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

    judgments: str | None = path()
    """Table with the columns of `pairs` that the situations of the split are measured with in place of the pairs;
    nothing is trained on it. null: the pairs say what is relevant."""

    complete: bool = False
    """Whether what the judgments (without them, the pairs) do not list is irrelevant; otherwise nobody knows."""

    changes: str | None = path()
    """Change feed of `products`: rows that are new, changed or deleted, with a column that says which (I/U/D, the ops
    of Debezium, the change types of Delta). The last change of an id counts."""

    changes_op: str | None = None
    """Column of `changes` that says what became of a row; null: the one that is called as usual (op, __op,
    _change_type, …)."""

    changes_order: str | None = None
    """Column of `changes` with numbers or times by which the last change of an id is found; null: the later row, of
    several files that of the later name."""

    document_id: str = "product_id"
    """Column of the document id."""

    pairs_document_id: str | None = None
    """Column of the document id in pairs; null: as in products."""

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

    own_field: OwnField = OwnField.hidden
    """Whether the document of a pair whose query was made from one of its fields lacks that field, in training and
    measuring ("hidden"), or has it ("shown")."""

    layout: str | None = free(None, f"{', '.join(LAYOUTS)}, or null", *LAYOUTS)
    """Whose export `products` is: it is translated into a table of one row per product or variant first, with gcl's own
    columns (product_id, parent, title, image, …); null: `products` is such a table."""

    grades: dict[str, float] = mapping()
    """What the words of the score's column count, for example {Exact: 2, Partial: 1, Irrelevant: 0}."""

    missing: list[str] = field(default_factory=lambda: list(MISSING_WORDS))
    """Cells that say that there is no value: absent in a field, refused in an id."""

    duplicates: Duplicates = field(default_factory=Duplicates)
    """What counts where a table says something twice, differently."""

    encoding: str | None = None
    """How those CSV, TSV, text and JSON files are written that are not UTF-8 and have no mark that says so, for example
    cp1252."""

    delimiter: str | None = None
    """What separates the cells of a CSV or text file; null: commas in a .csv, in a .txt what its header says."""

    quote: str | None = '"'
    """What encloses a cell of a CSV file that contains the delimiter; null: nothing does; backslash: " does, and \\" is
    a mark inside of it."""

    decimal: str = "."
    """Decimal sign of scores that are written as texts, "." or ","; 85% is 0.85."""

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

    bad_images: BadImages = BadImages.absent
    """What becomes of a product with an unusable image: it goes on without it ("absent"), is left out ("drop"), or
    stops everything ("refuse")."""

    max_bad: float = number(0.01, least=0, most=1)
    """Share of a table's rows that may be unusable; more of them stop everything."""

    max_image_pixels: int = number(100_000_000, least=1)
    """Pixels of the largest image that is decoded."""

    verify: Verify = Verify.changed
    """When the bytes of prepared shards are compared with their SHA-256: "always" when they are opened, where size or
    time "changed", or "never"."""

    cache_gb: float | None = number(None, above=0, most=1e9)
    """Gigabytes of shards in an object store that are kept on this machine while they are read; null: all of them."""

    generator: str | None = None
    """A function, package.module:name, that writes the tables, or translates the files in root into tables. Of one that
    takes sample=True, and then writes a few rows with all columns, these are checked before it writes everything."""

    root: str | None = path()
    """Folder that relative paths of tables start from; null: the folder of a YAML of your own, the working folder for
    those of gcl. What is given on the command line starts at the working folder."""

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

    @property
    def own_columns(self) -> dict[str, str]:
        """{query field: the column of the products that makes it}, where queries are made of the products themselves:
        of `own_queries`, or of one table that is products and pairs."""
        if self.own_queries or (self.products and self.pairs) or not self.training:
            return dict(self.own_queries)
        return {name: spec.column or name for name, spec in self.query.items()}

    def hidden_fields(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The document fields that are not shown to queries made of these columns."""
        if self.own_field == OwnField.shown:
            return ()
        made = set(columns)
        return tuple(
            name for name, spec in self.document.items() if made.intersection(spec.columns or [spec.column or name])
        )


def is_corpus(name: str) -> bool:
    """Whether a task's corpus is one of Corpus, not a table."""
    return name in list(Corpus)
