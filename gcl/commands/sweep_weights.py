"""`gcl sweep-weights run=…`: field weights found on the dev half, reported on the test half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gcl.commands.evaluate import config_of
from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.files.atomic import write_json, write_text
from gcl.retrieval.metrics.metrics import parse_metric
from gcl.run.console import say, speak_plainly
from gcl.run.folder import RunFolder
from gcl.table import Table


@dataclass
class SweepOptions:
    """Options of `gcl sweep-weights`."""

    steps: int = 20
    """Weights are multiples of 1 / steps."""
    most: int = 200
    """At most this many combinations are tried per side."""
    metric: str | None = None
    """The metric that chooses; null: the run's own evaluate.monitor."""
    checkpoint: str = "tuned"
    """Which model of a run: tuned, or base."""
    top: int = 10
    """Combinations shown per side."""


def run(options: SweepOptions, overrides: Overrides) -> Path:
    """Measures a run (or data=… model=…) with many weights, prints tables, returns the folder of the files."""
    speak_plainly()
    _check(options)
    config = config_of(overrides)
    metric = options.metric or config.evaluate.monitor
    metrics = list(dict.fromkeys([metric, *config.evaluate.headline]))

    sides = [side for side in ("document", "query") if len(config.data.schema.side(side)) > 1]
    if not sides:
        raise ConfigError(f"{config.data.name} has one field on each side: there are no weights to find.")

    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)
    from gcl.retrieval.analysis.weight_sweep import normalised, sweep_weights, usable, weights_table
    from gcl.retrieval.report import comparison_rows
    from gcl.run.measurement import Measurement, embedding_cache, frozen_features

    label, encoder = _encoder(config, options.checkpoint)
    measurement = Measurement(
        prepared, metrics, config.evaluate.tasks, batch_size=config.evaluate.batch_size, cache=embedding_cache(config),
        features=frozen_features(encoder, prepared, config),
    )  # fmt: skip
    _check_halves(measurement, config)
    dev, test = (measurement.embedded(encoder, part) for part in ("dev", "test"))
    watched = config.evaluate.monitor_tasks
    chosen_by = [one for one in dev if watched is None or one.task.name.removesuffix(".dev") in watched] or dev
    queries = sum(len(one.task.queries) for one in chosen_by)
    say(f"\nFinding weights for {label} on {config.data.name}: {metric} over {queries:,} searches of the dev half.")
    now = {side: {n: f.weight for n, f in config.data.schema.side(side).items()} for side in ("query", "document")}
    best, tried = dict(now), {}
    for side in sides:
        other = best["query" if side == "document" else "document"]
        tried[side] = sweep_weights(
            chosen_by, metrics, side=side, others=other, start=now[side], steps=options.steps, most=options.most
        )
        fields = [getattr(one, side) for one in (*dev, *test)]
        if tried[side][0].weights != normalised(now[side]):
            best[side] = usable(tried[side][0].weights, fields)
        say(f"\n{side.capitalize()} fields, dev half, the best {options.top} of {len(tried[side])}:")
        say(weights_table(tried[side], options.top).text())
    rows = {}
    for part, halves in (("dev", dev), ("test", test)):
        first, second = (
            {
                one.task.name.removesuffix(f".{part}"): one.measured(
                    w["query"], w["document"], metrics, _depth(metrics)
                )
                for one in halves
            }
            for w in (now, best)
        )
        rows[part] = comparison_rows(first, second, seed=config.seed)
    say(f"\nTest half, {_words(now, sides)}  ->  {_words(best, sides)}:")
    say(_table(rows["test"], config.evaluate.headline if options.metric is None else metrics))
    folder = _folder(config)
    _write(folder, config, label, metric, now, best, tried, rows)
    say(f"\nAll combinations and both halves: {folder / 'weights.json'}, {folder / 'weights.csv'}")
    say(_advice(rows["test"], metric, now, best, sides))
    return folder


def _check(options: SweepOptions) -> None:
    if options.steps < 1 or options.most < 1:
        raise ConfigError(f"steps={options.steps} most={options.most}: both are at least 1.")
    if options.checkpoint not in ("base", "tuned"):
        raise ConfigError(f"checkpoint={options.checkpoint}: it is base or tuned.")
    if options.metric is not None:
        parse_metric(options.metric)


def _check_halves(measurement, config: RunConfig) -> None:
    for part in ("dev", "test"):
        if not measurement.opened(part):
            raise ConfigError(
                f"{config.data.name} has no search in its {part} half: weights are found on the one half and reported "
                "on the other (data.split.dev sets the halves)."
            )


def _encoder(config: RunConfig, checkpoint: str):
    """(name for the tables, model): a run's checkpoint, or the model as it comes."""
    from gcl.run import build as assembly
    from gcl.run.contestants import base_and_tuned

    if config.run is not None:
        found = next(
            c for c in base_and_tuned(RunFolder(Path(config.run)), config.data.schema) if c.label == checkpoint
        )
        return f"{found.label} of {config.run}", found.encoder
    assembly.seed_everything(config)
    return config.model.label, assembly.assemble_encoder(config.model, config.data.schema).eval()


def _depth(metrics: Sequence[str]) -> int:
    from gcl.retrieval.metrics.metrics import depth

    return depth(metrics) or 1000


def _table(rows, metrics: Sequence[str]) -> str:
    from gcl.retrieval.report import results_table

    table = results_table([row for row in rows if row.metric in metrics])
    return table.renamed(lambda name: _RENAMED.get(name, name)).text()


def _words(weights: Mapping[str, Mapping[str, float]], sides: Sequence[str]) -> str:
    return " ".join(f"{name}={value:.3g}" for side in sides for name, value in weights[side].items())


def _advice(rows, metric: str, now, best, sides: Sequence[str]) -> str:
    """What may be claimed of the test half, and the words for the command line."""
    if all(best[side] == now[side] for side in sides):
        return "Nothing was better on the dev half than the weights there are."
    clear = [row.comparison.change for row in rows if row.metric == metric and row.p_corrected < 0.05]
    words = " ".join(f"data.{side}.{name}.weight={value:g}" for side in sides for name, value in best[side].items())
    if any(change < 0 for change in clear):
        verdict = f"{metric} is worse on a task of the test half: better keep the weights there are. The words would be"
    elif clear:
        verdict = f"{metric} is better on the test half, too (p < 0.05 after Holm's correction). Use them with"
    else:
        verdict = f"{metric} shows no clear difference on the test half. The words would be"
    return f"{verdict}:\n  {words}"


def _write(folder: Path, config: RunConfig, label: str, metric: str, now, best, tried, rows) -> None:
    from gcl.run.environment import describe_environment

    content = {
        "model": label,
        "catalog": config.data.name,
        "chosen_by": f"{metric}, mean over the dev tasks",
        "now": now,
        "best": best,
        **{part: [row.record() for row in found] for part, found in rows.items()},
        "tried": {side: [{"weights": t.weights, **t.means} for t in found] for side, found in tried.items()},
        "environment": describe_environment(),
    }
    for part in ("dev", "test"):  # the two models of a report are two weightings here
        content[part] = [{_RENAMED.get(key, key): v for key, v in row.items()} for row in content[part]]
    write_json(folder / "weights.json", content)
    table = Table.of_records({"side": side, **t.weights, **t.means} for side, found in tried.items() for t in found)
    write_text(folder / "weights.csv", table.csv())


_RENAMED = {"base": "now", "tuned": "best"}


def _folder(config: RunConfig) -> Path:
    if config.out is not None:
        return Path(config.out)
    if config.run is not None:
        return Path(config.run) / "weights" / config.data.name
    return Path("outputs") / config.data.name / config.model.label / "weights"
