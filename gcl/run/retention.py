"""A run's retention sets of general data: opened before training, measured before, during and after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gcl.config.compose import catalog_of
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.files.arrays import ArrayCache
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.analysis.retention import Kept, drawn, exceeds, retained
from gcl.retrieval.embedding.embed import EmbedOptions
from gcl.retrieval.embedding.own import Embedder
from gcl.retrieval.evaluate import TaskResult, evaluate
from gcl.retrieval.settings import RetentionConfig
from gcl.retrieval.tasks.general import General, classification, read_folder
from gcl.retrieval.tasks.protocol import with_queries
from gcl.retrieval.tasks.task import from_prepared
from gcl.schema import Schema


class Retention:
    """Measures evaluate.retention: `(encoder) -> {set: {task: TaskResult}}`. Falsy if there is no set.

    base: the quick metrics of the untrained model, by set, after `remember` was called.
    """

    def __init__(self, config: RunConfig, cache: ArrayCache | None = None) -> None:
        self.sets = [open_set(name, spec, config) for name, spec in config.evaluate.retention.items()]
        self.batch_size, self.cache = config.evaluate.batch_size, cache
        self.base: dict[str, float] = {}
        self.results: dict[str, dict[str, dict[str, TaskResult]]] = {}

    def __bool__(self) -> bool:
        return bool(self.sets)

    def __call__(self, encoder: DualEncoder) -> dict[str, dict[str, TaskResult]]:
        return {one.name: self._measured(encoder, one, quick=False) for one in self.sets}

    def measure(self, label: str, encoder: Embedder) -> None:
        """Keeps a model's results under its name; precomputed embeddings cannot be measured on other sets."""
        if self.sets and label not in self.results and isinstance(encoder, DualEncoder):
            self.results[label] = self(encoder)

    def kept(self, seed: int = 0) -> dict[str, list[Kept]]:
        """What each model has kept compared with the first; a single model is compared with itself."""
        if not self.results:
            return {}
        base, *others = self.results
        return {
            label: retained(self.sets, self.results[base], self.results[label], who=_called(label, base), seed=seed)
            for label in others or [base]
        }

    def remember(self, encoder: DualEncoder) -> None:
        self.base = self.quick(encoder)

    def quick(self, encoder: DualEncoder) -> dict[str, float]:
        """{set: mean of its metric over its tasks}, on a sample of its queries."""
        values = {}
        for one in self.sets:
            means = [result.means[one.metric] for result in self._measured(encoder, one, quick=True).values()]
            values[one.name] = sum(means) / len(means)
        return values

    def columns(self, values: Mapping[str, float]) -> dict[str, float]:
        """The same values by the training curve's column names."""
        return {f"retention/{one.name}/{one.metric}": values[one.name] for one in self.sets}

    def within(self, values: Mapping[str, float]) -> bool:
        """Whether every set is within its limit."""
        return not any(exceeds(self.base[one.name] - values[one.name], one.limit) for one in self.sets)

    def _measured(self, encoder: DualEncoder, one: General, *, quick: bool) -> dict[str, TaskResult]:
        reading = encoder.with_schema(one.schema)
        reading.eval()
        results = evaluate(
            reading,
            one.quick if quick else one.tasks,
            [one.metric] if quick else list(one.metrics),
            embedding=EmbedOptions(self.batch_size, cache=None if quick else self.cache),
        )
        return {name.removesuffix(".test").removesuffix(".dev"): result for name, result in results.items()}


def _called(label: str, base: str) -> str:
    return "The model" if (base, label) == ("base", "tuned") else f"{label}, against {base},"


def open_set(name: str, spec: RetentionConfig, config: RunConfig) -> General:
    """Opens a retention set. Raises ConfigError, ValueError or OSError, with a sentence, if it cannot be used."""
    metric = spec.metric or ("hit@1" if spec.images else "ndcg@10")
    metrics = tuple(dict.fromkeys([metric, *(("hit@1", "hit@5") if spec.images else config.evaluate.headline)]))
    if spec.catalog:
        from gcl.data.prepare.mixed import open_catalog

        catalog = catalog_of(spec.catalog, untrusted=spec.untrusted, trust=config.trust)
        prepared = open_catalog(catalog, config.cache_dir)
        halves = {}
        for part in ("test", "dev"):
            names = [task for task, count in prepared.counts["tasks"].items() if count[part]["queries"]]
            halves[part] = [from_prepared(prepared, task, part) for task in names]
        schema, tasks, quick = catalog.schema, halves["test"], halves["dev"] or halves["test"]
        if not tasks:
            raise ConfigError(f"evaluate.retention.{name}: {spec.catalog} has no query in its test half.")
        if {t.name.rpartition(".")[0] for t in quick} != {t.name.rpartition(".")[0] for t in tasks}:
            quick = tasks  # a task without a dev half: one and the same mean everywhere
    elif spec.folder:
        task = read_folder(name, spec.folder)
        schema, tasks, quick = Schema(query=task.queries.side, document=task.corpus.side), [task], [task]
    else:
        assert spec.images is not None, "one of the three is given"
        task, schema = classification(
            name, Path(spec.images), image=spec.image, label=spec.label, classes=spec.classes, templates=spec.templates
        )
        tasks = quick = [task]
    if spec.sample is not None:
        quick = [with_queries(task, drawn(len(task.queries), spec.sample)) for task in quick]
    return General(name, schema, tasks, quick, metrics, metric, spec.limit)
