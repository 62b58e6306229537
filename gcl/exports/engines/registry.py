"""The engines that a run's vectors go to: a record each, which options, errors, help and the docs read.

An engine runs here (its library keeps a database in a folder, or in memory), at an address (`url=…`), or neither: then
files are written that it reads. What a record calls is imported when it is called. A new engine is a module of this
folder, the code that asks it (clients/<name>.py, which a deployment gives to the shop), a page in docs/engines/, and a
record in ENGINES.

Whatever a run's score is made of, an engine gets one vector per document, all of one length, and one per query, to be
compared by inner product: the fused vectors, or the fields' vectors side by side, the weights then being in the
query's (gcl/model/query_weights.py). So cosine, inner product and Euclidean distance rank alike, and no engine has to
combine scores of several vectors, of which most cut the candidates or normalise the scores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gcl.errors import ConfigError, check_packages, nearest
from gcl.exports.engines.payload import WORDS, Batch, Column
from gcl.lazy import later
from gcl.options import Choice

Filter = Mapping[str, Any]
"""{payload column: its value, or (least, most) of a number}; all of them hold."""
APPROXIMATE = 0.95  # the share of the exact top 10 that the deepest search of an index finds
SHARE = 0.7  # of the vectors in a weighted hybrid query; words have the rest
_NAME = re.compile(r"[a-z][a-z0-9_]{2,62}")


class Quantization(Choice):
    """In which numbers an engine keeps the vectors that it searches first."""

    none = "none"
    scalar = "scalar"
    binary = "binary"


class How(Choice):
    """What a search goes by."""

    exact = "exact"
    approximate = "approximate"
    words = "words"
    rrf = "rrf"
    weighted = "weighted"


@dataclass(frozen=True)
class Layout:
    """What a collection holds: the schema that an engine is told.

    width: numbers of `vector`. columns: the payload. words: whether texts are searched, too, in the column WORDS.
    about: what identifies the vectors (model, catalog, content).
    """

    name: str
    width: int
    rows: int
    columns: Mapping[str, Column]
    quantization: Quantization = Quantization.none
    about: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"collection={self.name}: 3 to 63 small letters, digits and underscores, a letter first, which every "
                "engine takes."
            )

    @property
    def words(self) -> bool:
        return WORDS in self.columns


@dataclass(frozen=True)
class Setting:
    """One way to search a collection. options: for the engine. least: the overlap with exact search of which it must
    not be short, which overlap=… gives for exact settings, and approximate=… for those that have one; None: it is
    measured only. filtered: whether the check's filter holds."""

    name: str
    how: How
    least: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    filtered: bool = False

    @property
    def depth(self) -> int | None:
        """How many candidates its index looks at; None where that is not what is set."""
        return self.options.get("ef")


def graph_settings(option: str = "ef", **options: Any) -> list[Setting]:
    """HNSW at several depths, of which the deepest has to be nearly exact. option: what the engine calls it."""
    return [
        Setting(f"HNSW, ef {depth}", How.approximate, least, {**options, option: depth})
        for depth, least in ((32, None), (128, None), (512, APPROXIMATE))
    ]


def word_settings(layout: Layout, words: str = "BM25") -> list[Setting]:
    """Words alone, and both ways to add them to the vectors; none where texts are not searched."""
    names = {words: How.words, "hybrid, RRF": How.rrf, "hybrid, weighted": How.weighted}
    return [Setting(name, how) for name, how in names.items()] if layout.words else []


@dataclass(frozen=True)
class Asked:
    """A query: vector[W] float32, its words, and what the results are filtered by."""

    vector: np.ndarray
    words: str = ""
    filter: Filter = field(default_factory=dict)


class Collection(Protocol):
    """A collection that runs here or at an address."""

    def rows(self) -> int | None:
        """Documents that it holds; None: there is no such collection."""

    def create(self) -> None:
        """Makes it empty, whatever was there."""

    def add(self, batch: Batch, *, again: bool = False) -> None:
        """again: some of the batch may be there already, of a load that was interrupted."""

    def finish(self) -> None:
        """Builds indexes, waits until everything is found."""

    def search(self, asked: Asked, k: int, setting: Setting) -> Sequence[str]:
        """Ids of documents, best first."""

    def drop(self) -> None:
        """Removes it."""

    def close(self) -> None: ...


class Asks:
    """A Collection that is asked by the code that shops get (clients/<engine>.py, written as search.py): so what is
    measured is what they run."""

    asks: Any
    """Its `Search`: near, and by_words and hybrid where there are settings of words."""

    def search(self, asked: Asked, k: int, setting: Setting) -> Sequence[str]:
        """See Collection."""
        where = {"where": asked.filter} if asked.filter else {}
        if setting.how is How.words:
            found = self.asks.by_words(asked.words, k=k, **where)
        elif setting.how in (How.rrf, How.weighted):
            share = SHARE if setting.how is How.weighted else None
            found = self.asks.hybrid(asked.vector, asked.words, k=k, share=share, **where)
        else:
            found = self.asks.near(asked.vector, k=k, **where, **setting.options)
        return [name for name, _ in found]


@dataclass(frozen=True)
class Engine:
    """An engine.

    name: in `engine=…`. title: as its makers write it. explanation: where it runs and what is checked, for help and
        docs.
    settings: (layout, url or None) -> the ways to search that are checked.
    open: (layout, folder, url or None) -> a Collection, not yet made.
    write: (layout, batches, folder) -> the files that it loads, where files are what one gives it.
    files: what `write` writes, in words. serve: lines that start a server; its port is in them.
    url: an example of its address. here: whether it runs in this process or is started by it.
    keeps: whether what was loaded here is left in the folder, as the engine's own database.
    filters: whether results can be filtered by the payload.
    quantizations: all that can be chosen, the default first. quantizes_here: whether it quantises without an address.
    widest: the most numbers of a vector. longest: the most letters of a collection's name.
    batch: the most documents sent at once. requires: packages (import names); `extra` brings them.
    """

    name: str
    title: str
    explanation: str
    settings: Callable[[Layout, str | None], Sequence[Setting]]
    open: Callable[[Layout, Path, str | None], Collection] | None = None
    write: Callable[[Layout, Iterable[Batch], Path], Sequence[Path]] | None = None
    files: str = ""
    serve: str = ""
    url: str = ""
    here: bool = True
    keeps: bool = True
    filters: bool = True
    quantizations: tuple[Quantization, ...] = (Quantization.none,)
    quantizes_here: bool = False
    widest: int | None = None
    longest: int = 63
    batch: int = 4096
    requires: tuple[str, ...] = ()
    extra: str = ""

    def rows(self, width: int) -> int:
        """Documents sent at once: of wide vectors fewer, so that they are never more than 128 MiB."""
        return max(1, min(self.batch, 2**25 // width))

    def check_layout(self, layout: Layout, url: str | None) -> None:
        """Raises ConfigError for a name, vectors or a quantization that it does not take."""
        if layout.quantization not in self.quantizations:
            known = ", ".join(self.quantizations)
            raise ConfigError(f"quantization={layout.quantization}: with {self.title}, it is one of {known}.")
        if layout.quantization is not Quantization.none and url is None and not self.quantizes_here:
            raise ConfigError(
                f"quantization={layout.quantization}: without a server, {self.title} keeps every number whole: give "
                f"url=…, for example {self.url}."
            )
        if len(layout.name) > self.longest:
            raise ConfigError(f"collection={layout.name}: with {self.title}, at most {self.longest} letters.")
        if self.widest is not None and layout.width > self.widest:
            raise ConfigError(
                f"{self.title} indexes vectors of at most {self.widest:,} numbers, and these have {layout.width:,}: "
                "take content=fused, or export the run with dims=…"
            )


_later = partial(later, "gcl.exports.engines")
_EACH = (Quantization.none, Quantization.scalar, Quantization.binary)


def _server(**record: Any) -> Engine:
    """An engine that runs as a server only: files are written that it loads, or it is loaded at an address."""
    given: dict[str, Any] = {
        "explanation": "files to load, or a server at an address, which is loaded and checked", "batch": 500,
        "files": f"create.json and documents/, which `sh load.sh {record['url']}` sends",
        "here": False, "keeps": False, "quantizes_here": True,
    }  # fmt: skip
    return Engine(**(given | record))


def _http(name: str) -> dict[str, Any]:
    """A class of gcl/exports/engines/http.py's kind, as `module:name`."""
    return {"open": _later(name), "write": _later(f"{name}.write"), "settings": _later(f"{name}.settings")}


_ALL = (
    Engine(
        name="qdrant",
        title="Qdrant",
        explanation="checked in this process by its client's own search, which is exact; at an address with its index",
        settings=_later("qdrant:settings"),
        open=_later("qdrant:Qdrant"),
        write=_later("qdrant:write"),
        files="collection.json, the body of PUT /collections/<name>",
        serve="docker run -p 6333:6333 -v ./qdrant_storage:/qdrant/storage qdrant/qdrant",
        url="http://localhost:6333",
        keeps=False,
        quantizations=_EACH,
        batch=1000,
        requires=("qdrant_client",),
        extra="qdrant",
    ),
    Engine(
        name="lancedb",
        title="LanceDB",
        explanation="a database in a folder, or at an address (object store, LanceDB Cloud)",
        settings=_later("lancedb:settings"),
        open=_later("lancedb:LanceDB"),
        url="s3://bucket/path",
        quantizations=_EACH,
        quantizes_here=True,
        batch=32_768,
        requires=("lancedb",),
        extra="lancedb",
    ),
    Engine(
        name="duckdb",
        title="DuckDB",
        explanation="a database in one file; search is exact",
        settings=_later("duckdb:settings"),
        open=_later("duckdb:DuckDB"),
        batch=122_880,  # its row groups
        requires=("duckdb",),
        extra="duckdb",
    ),
    Engine(
        name="milvus",
        title="Milvus",
        explanation="Milvus Lite keeps a database in one file and searches it exactly; at an address with its index",
        settings=_later("milvus:settings"),
        open=_later("milvus:Milvus"),
        serve="docker run -p 19530:19530 milvusdb/milvus:latest milvus run standalone",
        url="http://localhost:19530",
        quantizations=(Quantization.none, Quantization.scalar),
        batch=2000,
        requires=("pymilvus", "milvus_lite"),
        extra="milvus",
    ),
    Engine(
        name="chroma",
        title="Chroma",
        explanation="a database in a folder, or at an address; it always searches its index",
        settings=_later("chroma:settings"),
        open=_later("chroma:Chroma"),
        serve="docker run -p 8000:8000 -v ./chroma:/data chromadb/chroma",
        url="http://localhost:8000",
        batch=5000,
        requires=("chromadb",),
        extra="chroma",
    ),
    Engine(
        name="pgvector",
        title="PostgreSQL with pgvector",
        explanation="checked in a server that is started here for it; at the address of yours",
        settings=_later("pgvector:settings"),
        open=_later("pgvector:Pgvector"),
        write=_later("pgvector:write"),
        files="load.sql for `psql -f load.sql`, which reads schema.sql and documents.copy",
        serve="docker run -p 5432:5432 -e POSTGRES_PASSWORD=… pgvector/pgvector:pg17",
        url="postgresql://user:password@localhost/shop",
        keeps=False,
        widest=2000,
        longest=56,  # its indexes are called <collection>_vector, and PostgreSQL cuts names to 63
        batch=16_384,
        requires=("psycopg", "pgvector", "pgserver"),
        extra="pgvector",
    ),
    Engine(
        name="faiss",
        title="faiss",
        explanation="two index files, exact and HNSW, and one of ids; an index is in memory as a whole",
        settings=_later("indexes:faiss_settings"),
        open=_later("indexes:faiss"),
        filters=False,
        batch=16_384,
        requires=("faiss",),
        extra="index",
    ),
    Engine(
        name="usearch",
        title="usearch",
        explanation="an index file and one of ids; an index is in memory as a whole",
        settings=_later("indexes:usearch_settings"),
        open=_later("indexes:usearch"),
        filters=False,
        batch=16_384,
        requires=("usearch",),
        extra="index",
    ),
    _server(
        name="elasticsearch",
        title="Elasticsearch",
        **_http("elastic:Elasticsearch"),
        serve="docker run -p 9200:9200 -e discovery.type=single-node -e xpack.security.enabled=false "
        "elasticsearch:9.2.0",
        url="http://localhost:9200",
        quantizations=_EACH,
        widest=4096,
    ),
    _server(
        name="opensearch",
        title="OpenSearch",
        **_http("elastic:OpenSearch"),
        serve="docker run -p 9200:9200 -e discovery.type=single-node -e DISABLE_SECURITY_PLUGIN=true "
        "opensearchproject/opensearch:3",
        url="http://localhost:9200",
        quantizations=_EACH,
        widest=16_000,
    ),
    _server(
        name="solr",
        title="Solr",
        **_http("solr:Solr"),
        serve="docker run -p 8983:8983 solr:10 solr-precreate products",
        url="http://localhost:8983",
        quantizations=_EACH,
    ),
    _server(
        name="typesense",
        title="Typesense",
        **_http("typesense:Typesense"),
        serve="docker run -p 8108:8108 -v ./typesense:/data typesense/typesense:29.0 --data-dir /data --api-key=KEY",
        url="http://:KEY@localhost:8108",
        files="create.json and documents/, which `sh load.sh http://localhost:8108 KEY` sends",
    ),
    _server(
        name="weaviate",
        title="Weaviate",
        **_http("weaviate:Weaviate"),
        serve="docker run -p 8080:8080 -v ./weaviate:/var/lib/weaviate semitechnologies/weaviate:1.34.0",
        url="http://localhost:8080",
        quantizations=_EACH,
    ),
    _server(
        name="marqo",
        title="Marqo",
        **_http("marqo:Marqo"),
        serve="docker run -p 8882:8882 marqoai/marqo:latest",
        url="http://localhost:8882",
        batch=128,  # as many as it takes at once
    ),
    _server(
        name="vespa",
        title="Vespa",
        **_http("vespa:Vespa"),
        files="application/ and documents.jsonl, for `vespa deploy application` and `vespa feed documents.jsonl`",
        serve="docker run -p 8080:8080 -p 19071:19071 vespaengine/vespa",
        url="http://localhost:8080",
        quantizations=_EACH[:2],
    ),
    _server(
        name="redis",
        title="Redis",
        settings=_later("redis:settings"),
        open=_later("redis:Redis"),
        write=_later("redis:write"),
        files="documents.redis, for `redis-cli --pipe < documents.redis`",
        serve="docker run -p 6379:6379 redis:8",
        url="redis://localhost:6379",
        widest=32_768,
        requires=("redis",),
        extra="redis",
    ),
)
ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}


def check_engine(name: str) -> Engine:
    """The engine of this name. Raises ConfigError for an unknown one, and where its packages are missing."""
    if name not in ENGINES:
        raise ConfigError(f"engine={name}: there is no such engine.{nearest(name, ENGINES)}")
    engine = ENGINES[name]
    check_packages(f"engine={name}", engine.requires, engine.extra)
    return engine
