"""The one place for members of Lightning and PyTorch that are private or undocumented and that training needs.

One function each, with the reason; tried with Lightning 2.6.4, 2.6.5 and 2.6.6 and PyTorch 2.14. When a release changes
one of them, its canary in tests/lit/test_lightning_internals.py fails and says so.
"""

from __future__ import annotations

import subprocess
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter


class _NoSignals:
    """In the place of Lightning's signal connector: registers nothing."""

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        pass

    def teardown(self) -> None:
        pass


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """`Trainer._signal_connector`: its handlers would replace ours, and no argument of Trainer keeps it from that."""
    vars(trainer)["_signal_connector"] = _NoSignals()


def start_children(trainer: pl.Trainer) -> list[subprocess.Popen[bytes]]:
    """`_call_children_scripts`: starts the other processes of this machine now, where Lightning would when training
    begins; it then takes them for those of another launcher. None where something else starts them."""
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or launcher.cluster_environment.creates_processes_externally:
        return []
    launcher._call_children_scripts()
    return launcher.procs


def logged_step(trainer: pl.Trainer) -> int:
    """`epoch_loop._batches_that_stepped`: the number under which loggers get the step in progress."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def is_logged(trainer: pl.Trainer) -> bool:
    """Whether the loggers take what is logged in the step in progress: Lightning decides by the number above."""
    every: int = vars(trainer)["log_every_n_steps"]
    return (logged_step(trainer) + 1) % every == 0


def pending_log(trainer: pl.Trainer) -> dict[str, float] | None:
    """`_logger_connector`: what the loggers will get for the step that just ended; None if it is not a logged one.

    Lightning hands it over only after its checkpoint callbacks, so a run killed in between would never have that row.
    """
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return None
    return {name: float(value) for name, value in connector.metrics["log"].items()}


class Progress(NamedTuple):
    """Batches begun and processed in this epoch, and whether the current one is its last."""

    begun: int
    processed: int
    is_last: bool


def progress(trainer: pl.Trainer) -> Progress:
    """`epoch_loop.batch_progress`: the position in the epoch; `global_step` counts optimiser steps only."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    return Progress(batches.current.ready, vars(batches.current)["processed"], batches.is_last_batch)


def continue_epoch(checkpoint: dict[str, Any], batches: int) -> None:
    """`checkpoint["loops"]`: an epoch that had ended continues when the run now has more batches.

    Lightning stores that the last batch was reached and trusts it, whatever the length of the loader is now.
    """
    stored = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    if stored["current"]["completed"] < batches:
        stored["is_last_batch"] = False


def share_data_among_all_ranks(strategy: ModelParallelStrategy, ranks: int) -> None:
    """`ModelParallelStrategy._data_parallel_size`: its argument is needed before the number of processes is known, and
    "auto" means the number of nodes. Call it first in `setup_environment`."""
    strategy._data_parallel_size = ranks


def end_workers(loader: DataLoader) -> None:
    """`DataLoader._iterator`: persistent workers have no public end. They ignore SIGTERM, by which Python would end
    them at exit and then wait."""
    batches = loader._iterator
    if isinstance(batches, _MultiProcessingDataLoaderIter):
        batches._shutdown_workers()
        for worker in batches._workers:
            if worker.is_alive():
                worker.kill()
    loader._iterator = None


def step_unscaled(optimizer: torch.optim.Optimizer) -> None:
    """`_step_supports_amp_scaling`: a fused step divides the gradients by float16's loss scale itself, which is after
    their norm was measured and clipped. Afterwards the scaler divides them before."""
    vars(optimizer)["_step_supports_amp_scaling"] = False
    for group in optimizer.param_groups:
        group["fused"] = False
