"""`gcl sweep-weights run=…`: field weights found on the dev half, reported on the test half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.files.atomic import write_json, write_text
from gcl.files.progress import doing
from gcl.options import number
from gcl.retrieval.metrics.metrics import depth, parse_metric
from gcl.run.console import say, speak_plainly, terminal_width
from gcl.run.folder import config_of, new_folder, run_of
from gcl.schema import SIDES, SideName
from gcl.table import Table

if TYPE_CHECKING:
    from gcl.model.dual_encoder import DualEncoder
    from gcl.retrieval.analysis.weight_sweep import Embedded, Tried
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
    """The metric that chooses the weights; null: the run's own evaluate.monitor."""
    checkpoint: str = "tuned"
    """Which model of a run is measured: tuned or base."""
    top: int = number(10, least=1)
    """Number of combinations shown per side."""


Weights = dict[SideName, dict[str, float]]  # side -> field -> weight


@dataclass
class Sweep:
    """The outcome of a sweep. tried: by side, best first; rows: current against best weights, by half."""

    model: str
    metric: str
    now: Weights
    best: Weights
    tried: dict[SideName, list[Tried]]
    rows: dict[str, list[Row]]

    @property
    def sides(self) -> list[SideName]:
        return list(self.tried)


def run(options: SweepOptions, overrides: Overrides) -> Path:
    """Measures a run (or data=… model=…) with many weights, prints tables, returns the folder of the files."""
    speak_plainly()
    _check(options)
    config = config_of(overrides)
    sides = _sides(config)
    metric = options.metric or config.evaluate.monitor
    metrics = list(dict.fromkeys([metric, *config.evaluate.headline]))
    sweep = _swept(config, options, sides, metric, metrics)
    shown = config.evaluate.headline if options.metric is None else metrics
    _say_rows(sweep, [row for row in sweep.rows["test"] if row.metric in shown])
    folder = _folder(config)
    _write(folder, config, sweep)
    say(f"\nAll combinations and both halves: {folder / 'weights.json'}, {folder / 'weights.csv'}")
    say(_advice(sweep))
    return folder


def _sides(config: RunConfig) -> list[SideName]:
    """The sides with weights to find, the document's first."""
    sides: list[SideName] = ["document", "query"]
    sides = [side for side in sides if len(config.data.schema.side(side)) > 1]
    if not sides:
        raise ConfigError(f"{config.data.name} has one field on each side, so there are no weights to tune.")
    return sides


def _swept(
    config: RunConfig, options: SweepOptions, sides: Sequence[SideName], metric: str, metrics: Sequence[str]
) -> Sweep:
    """Embeds both halves once, tries weights on the dev half, one side after the other, and compares on both halves."""
    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)
    with doing("Loading torch"):
        from gcl.run.measurement import Measurement, embedding_cache, frozen_features

    label, encoder = _encoder(config, options.checkpoint)
    measurement = Measurement(
        prepared, metrics, config.evaluate.tasks, batch_size=config.evaluate.batch_size, cache=embedding_cache(config),
        features=frozen_features(encoder, prepared, config),
    )  # fmt: skip
    _check_halves(measurement, config)
    halves = {part: measurement.embedded(encoder, part) for part in ("dev", "test")}
    watched = config.evaluate.monitor_tasks
    chosen_by = [one for one in halves["dev"] if watched is None or one.task.name.removesuffix(".dev") in watched]
    chosen_by = chosen_by or halves["dev"]
    queries = sum(len(one.task.queries) for one in chosen_by)
    say(f"\nFinding weights for {label} on {config.data.name}: {metric} over {queries:,} queries of the dev half.")
    now: Weights = {side: {name: f.weight for name, f in config.data.schema.side(side).items()} for side in SIDES}
    sweep = Sweep(label, metric, now, dict(now), {}, {})
    for side in sides:
        _sweep_side(sweep, side, chosen_by, [*halves["dev"], *halves["test"]], metrics, options)
    for part, tasks in halves.items():
        sweep.rows[part] = _compared(sweep, part, tasks, metrics, seed=config.seed)
    return sweep


def _sweep_side(
    sweep: Sweep, side: SideName, chosen_by: Sequence[Embedded], everywhere: Sequence[Embedded],
    metrics: Sequence[str], options: SweepOptions,
) -> None:  # fmt: skip
    """Tries weights for one side, with the best ones so far on the other, and prints the best of them."""
    from gcl.retrieval.analysis.weight_sweep import normalised, sweep_weights, usable, weights_table

    now, other = sweep.now[side], sweep.best["query" if side == "document" else "document"]
    tried = sweep_weights(
        chosen_by, metrics, side=side, others=other, start=now, steps=options.steps, most=options.most
    )
    if tried[0].weights != normalised(now):
        sweep.best[side] = usable(tried[0].weights, [getattr(one, side) for one in everywhere])
    sweep.tried[side] = tried
    say(f"\n{side.capitalize()} fields, dev half, the best {options.top} of {len(tried)}:")
    say(weights_table(tried, options.top).text())


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

    def written(weights: Weights) -> str:
        return " ".join(f"{name}={value:.3g}" for side in sweep.sides for name, value in weights[side].items())

    say(f"\nTest half, {written(sweep.now)}  ->  {written(sweep.best)}:")
    say(results_table(rows).renamed(lambda name: _RENAMED.get(name, name)).text(terminal_width()))


def _advice(sweep: Sweep) -> str:
    """What the test half says about the new weights, and how to use them on the command line."""
    if sweep.best == sweep.now:
        return "No weights were better on the dev half than the present ones."
    rows = [row for row in sweep.rows["test"] if row.metric == sweep.metric and row.p_corrected < 0.05]
    changes = [row.comparison.change for row in rows]
    settings = " ".join(
        f"data.{side}.{name}.weight={value:g}" for side in sweep.sides for name, value in sweep.best[side].items()
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
        "chosen_by": f"{sweep.metric}, mean over the dev tasks",
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
