"""What `evaluate:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gcl.options import MISSING, mapping, path


class Forgetting(Enum):
    """What follows when a retention set lost more than its limit: a warning; exit status 3 at the end as well; or a
    best checkpoint chosen only among those within the limits."""

    warn = "warn"
    fail = "fail"
    choose = "choose"


@dataclass
class RetentionConfig:
    """A general set measured beside the catalog, before and after training: what a model must not forget.

    limit: how much of `metric` the tuned model may lose against the base. metric: by default ndcg@10, and hit@1 (the
    accuracy) for a classification. sample: queries of it that a validation asks; null: all.
    One of: catalog: a name of conf/data or the path of a catalog's YAML; folder: corpus.jsonl, queries.jsonl and
    qrels/test.tsv, as BEIR has them; images: a table of pictures to be told apart by text alone (zero shot), with the
    columns `image` and `label`. classes: names to choose from (null: those of the column); templates: sentences.
    """

    limit: float = 0.02
    metric: str | None = None
    sample: int | None = 500
    catalog: str | None = path()
    folder: str | None = path()
    images: str | None = path()
    image: str = "image"
    label: str = "label"
    classes: list[str] | None = None
    templates: list[str] = field(default_factory=lambda: ["a photo of a {}.", "{}", "a picture of a {}, for sale."])


@dataclass
class BenchmarkSetConfig:
    """One published data set in Parquet files. tables: where they are on the hub, by size. tasks: {name: column whose
    text is the query}; a query's answers are all rows that have its text."""

    tables: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)


@dataclass
class BenchmarkConfig:
    """A published benchmark (gcl/commands/benchmark.py). size: a key of each set's tables. root: a folder with local
    copies of the data sets, by the last part of their hub names. limit: read so many rows of each. image, document_id:
    what the files call them. published: figures of other models by size, task and model, from `source`."""

    size: str = MISSING
    sets: dict[str, BenchmarkSetConfig] = field(default_factory=dict)
    root: str | None = path()
    limit: int | None = None
    image: str = "image"
    document_id: str = "item_ID"
    published: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    source: str = ""


@dataclass
class EvaluateConfig:
    """Which tasks and metrics; monitor is the metric that chooses the best checkpoint (mean over the dev tasks).

    part: test, dev or all. queries: at most so many a task, drawn as `sample` says (weight, uniform, largest) with
    `seed`. rescale: relevance becomes 1…100. judged: at most so many judgments a query. ties: ascending, descending,
    listed or published. What these do: gcl/retrieval/tasks/protocol.py. sets: names of data=…, each of them measured.
    cache_gb: gigabytes of embeddings, and again of frozen trunks' features, that are kept in cache_dir; the least
    recently used go first. 0 keeps no embeddings, and of the features those in use.
    compress: smaller vectors to measure beside the full ones: a width (256), int8, binary, "256 int8".
    slices: groups of queries to compare: query_length, head_tail, missing, or any column of the catalog's tables.
    retention: general sets by name; forgetting: what happens when one of them loses more than its limit.
    """

    metrics: list[str] = MISSING
    headline: list[str] = MISSING
    monitor: str = "ndcg@10"
    tasks: list[str] | None = None
    monitor_tasks: list[str] | None = None
    depth: int = 1000
    batch_size: int = 256
    part: str = "test"
    cache_gb: float = 20.0
    compress: list[Any] = field(default_factory=list)
    slices: list[str] = field(default_factory=list)
    retention: dict[str, RetentionConfig] = mapping()
    forgetting: Forgetting = Forgetting.warn
    queries: int | None = None
    sample: str = "weight"
    seed: int = 1
    rescale: bool = False
    judged: int | None = None
    ties: str = "ascending"
    sets: list[str] = field(default_factory=list)
    benchmark: BenchmarkConfig | None = None
