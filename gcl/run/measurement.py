"""Measuring a model on a prepared catalog: the one call behind validation, train.py's tables and evaluate.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.data.store.away import local_folder
from gcl.data.store.prepared import Prepared
from gcl.data.store.records import Records
from gcl.data.titles import file_name, task_titles, title_of
from gcl.errors import ConfigError
from gcl.files.arrays import ArrayCache
from gcl.files.lock import locked
from gcl.model.dual_encoder import DualEncoder
from gcl.model.features import cached_features, statistics
from gcl.model.heads import image_head
from gcl.model.rotation import Rotation
from gcl.retrieval.analysis.weight_sweep import Embedded
from gcl.retrieval.embedding.embed import EmbedOptions, EmbedsRecords
from gcl.retrieval.embedding.own import Embedder
from gcl.retrieval.embedding.precomputed import RunFiles
from gcl.retrieval.embedding.quantize import VectorFormat
from gcl.retrieval.evaluate import TaskResult, embed_tasks, evaluate, result_of
from gcl.retrieval.metrics.metrics import depth
from gcl.retrieval.settings import EvaluateConfig, Rules
from gcl.retrieval.tasks.judgments import Judgments
from gcl.retrieval.tasks.protocol import under
from gcl.retrieval.tasks.task import RetrievalTask, from_prepared
from gcl.run.rotation import rotation_of
from gcl.schema import Modality, SideName, SideWeights, fields_of

Features = Mapping[SideName, Mapping[str, np.ndarray]]  # side -> field -> [rows, E]


@dataclass
class Measurement:
    """Which tasks, metrics and settings measure a model on a prepared catalog. Tasks are opened once and kept."""

    prepared: Prepared
    metrics: Sequence[str]
    tasks: Sequence[str] | None = None
    rules: Rules = field(default_factory=Rules)
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # task -> its own document weights
    titles: Mapping[str, str] = field(default_factory=dict)  # task -> what people read
    prefix: str = ""  # of the tasks' names, where several catalogs are measured
    batch_size: int = 256
    workers: int = 0
    features: Features = field(default_factory=dict)
    cache: ArrayCache | None = None
    forms: Sequence[VectorFormat] = ()  # smaller vectors to measure in addition to the full ones
    rotation: Rotation | None = None  # theirs; None: the one of the catalog's training half
    judgments: Judgments | None = None  # to add to those of the tasks
    _opened: dict[str, list[RetrievalTask]] = field(default_factory=dict, repr=False)

    def opened(self, part: str) -> list[RetrievalTask]:
        """The tasks that have a query in this part."""
        if part not in self._opened:
            counts = self.prepared.counts["tasks"]
            self.prepared.check_tasks(self.tasks or ())
            halves = ("dev", "test") if part == "all" else (part,)
            names = [name for name in self.tasks or counts if any(counts[name][half]["queries"] for half in halves)]
            if not names:
                raise ValueError(f"No task has a query in its {part} half.")
            self._opened[part] = [self._open(name, part) for name in names]
        return self._opened[part]

    def _open(self, name: str, part: str) -> RetrievalTask:
        task = from_prepared(self.prepared, name, part, prefix=self.prefix)
        title = title_of(self.prefix + name, self.titles)
        task = replace(task, document_weights=self.weights.get(name), title=title)
        if self.judgments is not None:
            task = self.judgments.added_to(task, name)
        return under(task, self.rules)

    def __call__(
        self,
        encoder: Embedder,
        part: str,
        metrics: Sequence[str] | None = None,
        *,
        k: int | None = None,
        passing: bool = False,
        embedded: Sequence[Embedded] | None = None,
        weights: SideWeights | None = None,
        rotation: Rotation | None = None,
    ) -> dict[str, TaskResult]:
        """{task: TaskResult} of one part, names without the part. passing: a model that no one will measure again,
        whose embeddings are not kept. embedded: what `self.embedded` gave for it. weights: other field weights than
        the schema's, of one side or both. rotation: what `self.rotation_for` gave for it."""
        if isinstance(encoder, RunFiles):
            return self._of_runs(encoder, part, metrics or self.metrics, k=k)
        forms, embedding = () if passing else self.forms, self._embedding(passing)
        if forms and rotation is None:
            rotation = self.rotation_for(encoder)
        results = evaluate(
            encoder, self.opened(part), metrics or self.metrics, k=k, ties=self.rules.ties, forms=forms,
            rotation=rotation, embedding=embedding,
            embedded=None if embedded is None else [(one.query, one.document) for one in embedded],
            query_weights=None if weights is None else weights.get("query"),
            document_weights=None if weights is None else weights.get("document"),
        )  # fmt: skip
        return {name.removesuffix(f".{part}"): result for name, result in results.items()}

    def rotation_for(self, encoder: DualEncoder | EmbedsRecords) -> Rotation | None:
        """The one that smaller vectors of this model are rotated by; None where no rotated ones are asked for."""
        if not any(form.rotated for form in self.forms):
            return None
        return self.rotation or rotation_of(encoder, self.prepared, self._embedding())

    def _of_runs(self, runs: RunFiles, part: str, metrics: Sequence[str], *, k: int | None) -> dict[str, TaskResult]:
        results = {}
        for task in self.opened(part):
            name, audited = task.name.removesuffix(f".{part}"), task.audit.check()
            score, row = runs.results(task, name, k or depth([*metrics]) or 1000)
            results[name] = result_of(task, score, row, metrics, ties=self.rules.ties, audited=audited)
        return results

    def embedded(self, encoder: DualEncoder | EmbedsRecords, part: str) -> list[Embedded]:
        """The tasks of one part with both sides embedded field by field, to be measured with any field weights."""
        tasks = self.opened(part)
        pairs = embed_tasks(encoder, tasks, self._embedding())
        return [Embedded(task, *pair) for task, pair in zip(tasks, pairs, strict=True)]

    def _embedding(self, passing: bool = False) -> EmbedOptions:
        return EmbedOptions(
            self.batch_size, self.workers, features=self.features, cache=None if passing else self.cache,
            scratch=None if self.cache is None else self.cache.folder,
        )  # fmt: skip


def embedding_cache(config: RunConfig) -> ArrayCache | None:
    """Where a run's embeddings are kept; None for evaluate.cache_gb=0."""
    cache = _cache(config, "embeddings")
    return cache if cache.limit > 0 else None


def _cache(config: RunConfig, name: str) -> ArrayCache:
    return ArrayCache(local_folder(config.cache_dir) / name, int(config.evaluate.cache_gb * 1e9))


def measurement_of(evaluate: EvaluateConfig, data: Catalog, prepared: Prepared, **options: Any) -> Measurement:
    """What a config's evaluate asks of a prepared catalog; `options` are the other fields of Measurement."""
    return Measurement(
        prepared, evaluate.metrics, evaluate.tasks, rules=evaluate, weights=task_weights(data),
        titles=task_titles(data), batch_size=evaluate.batch_size, **options,
    )  # fmt: skip


def task_weights(data: Catalog) -> dict[str, dict[str, float]]:
    """The document weights that tasks of a catalog (or of a kind of them) have for themselves."""
    return {
        file_name(kind): dict(task.document)
        for name, task in data.tasks.items()
        for kind in (task.kinds or [name])
        if task.document
    }


def frozen_features(encoder: Embedder, prepared: Prepared, config: RunConfig, *, training: bool = False) -> Features:
    """Outputs of the encoder's frozen trunks, computed once over the catalog and kept: training and evaluation read
    them. None with `train.cache_features=false`, nor for `training` on images that are augmented.

    They are kept under evaluate.cache_gb, the least recently used going first, but never those returned here.
    """
    augmented = training and config.train.augment
    if not config.train.cache_features or augmented or not isinstance(encoder, DualEncoder):
        return {}
    cache = _cache(config, "features")
    stores: dict[SideName, Records] = {"query": prepared.queries, "document": prepared.documents}
    cache.folder.mkdir(parents=True, exist_ok=True)
    with locked(cache.folder / ".lock", waiting_for="the features of the frozen trunks"):
        return cached_features(encoder, stores, cache, workers=config.train.workers)


def embedding_of(encoder: Embedder, prepared: Prepared, config: RunConfig, **options: Any) -> EmbedOptions:
    """How a run's model embeds the catalog, with the features of its frozen trunks; `options`: further fields."""
    features = frozen_features(encoder, prepared, config)
    return EmbedOptions(config.evaluate.batch_size, config.train.workers, features=features, **options)


def describe_features(encoder: DualEncoder, prepared: Prepared, config: RunConfig, features: Features) -> None:
    """Tells a head that standardises (model.head=stages) the statistics of the training products' features, unless an
    earlier run has told it. features: those that training reads, if any.

    Raises ConfigError for a head whose tower no field uses, and where no features are kept.
    """
    head = image_head(encoder.model.visual)
    if head is None:
        return
    side: SideName = "document" if fields_of(encoder.schema.document, Modality.image) else "query"
    names = fields_of(encoder.schema.side(side), Modality.image)
    if not names:
        raise ConfigError(f"model.head={head.kind} reads images, and no field of this catalog is one: leave it out.")
    if not head.lacks_statistics:
        return
    if not config.train.cache_features:
        raise ConfigError(
            f"model.head={head.kind} is standardised by the cached features of the training products: leave "
            "train.cache_features=true, or choose model.head=mlp."
        )
    features = features or frozen_features(encoder, prepared, config)
    records, pairs = (prepared.documents, prepared.pairs.document) if side == "document" else (
        prepared.queries, prepared.pairs.query
    )  # fmt: skip
    mean, deviation = statistics(records, {name: features[side][name] for name in names}, np.unique(pairs))
    head.standardise(torch.from_numpy(mean), torch.from_numpy(deviation))
