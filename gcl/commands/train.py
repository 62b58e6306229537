"""`train.py`: prepare, measure the model as it comes, fine-tune, measure again, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gcl.commands.registry import NoOptions
from gcl.config.checks import check_installed
from gcl.config.compose import Overrides, build, save_config
from gcl.config.schema import RunConfig
from gcl.data.batches.settings import check_batch_size
from gcl.errors import ConfigError
from gcl.files.atomic import names_full_disk, write_json
from gcl.files.progress import doing
from gcl.lit.settings import DryConfig
from gcl.retrieval.analysis.verdict import Verdict
from gcl.run.closing import close_gate, say_verdicts
from gcl.run.console import say, speak_plainly
from gcl.run.early import check_training
from gcl.run.folder import RunFolder, fact, new_run_folder
from gcl.run.launch import all_ranks
from gcl.run.resume import fit_or_stop, resume_path

if TYPE_CHECKING:
    from gcl.data.store.prepared import Prepared
    from gcl.run.training import Fitting


def run(_: NoOptions, overrides: Overrides) -> None:
    config = overrides.config()
    if config.trainer.dry is not None:
        dry_run(config, config.trainer.dry)
        return
    close_gate(config.evaluate.gate, _train(config).verdicts)


def train(config: RunConfig) -> RunFolder:
    """A whole run, printed and written into the run folder, which is returned."""
    return _train(config).run


def train_for_sweep(config: RunConfig) -> float:
    """A whole run. Returns what chose its best checkpoint: the number that a sweep maximises."""
    return _train(config).value


def dry_run(config: RunConfig, dry: DryConfig) -> None:
    """Prints what a step would take (trainer=dry). Raises ConfigError for a config that training would refuse, and,
    after the table, for a step that does not fit."""
    speak_plainly()
    check_training(config)
    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)
    with doing("Loading torch"):
        from gcl.run.dry import on_paper

    with doing("Measuring a few rows"):
        paper = on_paper(config, dry, prepared)
    limit = dry.memory_gb * 1e9
    say(f"\n{paper.table(limit).text()}")
    paper.check(limit)


@dataclass(frozen=True)
class Trained:
    """value: what chose the best checkpoint. verdicts: on the first process alone."""

    run: RunFolder
    value: float
    verdicts: dict[str, Verdict]


def _train(config: RunConfig) -> Trained:
    speak_plainly()
    for key in ("benchmark", "sets"):
        if getattr(config.evaluate, key):
            raise ConfigError(
                f"evaluate.{key} is only for evaluation: train with another evaluate= (gcl, default, …), then measure "
                "the run with python evaluate.py run=… evaluate=…"
            )
    if config.trainer.dry is not None:
        raise ConfigError("trainer.dry computes a run on paper and trains nothing: it is for gcl train alone.")
    check_installed(config)
    check_training(config)
    with all_ranks(config.trainer):
        begun = time.monotonic()
        run = new_run_folder(config.run_dir, data=config.data.name, model=config.model.label, name=config.name)
        with run.taken():
            return _fit(config, run, begun)


def _fit(config: RunConfig, run: RunFolder, begun: float) -> Trained:
    """Prepares, measures, trains, measures and reports."""
    resume = resume_path(config, run)
    config.run_dir = str(run.path)

    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)

    _check_pairs(config, prepared)

    with doing("Loading torch"):
        from gcl.run.training import Fitting  # torch, Lightning and open_clip load here

    fitting = Fitting(config, run, prepared)
    return finish(config, run, fitting, begun, lambda: fit_or_stop(fitting, resume))


def finish(config: RunConfig, run: RunFolder, fitting: Fitting, begun: float, make_best: Callable[[], None]) -> Trained:
    """Measures the base and the best checkpoint that `make_best` leaves, writes and prints. begun: time.monotonic()."""
    from gcl.data.batches.loader import lost_workers_in_sentences

    if fitting.is_first:
        _write_beginnings(config, run, fitting)
    with lost_workers_in_sentences(), names_full_disk(run.path):
        fitting.measure_base()
        make_best()
        tuned = fitting.measure_best()
    verdicts = fitting.report(tuned, seconds=time.monotonic() - begun) if fitting.is_first else {}
    say_verdicts(verdicts, "base", config, run)
    return Trained(run, fitting.checkpoints.best, verdicts)


def _check_pairs(config: RunConfig, prepared: Prepared) -> None:
    """What only the prepared pairs can tell, before the model loads. Raises ConfigError."""
    from gcl.loss.settings import Target
    from gcl.loss.weight import check_range, check_weights

    pairs = prepared.pairs
    if all(name.rpartition("/")[2] == "in_domain" for name in prepared.counts["tasks"]):
        say("Note: data.split holds nothing out, so the tables below measure data seen in training.")
    try:
        prepared.check_tasks(config.evaluate.tasks or ())
        prepared.check_tasks(config.evaluate.monitor_tasks or (), "evaluate.monitor_tasks")
        check_batch_size(config.train.batch_size, len(pairs))
        check_range(config.loss.score_to_weight, float(pairs.score.min()), float(pairs.score.max()))
        probabilities = config.loss.target == Target.sigmoid
        scores = pairs.score.copy()  # torch wants no read-only map
        check_weights(build(config.loss.score_to_weight), scores, probabilities=probabilities)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _write_beginnings(config: RunConfig, run: RunFolder, fitting: Fitting) -> None:
    from gcl.run.environment import describe_environment

    run.path.mkdir(parents=True, exist_ok=True)
    save_config(config, run.config)
    write_json(run.path / "data.json", fitting.prepared.counts)
    begun = {"begun": fact(run.environment, "begun", str) or time.strftime("%Y-%m-%d %H:%M:%S")}
    write_json(run.environment, {**begun, **describe_environment(), **fitting.describe()})
