"""`train.py`: prepare, measure the model as it comes, fine-tune, measure again, report."""

from __future__ import annotations

import time

from gcl.commands.registry import NoOptions
from gcl.config.compose import Overrides, save_config
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.files.atomic import write_json
from gcl.retrieval.settings import Forgetting
from gcl.run.console import say, speak_plainly
from gcl.run.folder import RunFolder, new_run_folder
from gcl.run.resume import fit_or_stop, resume_path


def run(_: NoOptions, overrides: Overrides) -> None:
    train(overrides.config())


def train(config: RunConfig) -> RunFolder:
    """A whole run. Returns its folder; what it prints and writes is the product."""
    return _train(config)[0]


def train_for_sweep(config: RunConfig) -> float:
    """A whole run. Returns what chose its best checkpoint: the number that a sweep maximises."""
    return _train(config)[1]


def _train(config: RunConfig) -> tuple[RunFolder, float]:
    speak_plainly()
    for key in ("benchmark", "sets"):
        if getattr(config.evaluate, key):
            raise ConfigError(
                f"evaluate.{key} is for evaluate.py: train with another evaluate= (gcl, default, …), then measure the "
                "run with python evaluate.py run=… evaluate=…"
            )
    begun = time.monotonic()
    run = new_run_folder(config.run_dir, data=config.data.name, model=config.model.label)
    resume = resume_path(config, run)
    config.run_dir = str(run.path)

    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)

    _check_pairs(config, prepared)

    from gcl.run.training import Fitting  # torch, Lightning and open_clip load here

    fitting = Fitting(config, run, prepared)
    if fitting.is_first:
        _write_beginnings(config, run, fitting)
    base = fitting.measure_base()
    fit_or_stop(fitting, resume)
    tuned = fitting.measure_best()
    if fitting.is_first:
        forgotten = fitting.report(base, tuned, seconds=time.monotonic() - begun)
        if forgotten and config.evaluate.forgetting is Forgetting.fail:
            say("\n".join(["", *forgotten, "evaluate.forgetting=fail: exit status 3."]))
            raise SystemExit(3)
    return run, fitting.checkpoints.best


def _check_pairs(config: RunConfig, prepared) -> None:
    """What only the prepared pairs can tell, before torch and the model load. Raises ConfigError."""
    pairs, batch = prepared.pairs, config.train.batch_size
    if batch > len(pairs):
        raise ConfigError(
            f"train.batch_size={batch:,}, but there are only {len(pairs):,} training pairs: choose at most that many."
        )
    if all(name.rpartition("/")[2] == "in_domain" for name in prepared.counts["tasks"]):
        say("Note: data.split holds nothing out, so the tables below measure what training has seen.")
    weight = config.loss.score_to_weight
    name = weight["_target_"].rpartition(".")[2]
    if name in ("linear", "power", "reciprocal", "inverse_sqrt", "log"):
        low, high = weight.get("low", 1.0), weight.get("high", 100.0)
        least, most = float(pairs.score.min()), float(pairs.score.max())
        if least < low or most > high:
            raise ConfigError(
                f"The training scores lie in {least:g} … {most:g}, but {name} turns {low:g} … {high:g} into weights: "
                f"set loss.score_to_weight.low={least:g} loss.score_to_weight.high={most:g}, or loss=constant."
            )


def _write_beginnings(config: RunConfig, run: RunFolder, fitting) -> None:
    from gcl.run.environment import describe_environment

    run.path.mkdir(parents=True, exist_ok=True)
    save_config(config, run.config)
    write_json(run.path / "data.json", fitting.prepared.counts)
    write_json(run.environment, {**describe_environment(), **fitting.describe()})
