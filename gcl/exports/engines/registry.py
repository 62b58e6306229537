"""The engines that a run's vectors go to, by the modules that hold their records.

A new engine is a module of this folder with its record, the code that asks it (clients/<name>.py, which a deployment
gives to the shop), a page in docs/engines/, and its name here.
"""

from __future__ import annotations

from gcl.errors import ConfigError, check_packages, nearest
from gcl.exports.engines.engine import Engine
from gcl.lazy import load

ENGINES = (
    "qdrant", "lancedb", "duckdb", "milvus", "chroma", "pgvector", "faiss", "usearch", "elasticsearch", "opensearch",
    "solr", "typesense", "weaviate", "marqo", "vespa", "redis",
)  # fmt: skip


def engine_of(name: str) -> Engine:
    """The record of one of ENGINES."""
    return load(f"gcl.exports.engines.{name}:ENGINE")


def check_engine(name: str) -> Engine:
    """The engine of this name. Raises ConfigError for an unknown one, and where its packages are missing."""
    if name not in ENGINES:
        raise ConfigError(f"engine={name}: there is no such engine.{nearest(name, ENGINES)}")
    engine = engine_of(name)
    check_packages(f"engine={name}", engine.requires, engine.extra)
    return engine
