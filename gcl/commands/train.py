"""`train.py`: prepare, measure the model as it comes, fine-tune, measure again, report."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gcl.commands.say import say, speak_plainly
from gcl.config import ConfigError, RunConfig, save_config
from gcl.runs import RunFolder, new_run_folder, write_json


def train(config: RunConfig) -> RunFolder:
    """A whole run. Returns its folder; what it prints and writes is the product."""
    speak_plainly()
    begun = time.monotonic()
    run = new_run_folder(config.run_dir, data=config.data.name, model=config.model.label)
    resume = _resume_path(config.train.resume, run)
    config.run_dir = str(run.path)

    from gcl.data.prepare import prepare
    from gcl.data.prepared import open_prepared

    prepared = open_prepared(prepare(config.data, config.cache_dir), config.data.schema)

    from gcl.commands.fitting import Fitting  # torch, Lightning and open_clip load here

    fitting = Fitting(config, run, prepared)
    fitting.check_batch()
    if fitting.is_first:
        _write_beginnings(config, run, fitting)
    base = fitting.measure_base()
    fitting.fit(resume)
    tuned = fitting.measure_best()
    if fitting.is_first:
        fitting.report(base, tuned, seconds=time.monotonic() - begun)
    return run


def _write_beginnings(config: RunConfig, run: RunFolder, fitting) -> None:
    from gcl.commands.environment import describe_environment

    run.path.mkdir(parents=True, exist_ok=True)
    save_config(config, run.config)
    write_json(run.environment, {**describe_environment(), **fitting.describe()})


def _resume_path(resume: str | None, run: RunFolder) -> Path | None:
    """The checkpoint to go on from: train.resume=auto (the run's own last one) or a path."""
    if resume is None:
        if run.last.is_file():
            raise ConfigError(
                f"{run.path} already holds a run. Continue it with train.resume=auto, or choose another run_dir."
            )
        return None
    from gcl.lit.checkpoint import checkpoint_step

    path = run.last if resume == "auto" else Path(resume)
    step = checkpoint_step(path)
    if step is None:
        if resume == "auto" and not path.exists():
            return None
        raise ConfigError(f"train.resume={resume}: {path} is no complete checkpoint (missing, or its DONE file does not fit).")
    say(f"Resuming from {path}, step {step}.")
    return path


