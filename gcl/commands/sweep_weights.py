"""`gcl sweep-weights run=…`: field weights found on the dev half, reported on the test half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.data.titles import task_titles
from gcl.errors import ConfigError
from gcl.files.atomic import write_json, write_text
from gcl.files.progress import doing
from gcl.options import number
from gcl.retrieval.metrics.metrics import depth, parse_metric
from gcl.run.console import say, speak_plainly, terminal_width
from gcl.run.field_weights import written
from gcl.run.folder import config_of, new_folder, run_of
from gcl.schema import SIDES, SideName, SideWeights
from gcl.table import Table

if TYPE_CHECKING:
    from gcl.model.dual_encoder import DualEncoder
    from gcl.retrieval.analysis.weight_sweep import Embedded, Swept, Tried
    from gcl.retrieval.report import Row
    from gcl.run.measurement import Measurement


@dataclass
class SweepOptions:
    """Options of `gcl sweep-weights`."""

    steps: int = number(20, least=1, most=10_000)
    """The weights that are tried are multiples of 1 / steps."""
    most: int = number(200, least=1)
    """At most this many combinations are tried per side."""
    metric: str | None = None
    """The metric that chooses the weights; null: the first of the run's own evaluate.headline."""
    checkpoint: str = "tuned"
    """Which model of a run is measured: tuned or base."""
    top: int = number(10, least=1)
    """Number of combinations shown per side."""


@dataclass
class Sweep:
    """The outcome of a sweep. tried: by side, best first; rows: current against best weights, by half."""

    model: str
    metric: str
    now: SideWeights
    best: SideWeights
    swept: dict[SideName, Swept]
    rows: dict[str, list[Row]]

    @property
    def tried(self) -> dict[SideName, list[Tried]]:
        return {side: one.tried for side, one in self.swept.items()}


def run(options: SweepOptions, overrides: Overrides) -> Path:
    """Measures a run (or data=… model=…) with many weights, prints tables, returns the folder of the files."""
    speak_plainly()
    _check(options)
    config = config_of(overrides)
    metric = options.metric or config.evaluate.headline[0]
    metrics = list(dict.fromkeys([metric, *config.evaluate.headline]))
    sweep = _swept(config, options, metric, metrics)
    shown = config.evaluate.headline if options.metric is None else metrics
    _say_rows(sweep, [row for row in sweep.rows["test"] if row.metric in shown])
    folder = _folder(config)
    _write(folder, config, sweep)
    say(f"\nAll combinations and both halves: {folder / 'weights.json'}, {folder / 'weights.csv'}")
    say(_advice(sweep))
    return folder


def _check_fields(config: RunConfig) -> None:
    weights = config.data.schema.weights
    if all(sum(weight > 0 for weight in weights[side].values()) < 2 for side in SIDES):
        raise ConfigError(
            f"{config.data.name} has one field on each side (of weight above 0), so there are no weights to tune."
        )


def _swept(config: RunConfig, options: SweepOptions, metric: str, metrics: Sequence[str]) -> Sweep:
    """Embeds both halves once, chooses on the dev half, one side after the other, and compares on both halves."""
    _check_fields(config)
    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)
    with doing("Loading torch"):
        from gcl.retrieval.analysis.weight_sweep import weights_table
        from gcl.run.measurement import Measurement, embedding_cache, frozen_features, task_weights
        from gcl.run.weighing import weigh

    label, encoder = _encoder(config, options.checkpoint)
    measurement = Measurement(
        prepared, metrics, config.evaluate.tasks, weights=task_weights(config.data),
        batch_size=config.evaluate.batch_size, cache=embedding_cache(config),
        features=frozen_features(encoder, prepared, config), titles=task_titles(config.data),
    )  # fmt: skip
    _check_halves(measurement, config)
    halves = {part: measurement.embedded(encoder, part) for part in ("dev", "test")}
    queries, schema = sum(len(one.task.queries) for one in halves["dev"]), config.data.schema
    say(f"\nFinding weights for {label} on {config.data.name}: {metric} over {queries:,} queries of the dev half.")
    if encoder.by_query is not None:
        say("Its queries give the weights of the document's fields; what is tried here are constant weights.")
    swept, best = weigh(halves["dev"], metrics, schema, steps=options.steps, most=options.most)
    for side, one in swept.items():
        say(f"\n{side.capitalize()} fields, dev half, the best {options.top} of {len(one.tried)}:")
        say(weights_table(one.tried, options.top).text())
        say(f"Taken: {written(one.best.weights)}. {_WHY}")
    sweep = Sweep(label, metric, schema.weights, best, swept, {})
    for part, tasks in halves.items():
        sweep.rows[part] = _compared(sweep, part, tasks, metrics, seed=config.seed)
    return sweep


_WHY = "Of those within one standard error of the best, it is nearest to the present weights; no field alone is better."


def _compared(sweep: Sweep, part: str, tasks: Sequence[Embedded], metrics: Sequence[str], *, seed: int) -> list[Row]:
    """The current weights against the best ones, on one half."""
    from gcl.retrieval.report import comparison_rows

    k = depth([*metrics]) or 1000
    now, best = (
        {
            one.task.name.removesuffix(f".{part}"): one.measured(weights["query"], weights["document"], metrics, k)
            for one in tasks
        }
        for weights in (sweep.now, sweep.best)
    )
    return comparison_rows(now, best, seed=seed)


def _check(options: SweepOptions) -> None:
    if options.checkpoint not in ("base", "tuned"):
        raise ConfigError(f"checkpoint={options.checkpoint}: expected base or tuned.")
    if options.metric is not None:
        parse_metric(options.metric)


def _check_halves(measurement: Measurement, config: RunConfig) -> None:
    for part in ("dev", "test"):
        if not measurement.opened(part):
            raise ConfigError(
                f"{config.data.name} has no query in its {part} half: weights are chosen on the dev half and reported "
                "on the test half (data.split.dev divides them)."
            )


def _encoder(config: RunConfig, checkpoint: str) -> tuple[str, DualEncoder]:
    """(name for the tables, model): a run's checkpoint, or the model as it comes."""
    from gcl.run.build import assemble_encoder, seed_everything
    from gcl.run.contestants import both_encoders

    if config.run is not None:
        base, tuned = both_encoders(run_of(config), config.data.schema)
        return f"{checkpoint} of {config.run}", base if checkpoint == "base" else tuned
    seed_everything(config)
    return config.model.label, assemble_encoder(config.model, config.data.schema).eval()


def _say_rows(sweep: Sweep, rows: Sequence[Row]) -> None:
    from gcl.retrieval.report import results_table

    def both(weights: SideWeights) -> str:
        return "; ".join(written(weights[side]) for side in sweep.swept)

    say(f"\nTest half, {both(sweep.now)}  ->  {both(sweep.best)}:")
    say(results_table(rows).renamed(lambda name: _RENAMED.get(name, name)).text(terminal_width()))


def _advice(sweep: Sweep) -> str:
    """What the test half says about the new weights, and how to use them on the command line."""
    if sweep.best == sweep.now:
        return "No weights were better on the dev half than the present ones by more than luck."
    rows = [row for row in sweep.rows["test"] if row.metric == sweep.metric and row.p_corrected < 0.05]
    changes = [row.comparison.change for row in rows]
    settings = " ".join(
        f"data.{side}.{name}.weight={value:g}" for side in sweep.swept for name, value in sweep.best[side].items()
    )
    if any(change < 0 for change in changes):
        verdict = (
            f"{sweep.metric} is worse on a task of the test half: better keep the present weights. To use the new ones"
        )
    elif changes:
        verdict = f"{sweep.metric} is also better on the test half (p < 0.05 after Holm's correction). To use them"
    else:
        verdict = f"{sweep.metric} shows no clear difference on the test half. To use them all the same"
    return f"{verdict}:\n  {settings}"


def _write(folder: Path, config: RunConfig, sweep: Sweep) -> None:
    from gcl.run.environment import describe_environment

    content = {
        "model": sweep.model,
        "catalog": config.data.name,
        "chosen_by": f"{sweep.metric}, mean over the dev tasks; {_WHY}",
        "now": sweep.now,
        "best": sweep.best,
        # the two models of a comparison are two weightings here
        **{part: [{_RENAMED.get(key, key): value for key, value in row.record().items()} for row in rows]
           for part, rows in sweep.rows.items()},
        "tried": {side: [{"weights": t.weights, **t.means} for t in tried] for side, tried in sweep.tried.items()},
        "environment": describe_environment(),
    }  # fmt: skip
    write_json(folder / "weights.json", content)
    rows = ({"side": side, **one.weights, **one.means} for side, tried in sweep.tried.items() for one in tried)
    write_text(folder / "weights.csv", Table.of_records(rows).csv())


_RENAMED = {"base": "now", "tuned": "best"}


def _folder(config: RunConfig) -> Path:
    if config.out is not None:
        return Path(config.out)
    if config.run is not None:
        return new_folder(Path(config.run) / "weights" / config.data.name)
    return new_folder(Path("outputs") / config.data.name / config.model.label / "weights")
