"""What `evaluate:` in a run's config may say, and what is refused. Knows no torch: checked before it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcl.options import MISSING, Choice, check_numbers, mapping, number, path
from gcl.retrieval.embedding.quantize import parse_format
from gcl.retrieval.metrics.metrics import depth, parse_metric
from gcl.schema import Modality, Schema


class Part(Choice):
    """Which half of a task's queries is asked."""

    test = "test"
    dev = "dev"
    all = "all"


class Sampling(Choice):
    """How some of a task's queries are chosen: by chance, those with many judgments more often; by chance; or those
    with the highest sum of relevances."""

    weight = "weight"
    uniform = "uniform"
    largest = "largest"


class TieRule(Choice):
    """How results with equal scores are ordered: by document id, ascending or descending (as trec_eval does); as they
    were found; or as the published GCL figures mix them: descending for what pytrec_eval computes, as they were found
    for what is computed in loops."""

    ascending = "ascending"
    descending = "descending"
    listed = "listed"
    published = "published"


class Forgetting(Choice):
    """What a retention set that loses more than its limit changes: a warning and the verdict; or also which checkpoint
    is the best, chosen only among those within the limits."""

    warn = "warn"
    choose = "choose"


class Gate(Choice):
    """The verdicts with which a command ends with exit status 3: none, "do not ship", or all but "ship"."""

    off = "off"
    worse = "worse"
    better = "better"


@dataclass
class RetentionConfig:
    """A general set that is measured before and after training, in addition to the catalog: what a model must not
    forget. Give one of catalog, folder and images."""

    limit: float = number(0.02, least=0, most=1)
    """How much of `metric` the tuned model may lose against the base."""
    metric: str | None = None
    """The metric that is watched. null: ndcg@10, or hit@1 (the accuracy) where images are classified."""
    sample: int | None = number(500, least=1)
    """Queries that a validation during training asks. null: all of them."""
    catalog: str | None = path()
    """A name of conf/data, or the path of a catalog's YAML: its tasks are the set."""
    untrusted: bool = False
    """Whether that YAML is read as data that sends no keys. Always true where a run folder names it."""
    folder: str | None = path()
    """A folder with corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR's data sets have them."""
    images: str | None = path()
    """A table of images that are told apart by the names of their classes alone (zero shot)."""
    image: str = "image"
    """The column of `images` with paths, from the table's folder, or with the images themselves."""
    label: str = "label"
    """The column of `images` with the class of each."""
    classes: list[str] | None = None
    """The names to choose from. null: those that are in the column `label`."""
    templates: list[str] = field(default_factory=lambda: ["a photo of a {}.", "{}", "a picture of a {}, for sale."])
    """Sentences with {} for the class; a class is the mean of their embeddings."""

    def check(self, key: str) -> None:
        """Raises ValueError for a set that cannot be measured. key: what the config calls it."""
        sources = [name for name in ("catalog", "folder", "images") if getattr(self, name)]
        if len(sources) != 1:
            given = ", ".join(sources) or "none"
            raise ValueError(f"{key}: expected exactly one of catalog, folder and images; given: {given}.")
        _check_each(f"{key}.metric", parse_metric, [self.metric or "ndcg@10"])


@dataclass
class BenchmarkSetConfig:
    """One published data set in Parquet files."""

    tables: dict[str, str] = field(default_factory=dict)
    """{size: where its tables are on the hub}"""
    tasks: dict[str, str] = field(default_factory=dict)
    """{task: the column whose texts are its queries}; all rows with a text are the answers to it."""


@dataclass
class BenchmarkConfig:
    """A published benchmark, measured like any other data and shown with the figures that others published."""

    size: str = MISSING
    """Which of the sets' tables are measured: a key of `tables`, or all."""
    sets: dict[str, BenchmarkSetConfig] = field(default_factory=dict)
    """The benchmark's data sets by name."""
    root: str | None = path()
    """A folder with local copies of the data sets, each named as the last part of its hub name. null: the hub."""
    limit: int | None = number(None, least=1)
    """Read at most this many rows of each set, for a trial. null: all."""
    image: str = "image"
    """The column that holds the images."""
    document_id: str = "item_ID"
    """The column that holds the documents' ids."""
    published: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    """{size: {task: {model: {metric: value}}}} as published."""
    source: str = ""
    """Where the published figures were taken from."""


@dataclass
class Rules:
    """Which of a task's queries and judgments count, and how: gcl/retrieval/tasks/protocol.py acts on them."""

    queries: int | None = number(None, least=1)
    """At most this many queries per task. null: all of them."""
    sample: Sampling = Sampling.weight
    """How these queries are chosen: weight (by chance, those with much relevance more often), uniform (by chance) or
    largest (those with the most relevance)."""
    seed: int = number(1, least=0)
    """The seed of that choice."""
    rescale: bool = False
    """Whether relevances become whole numbers from 1 to 100 over the range of the task."""
    judged: int | None = number(None, least=1)
    """At most this many judgments per query, the most relevant ones. null: all of them."""
    ties: TieRule = TieRule.ascending
    """How equal scores are ordered: by document id (ascending, descending), as they were found (listed), or published:
    mixed as in the published GCL figures."""

    def check(self) -> None:
        """Raises ValueError, naming the key, for a value that cannot be meant."""
        _check_each("evaluate.sample", Sampling, [self.sample])
        _check_each("evaluate.ties", TieRule, [self.ties])
        check_numbers(self, "evaluate.")


@dataclass
class EvaluateConfig(Rules):
    """How a model is measured: on which tasks, with which metrics, and what is reported in addition."""

    metrics: list[str] = MISSING
    """The metrics that are computed: family@cutoff, for example ndcg@10."""
    headline: list[str] = MISSING
    """The metrics of the printed table, tested for significance; all of them are in `metrics`."""
    monitor: str = "ndcg@10"
    """The metric that chooses the best checkpoint, its mean over the dev tasks."""
    tasks: list[str] | None = None
    """The tasks that are measured. null: all that have a query."""
    monitor_tasks: list[str] | None = None
    """The tasks whose dev half chooses the best checkpoint. null: all that are measured."""
    depth: int = number(1000, least=1)
    """Documents that are retrieved per query; at least the largest cutoff of `metrics`."""
    batch_size: int = number(256, least=1)
    """Records that are embedded at once, on each GPU."""
    part: Part = Part.test
    """Which half of each task's queries is asked: test, dev or all."""
    cache_gb: float = number(20.0, least=0, most=1e9)
    """Gigabytes of embeddings, and again of frozen trunks' features, that cache_dir keeps; the least recently used are
    deleted first. 0: no embeddings, and of the features those in use."""
    compress: list[Any] = field(default_factory=list)
    """Smaller vectors to measure as well: a width (256), int8, binary, or both ("256 int8")."""
    slices: list[str] = field(default_factory=list)
    """Groups of queries to compare: query_length, head_tail, missing, or any column of the catalog's tables."""
    retention: dict[str, RetentionConfig] = mapping()
    """General sets by name, measured before and after training: what the model must not forget."""
    forgetting: Forgetting = Forgetting.warn
    """What follows when a retention set loses more than its limit: warn, or choose (the best checkpoint is one of those
    within the limits)."""
    gate: Gate = Gate.off
    """When training and evaluating end with exit status 3: off (never), worse (the verdict is "do not ship") or better
    (it is not "ship")."""
    sets: list[str] = field(default_factory=list)
    """Catalogs of conf/data to measure one after another, in place of `data`."""
    benchmark: BenchmarkConfig | None = None
    """A published benchmark to measure in place of `data` (evaluate=marqo_ecommerce)."""

    def check(self) -> None:
        """Raises ValueError, naming the key, for the first value that cannot be meant."""
        super().check()
        _check_each("evaluate.metrics", parse_metric, self.metrics)
        for name in (self.monitor, *self.headline):
            if name not in self.metrics:
                raise ValueError(
                    f"evaluate.metrics lacks {name!r}, which evaluate.monitor or evaluate.headline names: add it."
                )
        _check_each("evaluate.compress", parse_format, self.compress)
        for name, retention in self.retention.items():
            retention.check(f"evaluate.retention.{name}")
        deepest = max(self.metrics, key=lambda name: depth([name]), default="")
        if deepest and depth([deepest]) > self.depth:
            raise ValueError(
                f"evaluate.depth={self.depth} results per query are too few for {deepest}: give at least "
                f"{depth([deepest])}, or other evaluate.metrics."
            )


def _check_each(key: str, parse: Callable[[Any], object], values: Iterable[Any]) -> None:
    for value in values:
        try:
            parse(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error


BUILT_IN = ("query_length", "head_tail", "missing")  # slices that need no column


def needed_columns(schema: Schema, names: Sequence[str]) -> list[str]:
    """The slices that only the catalog's tables can know."""
    fields = {n for side in (schema.query, schema.document) for n, f in side.items() if f.modality is Modality.text}
    return [name for name in names if name not in BUILT_IN and name not in fields]
