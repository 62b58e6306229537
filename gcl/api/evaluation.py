"""Models and other encoders measured on judged queries: `gcl.evaluate`, `Evaluation`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gcl.api.catalog import Tables
from gcl.api.model import Model, called
from gcl.api.tabular import Tabular
from gcl.commands.evaluate import measure, write
from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.errors import ConfigError
from gcl.retrieval.analysis.verdict import Verdict, spoken
from gcl.retrieval.embedding.own import Encoder, OwnEncoder
from gcl.retrieval.report import contest_rows, results_records, results_table
from gcl.run.contestants import Contestant, contestants, named
from gcl.run.early import check_contestant, check_measuring
from gcl.run.folder import RunFolder, config_of
from gcl.run.outcome import Outcome
from gcl.run.tables import summary, table_rows
from gcl.schema import Schema

Measured = Model | Encoder | Callable | str | Path | Any


def evaluate(
    models: Measured | Sequence[Measured] | Mapping[str, Measured],
    *,
    products: Any = None,
    queries: Any = None,
    qrels: Any = None,
    data: str | None = None,
    config_dir: str | None = None,
    query: Mapping[str, Any] | None = None,
    document: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Evaluation:  # fmt: skip
    """Measures as `gcl evaluate` does, with its numbers.

    models: a Model, a Run, a run folder, a name as of `gcl.load`, an `Encoder` or one function for both sides; several
        in a list, or a dict by the names of the table. Each is compared with the first. One run alone is measured with
        the model it began with.
    products, queries, qrels: frames or files: the products, the searches (query_id and query) and what answers them
        (query_id, product_id, score); which column is what is found out as by `gcl init`. qrels may hold the searches.
    data: instead, a catalog of conf/data or of `config_dir`; without any, a run's own.
    query, document: the fields, as of `gcl.load`; None: those of the first Model or run, else found out.
    settings: of `gcl evaluate`, for example **{"evaluate.metrics": ["ndcg@10"], "cache_dir": "prepared"}.
    Raises ValueError, KeyError or FileNotFoundError, in sentences.
    """
    entries = _entries(models)
    alone = _run_alone(models, entries)
    own = _fields_of(entries) if products is not None else None
    tables = Tables(
        {"products": products, "queries": queries, "qrels": qrels}, data,
        query=own.query if own and query is None else query,
        document=own.document if own and document is None else document,
    )  # fmt: skip
    if products is None and (tables.given or (alone is None and data is None)):
        raise ConfigError("What is searched? Give products=, queries= and qrels=, or data=, or one run alone.")
    overrides = tables.overrides(settings, command="evaluate", config_dir=config_dir, training=False)
    if alone is not None:
        overrides = replace(overrides, values={**overrides.values, "run": str(alone)})
    config = config_of(overrides)
    if alone is not None:
        check_measuring(config, [config.data], config_dir)
        return Evaluation(measure(config, [config.data], lambda catalog: contestants(config, catalog)))
    for entry in entries.values():
        if isinstance(entry, str):
            check_contestant(entry, config_dir=config_dir, trust=config.trust)
    return Evaluation(measure(config, [config.data], lambda catalog: _opened(entries, config, catalog, config_dir)))


def _entries(models: Any) -> dict[str | int, Any]:
    """{label: a Model, an OwnEncoder, or what a contestant is called}; a number for a label that is not given."""
    if isinstance(models, Mapping):
        several: dict[Any, Any] = {str(label): one for label, one in models.items()}
    else:
        several = dict(enumerate(models if isinstance(models, list | tuple) else [models]))
    if not several:
        raise ConfigError("There is no model to measure.")
    return {label: _entry(one) for label, one in several.items()}


def _entry(model: Any) -> Any:
    if isinstance(model, Model | OwnEncoder):
        return model
    if isinstance(model, str | Path) or hasattr(model, "path"):
        return called(model)
    if isinstance(model, Encoder) or callable(model):
        return OwnEncoder(model)
    raise ConfigError(
        f"What is measured is a model, a run, a name or an encoder with embed_queries and embed_documents; given a "
        f"value of the type {type(model).__name__}."
    )


def _fields_of(entries: Mapping[str | int, Any]) -> Schema | None:
    """The fields of the first entry, if it is a Model or a run."""
    first = next(iter(entries.values()))
    if isinstance(first, Model):
        return first.encoder.schema
    if isinstance(first, str) and first.startswith("run:"):
        return RunFolder(Path(first.removeprefix("run:"))).read_config().data.schema
    return None


def _run_alone(models: Any, entries: Mapping[str | int, Any]) -> Path | None:
    """The folder of the only model, if it is a run: base and tuned are compared."""
    first = next(iter(entries.values()))
    if len(entries) > 1 or isinstance(models, Mapping) or not isinstance(first, str) or not first.startswith("run:"):
        return None
    return Path(first.removeprefix("run:"))


def _opened(
    entries: Mapping[str | int, Any], config: RunConfig, catalog: Catalog, config_dir: str | None
) -> Iterator[Contestant]:
    taken: set[str] = set()
    for label, entry in entries.items():
        if isinstance(entry, Model):
            found = Contestant(entry.name, entry.encoder.with_schema(_weighted_as(entry, catalog.schema)))
        elif isinstance(entry, OwnEncoder):
            found = Contestant(str(entry.facts()["encoder"].rpartition(".")[2]), entry)
        else:
            found = named(entry, config, catalog, config_dir=config_dir)
        name = label if isinstance(label, str) else found.label
        if name in taken:
            name = f"{name} ({len(taken) + 1})"
        taken.add(name)
        yield replace(found, label=name)


def _weighted_as(model: Model, schema: Schema) -> Schema:
    """The catalog's fields with the weights and prompts that the model has for those of these names."""
    own = model.encoder.schema
    sides = [
        {name: replace(spec, weight=mine[name].weight, prompt=mine[name].prompt) if name in mine else spec
         for name, spec in side.items()}
        for side, mine in ((schema.query, own.query), (schema.document, own.document))
    ]  # fmt: skip
    return Schema(*sides)


class Evaluation(Tabular):
    """What was measured. `print` and a notebook show the table of the headline metrics; as a DataFrame it is
    results.csv: one row for each task, metric and model with its interval and, but for the first, change and p.

    outcome: everything, as the commands have it.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """{model: {task: {metric: mean}}}"""
        return {
            label: {task: result.means for task, result in results.items()}
            for label, results in self.outcome.models.items()
        }

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """{model: what to do with it}, for each but the first."""
        return self.outcome.verdicts

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return results_records(contest_rows(self.outcome.models, self.outcome.settings.headline)).records()

    def to_dicts(self) -> list[dict[str, Any]]:
        """{task, metric, model, value, low, high, n, change, …}"""
        return self._records

    def save(self, folder: str | Path) -> Path:
        """Writes the files of `gcl evaluate`, per-query values and TREC files too; returns the path of the page."""
        write(self.outcome, Path(folder))
        return Path(folder) / "report.html"

    @property
    def _said(self) -> list[str]:
        """The verdicts, each with what it is about."""
        base = next(iter(self.outcome.models))
        return [spoken(label, base, verdict) for label, verdict in self.verdicts.items()]

    def __repr__(self) -> str:
        said = [f"{line}." for line in self._said]
        return "\n".join([summary(self.outcome.models, self.outcome.settings.headline, self.outcome.notes), *said])

    def _repr_html_(self) -> str:
        from html import escape

        table = results_table(table_rows(self.outcome.models, self.outcome.settings.headline))
        said = "".join(f"<p>{escape(line)}.</p>" for line in self._said)
        return table.html() + said
