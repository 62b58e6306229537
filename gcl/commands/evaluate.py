"""`evaluate.py`: runs and models measured on a catalog's held-out tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.errors import ConfigError
from gcl.files.progress import doing
from gcl.options import path
from gcl.run.closing import check_gate, close_gate, say_verdicts
from gcl.run.console import say, speak_plainly
from gcl.run.early import check_measuring, split_label
from gcl.run.folder import config_of, new_folder, run_of
from gcl.run.launch import launched_ranks

if TYPE_CHECKING:
    from gcl.model.rotation import Rotation
    from gcl.retrieval.tasks.judgments import Judgments
    from gcl.run.contestants import Contestant
    from gcl.run.outcome import Outcome
    from gcl.run.retention import Retention

_DEV = "evaluate.part={part}: the dev half chose the run's checkpoint, so its figures are slightly optimistic."


@dataclass
class EvaluateOptions:
    """Options of `gcl evaluate`."""

    judgments: str | None = path()
    """Judgments to add to the tasks for this measurement, as gcl judge and the report page write them: query_id,
    product_id, grade (0 to 4), perhaps task. A judgment of a pair that a task has already judged replaces it."""


def run(options: EvaluateOptions, overrides: Overrides) -> Path:
    """Measures what the command line names, prints one table, returns the folder with the figures.

    run=<folder>: its base and its best checkpoint, on its own catalog or on data=<other>;
    data=… model=…: a model as it comes; data=… models=[run:<folder>, siglip-B, local-dir:<folder>,
    embeddings:<file>.parquet]: several, each compared with the first.
    """
    speak_plainly()
    config, config_dir = config_of(overrides), overrides.config_dir
    given = _judgments(options, config)
    benchmark = config.evaluate.benchmark is not None
    catalogs = [] if benchmark else _catalogs(config, overrides)
    check_gate(config)
    check_measuring(config, catalogs, config_dir)
    with launched_ranks(config.trainer):
        if not benchmark:
            return _measured(config, config_dir, catalogs, given)
        with doing("Loading torch"):
            from gcl.commands.benchmark import run_benchmark

        return run_benchmark(config, config_dir, write)


def _measured(config: RunConfig, config_dir: str | None, catalogs: list[Catalog], given: Judgments | None) -> Path:
    with doing("Loading torch"):
        from gcl.distributed.ranks import of_first_rank, world
        from gcl.run.contestants import contestants
        from gcl.run.tables import summary

    outcome = measure(
        config, catalogs, lambda catalog: contestants(config, catalog, config_dir=config_dir), judgments=given
    )
    first = world()[0] == 0
    folder = Path(of_first_rank(str(_folder(config) if first else "")))
    if not first:
        return folder
    with doing("Writing the report"):
        write(outcome, folder)
    say("\n" + outcome.extras.around(summary(outcome.models, config.evaluate.headline, outcome.notes)))
    say(
        f"\n{folder}\n  report.html   results.csv and results.md (the table)   results.json (with provenance)\n"
        "  metrics.json   queries.parquet (every query)   tasks/ (TREC runs and qrels)"
    )
    say_verdicts(
        outcome.verdicts, next(iter(outcome.models)), config, run_of(config) if config.run is not None else None
    )
    close_gate(config.evaluate.gate, outcome.verdicts)
    return folder


def measure(
    config: RunConfig,
    catalogs: Sequence[Catalog],
    entries: Callable[[Catalog], Iterable[Contestant]],
    *,
    judgments: Judgments | None = None,
) -> Outcome:
    """The figures of every contestant on every catalog. entries: the contestants, read through a catalog's schema."""
    from gcl.run.extras import columns_for, extras_of
    from gcl.run.measurement import embedding_cache
    from gcl.run.outcome import Outcome
    from gcl.run.retention import Retention

    settings = config.evaluate
    outcome = Outcome(settings, settings.part, title="", seed=config.seed)
    columns, retention = {}, Retention(config, embedding_cache(config))
    for catalog in catalogs:
        prefix = f"{catalog.name}/" if len(catalogs) > 1 else ""
        columns[prefix] = columns_for(settings, catalog, config.cache_dir)
        _measure(config, catalog, outcome, entries, prefix=prefix, retention=retention, judgments=judgments)
    outcome.title = f"{' and '.join(outcome.models)} on {' and '.join(catalog.name for catalog in catalogs)}"
    with doing("Computing intervals"):
        outcome.extras = extras_of(settings, outcome.models, outcome.tasks, columns, retention.kept(config.seed))
    return outcome


def write(outcome: Outcome, folder: Path) -> None:
    """The files of a measurement and its page."""
    outcome.write(folder)
    outcome.write_page(folder / "report.html", {})


def _judgments(options: EvaluateOptions, config: RunConfig) -> Judgments | None:
    """What judgments= names, read before anything is measured."""
    if options.judgments is None:
        return None
    if config.evaluate.benchmark is not None or config.evaluate.sets:
        raise ConfigError("judgments= belongs to one catalog: measure that one alone, with data=… or run=….")
    from gcl.retrieval.tasks.judgments import read_judgments

    return read_judgments(options.judgments)


def _catalogs(config: RunConfig, overrides: Overrides) -> list[Catalog]:
    """data=…, or the several that evaluate.sets names."""
    if not config.evaluate.sets:
        return [config.data]
    if own := [one for one in overrides.settings if one.lstrip("+~").startswith(("data=", "data."))]:
        raise ConfigError(
            f"{own[0]} concerns one catalog, but evaluate.sets={config.evaluate.sets} names several: put it into their "
            "YAMLs, or leave evaluate.sets out."
        )
    catalogs = [Overrides([f"data={name}"], overrides.config_dir).config().data for name in config.evaluate.sets]
    return catalogs if config.run is None else [run_of(config).weighted(one) for one in catalogs]


def _measure(
    config: RunConfig, catalog: Catalog, outcome: Outcome, entries: Callable[[Catalog], Iterable[Contestant]], *,
    prefix: str, retention: Retention, judgments: Judgments | None,
) -> None:  # fmt: skip
    """Every contestant on one catalog, into `outcome`, and on the general sets, into `retention`."""
    from gcl.data.prepare.mixed import open_catalog
    from gcl.files.digest import file_sha256
    from gcl.model.dual_encoder import DualEncoder
    from gcl.retrieval.embedding.quantize import forms_of
    from gcl.run.measurement import embedding_cache, frozen_features, measurement_of
    from gcl.run.weighing import beaten_by_a_field

    settings = config.evaluate
    prepared = open_catalog(catalog, config.cache_dir)
    measurement = measurement_of(
        settings, catalog, prepared, prefix=prefix, cache=embedding_cache(config),
        forms=forms_of(settings.compress), judgments=judgments,
    )  # fmt: skip
    outcome.tasks += measurement.opened(settings.part)
    source: dict[str, Any] = {"fingerprint": prepared.fingerprint, "counts": prepared.counts["tasks"]}
    outcome.sources[catalog.name] = source
    if judgments is not None:
        names = [outcome.name_of(task) for task in outcome.tasks]
        outcome.notes += judgments.notes(queries=prepared.queries.ids, products=prepared.documents.ids, tasks=names)
        source["judgments"] = {"file": str(judgments.path), "sha256": file_sha256(judgments.path)}
    trained = config.run is not None or any(split_label(name)[1].startswith("run:") for name in config.models)
    if trained and settings.part != "test" and (note := _DEV.format(part=settings.part)) not in outcome.notes:
        outcome.notes.append(note)
    for entry in entries(catalog):
        part = "all queries" if settings.part == "all" else f"{settings.part} half"
        say(f"Measuring {entry.label} on {catalog.name} ({part}).")
        if elsewhere := entry.weights_from_elsewhere(catalog):
            entry = entry.with_constant_weights(
                f"because weights by query were learned on other data than {catalog.name}"
            )
        measurement.features = frozen_features(entry.encoder, prepared, config)
        measurement.rotation = _rotation(entry) if settings.compress else None
        embedded, schema = None, catalog.schema
        if isinstance(entry.encoder, DualEncoder) and elsewhere:
            embedded, schema = measurement.embedded(entry.encoder, settings.part), entry.encoder.schema
        results = measurement(entry.encoder, settings.part, k=settings.depth, embedded=embedded)
        if embedded is not None:
            beaten = beaten_by_a_field(catalog.name, schema, embedded, settings.headline[0])
            outcome.notes += [] if beaten is None else [f"{beaten.sentence}: {beaten.setting}"]
        outcome.models.setdefault(entry.label, {}).update(results)
        outcome.contestants[entry.label] = entry.facts()
        retention.measure(entry.label, entry.encoder)
        outcome.notes += [note for note in entry.notes if note not in outcome.notes]


def _rotation(entry: Contestant) -> Rotation | None:
    """The one that exports of a run have; None: there is no export yet."""
    from gcl.model.dual_encoder import DualEncoder
    from gcl.run.folder import RunFolder
    from gcl.run.rotation import kept_rotation

    if entry.checkpoint is None or not isinstance(entry.encoder, DualEncoder):
        return None
    return kept_rotation(RunFolder(entry.checkpoint.parents[1]), entry.encoder)


def _folder(config: RunConfig) -> Path:
    """out=, or a new folder named by the time: no evaluation overwrites another."""
    if config.out is not None:
        return Path(config.out)
    if config.run is not None:
        return new_folder(Path(config.run) / "evaluations" / config.data.name)
    name = "+".join(config.evaluate.sets) or config.data.name
    return new_folder(Path("outputs") / name / ("several" if config.models else config.model.label) / "evaluation")
