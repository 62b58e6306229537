"""Resuming a run: from which checkpoint, and whether its settings are still those it was started with."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from gcl.config.compose import flatten, load_config, under
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.lit.settings import FieldWeights, TrainConfig
from gcl.lit.whole import checkpoint_step, not_whole
from gcl.run.console import say
from gcl.run.folder import RunFolder

# Settings of where and how a run is computed, stored and logged, but not of what it computes.
_FREE = ("trainer", "logger", "callbacks", "name", "run_dir", "cache_dir", "run", "models", "out", "trust",
         "evaluate.batch_size", "evaluate.gate",
         "data.download", "data.root", "data.cache_gb")  # the plan knows the data by their content  # fmt: skip
_FREE_OF_TRAIN = ("workers", "resume", "allow_change", "checkpoint_every", "loader_patience", "nonfinite", "max_skips",
                  "spike_factor", "micro_batch", "compile")  # fmt: skip
FREE = (*_FREE, *(f"train.{name}" for name in _FREE_OF_TRAIN))
_AFTERWARDS = ("train.field_weights",)  # counts for what is measured, once training has ended


_FOLLOWS = {"batches": ("data", "plan", "seed", "train.batch_size"), "teacher": ("teacher",)}


def may_change(train: TrainConfig) -> list[str]:
    """What train.allow_change permits to be other than in the checkpoint: batches, teacher, by the keys that they
    follow from."""
    allowed = train.allow_change
    return [
        what for what, names in _FOLLOWS.items()
        if any(under(key, (name,)) or under(name, (key,)) for key in allowed for name in names)
    ]  # fmt: skip


def comparable(config: RunConfig) -> dict[str, Any]:
    """{dotted key: value} of every setting that determines what is computed."""
    return {key: value for key, value in flatten(config).items() if not under(key, (*FREE, *_AFTERWARDS))}


def resume_path(config: RunConfig, run: RunFolder) -> Path | None:
    """The checkpoint to continue from: train.resume=auto (the run's newest whole one) or a path. None: from the start.

    Raises ConfigError if the folder holds a run that would be trained over, no checkpoint is whole, or the config has
    changed.
    """
    if folder := next((path for path in (run.last, run.best) if path.is_dir()), None):
        raise ConfigError(f"{folder} is a folder, and this run writes its checkpoint there: rename it, or remove it.")
    resume, left = config.train.resume, run.traces()
    if resume is None:
        if left:
            raise ConfigError(
                f"{run.path} already holds a run ({', '.join(left)}). Continue it with train.resume=auto, or choose "
                "another run_dir."
            )
        return None
    if resume == "auto" and not run.was_begun:
        return None
    if resume != "auto" and left and not Path(resume).resolve().is_relative_to(run.path.resolve()):
        raise ConfigError(
            f"train.resume={resume} is not a checkpoint of {run.path}, which already holds a run ({', '.join(left)}): "
            "continue that one with train.resume=auto, or choose another run_dir."
        )
    if resume == "auto" and not run.last.is_file():
        say(f"{run.path} holds a run without its last checkpoint ({run.last} is missing).")
    if run.config.is_file():
        check_unchanged(load_config(run.config, trust=None), config)
    path, step = _newest_whole(run, left) if resume == "auto" else (Path(resume), checkpoint_step(Path(resume)))
    if step is None:
        raise ConfigError(f"train.resume={resume}: {not_whole(path)}")
    say(f"Resuming from {path}, step {step}.")
    return path


def _newest_whole(run: RunFolder, left: list[str]) -> tuple[Path, int]:
    """The checkpoint of the most steps that is whole, and its step. Says so where it is not the last one."""
    steps = {path: checkpoint_step(path) for path in (run.last, run.best)}
    whole = [(step, path) for path, step in steps.items() if step is not None]
    broken = [path.name for path, step in steps.items() if step is None and path.is_file()]
    damaged = f" ({', '.join(broken)}: cut or damaged)" if broken else ""
    if not whole:
        raise ConfigError(
            f"train.resume=auto: {run.path} holds a run ({', '.join(left)}), but none of its checkpoints is "
            f"whole{damaged}. Put one back with its DONE file, or choose another run_dir to begin anew."
        )
    step, path = max(whole, key=lambda one: one[0])
    if path != run.last:
        say(f"{run.last} is {'damaged' if broken else 'missing'}: going on from {path.name}, the newest whole one.")
    return path, step


def check_unchanged(begun: RunConfig, now: RunConfig) -> None:
    """Raises ConfigError listing every setting that has changed since the start, unless train.allow_change names it."""
    old, new = comparable(begun), comparable(now)
    changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    was, becomes = (config.train.field_weights for config in (begun, now))
    if was is not becomes and {was, becomes} & {FieldWeights.learned, FieldWeights.learned_by_query}:
        raise ConfigError(
            f"train.field_weights was {begun.train.field_weights}, is now {now.train.field_weights}. Learned weights "
            "are a part of every checkpoint, so a run learns them from its start or not at all: restore the setting."
        )
    refused = [key for key in changed if not under(key, tuple(now.train.allow_change))]
    if refused:
        listed = [f"{key} was {old.get(key)!r}, is now {new.get(key)!r}" for key in refused]
        told = f" {listed[0]}. " if len(listed) == 1 else "".join(f"\n  {one}" for one in listed) + "\n"
        raise ConfigError(
            f"This run was started with other settings:{told}Restore them, or continue with the new ones: "
            f"train.allow_change=[{','.join(refused)}]."
        )


def fit_or_stop(fitting: Any, resume: Path | None) -> None:
    """Trains. A run that is asked to stop saves itself and exits with status 143, or 0 if SLURM will restart it."""
    from gcl.lit.signals import Interrupted, requeue

    fitting.interruption.listen()
    try:
        fitting.fit(resume)
    except Interrupted as stopped:
        say(f"\n{stopped}")
        wanted = stopped.signum == getattr(signal, "SIGUSR1", None) and "SLURM_JOB_ID" in os.environ
        requeued = wanted and (not fitting.is_first or requeue() is not None)
        if requeued:
            say("SLURM has queued this job again; it continues from there.")
        raise SystemExit(0 if requeued else stopped.status) from None
    finally:
        fitting.interruption.ignore()
