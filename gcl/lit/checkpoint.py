"""Checkpoints that are complete or do not count: written to a temporary file, synced, read back and renamed, with a
DONE file last."""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from gcl.distributed.ranks import gather_objects
from gcl.files.atomic import NotWritten, synchronize
from gcl.files.digest import file_sha256
from gcl.lit.average import Average
from gcl.lit.curve import CurveLogger
from gcl.lit.lightning_internals import continue_epoch, progress
from gcl.lit.step_log import steps_of
from gcl.lit.whole import checkpoint_step, done_file, not_whole
from gcl.retrieval.page.curve import OF_AVERAGE


class _HashingFile:
    """What torch.save writes to: passes bytes on and hashes them on the way."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes `path` and `path`.DONE = {size, sha256, step}. Killed at any moment, the older checkpoint stays valid.

    Raises NotWritten when the disk is full, the folder read-only, or what was read back differs.
    """
    partial = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _finish_renaming(path, partial)
        with open(partial, "wb") as file:
            sink = _HashingFile(file)
            torch.save(state, cast("IO[bytes]", sink))
            file.flush()
            os.fsync(file.fileno())
        digest = sink.sha256.hexdigest()
        if file_sha256(partial) != digest:
            raise OSError("what was read back differs from what was written")
        done = {"size": sink.size, "sha256": digest, "step": int(state.get("global_step", 0))}
        done_file(partial).write_text(json.dumps(done), encoding="utf-8")
        synchronize(done_file(partial))
        os.replace(partial, path)
        os.replace(done_file(partial), done_file(path))
        synchronize(path.parent)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error.__context__, KeyboardInterrupt):  # torch's writer fails where it is interrupted
            raise error.__context__ from None
        cause = error.__context__ if isinstance(error, RuntimeError) and error.__context__ else error
        raise NotWritten(
            f"The checkpoint {path} could not be saved: {cause}. The previous one, if any, is untouched: free "
            "space or choose another run_dir, then resume with train.resume=auto."
        ) from error


def _finish_renaming(path: Path, partial: Path) -> None:
    """What was killed between its two renames left a whole checkpoint whose DONE still has the other name."""
    if done_file(partial).exists() and not partial.exists():
        os.replace(done_file(partial), done_file(path))
    else:
        done_file(partial).unlink(missing_ok=True)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A complete checkpoint's content; only tensors and plain values are ever loaded. Raises ValueError otherwise."""
    if checkpoint_step(path) is None:
        raise ValueError(not_whole(path))
    return torch.load(path, map_location=map_location, weights_only=True)


class WholeCheckpointIO(CheckpointIO):
    """How Lightning reaches the two functions above. Only rank 0 writes: its error waits here until all ranks look."""

    def __init__(self) -> None:
        self.error: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            write_checkpoint(checkpoint, Path(path))
        except OSError as error:
            self.error = error

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location if map_location is not None else "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        done_file(Path(path)).unlink(missing_ok=True)


def save_together(trainer: pl.Trainer, path: Path) -> None:
    """All ranks take part, rank 0 writes. Raises NotWritten on every rank when that failed: none is left waiting."""
    for logger in trainer.loggers:  # what a resumed run keeps of the curve must not end before the checkpoint
        if isinstance(logger, CurveLogger) and trainer.training:
            logger.log_ahead(trainer)
        logger.save()
    trainer.save_checkpoint(path, weights_only=False)
    checkpoints = trainer.strategy.checkpoint_io
    assert isinstance(checkpoints, WholeCheckpointIO)
    error, checkpoints.error = checkpoints.error, None
    for told in gather_objects(None if error is None else str(error)):
        if told is not None:
            raise NotWritten(told) from error


def at_optimizer_step(trainer: pl.Trainer) -> bool:
    """Whether the batch that just ended made an optimiser step; accumulated gradients are in no checkpoint."""
    position = progress(trainer)
    return position.is_last or position.begun % trainer.accumulate_grad_batches == 0


def validation_due(trainer: pl.Trainer) -> bool:
    """Whether a validation follows the batch that just ended."""
    position, every = progress(trainer), trainer.val_check_batch
    return position.is_last or (every is not None and position.begun % every == 0)


class BestAndLast(Checkpoint):
    """Keeps last.ckpt (after every validation, every `every` steps and at the end) and best.ckpt (highest `monitor`, of
    the weights or of their average where there is one).

    A validation with "retention/within" of 0 is only the best while none was within the limits of what must be kept.
    Where a validation is due nothing is saved before it: a run resumed from there would never measure that step.
    """

    def __init__(self, folder: Path, *, monitor: str, every: int | None = None, patience: int | None = None) -> None:
        self.folder = Path(folder)
        self.monitor = monitor
        self.every = every
        self.patience = patience
        self.best = -math.inf
        self.best_within = False
        self.best_step = 0
        self.best_of: dict[str, float] = {}  # of the weights themselves ("") and of their average (its prefix)
        self.best_prefix = ""  # which of them the best checkpoint has
        self.since_best = 0

    @property
    def last_path(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        return self.folder / "best.ckpt"

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if progress(trainer).is_last:
            trainer.should_stop = True  # Lightning then validates, also where the interval does not end here
        elif self.every and at_optimizer_step(trainer) and trainer.global_step % self.every == 0:
            if not validation_due(trainer):
                save_together(trainer, self.last_path)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        average = _average_of(module)
        measured = {prefix: self._measured(trainer, prefix) for prefix in ("", OF_AVERAGE) if not prefix or average}
        for prefix, (_, value) in measured.items():
            self.best_of[prefix] = max(self.best_of.get(prefix, -math.inf), value)
        chosen = max(measured, key=lambda prefix: measured[prefix])  # the first of equals: the weights themselves
        if measured[chosen] > (self.best_within, self.best):
            self.best_within, self.best = measured[chosen]
            self.best_step, self.since_best, self.best_prefix = trainer.global_step, 0, chosen
            with average.put_in_place() if chosen and average else nullcontext():
                save_together(trainer, self.best_path)
        else:
            self.since_best += 1
        save_together(trainer, self.last_path)
        if self.patience is not None and self.since_best >= self.patience:
            trainer.should_stop = True

    def _measured(self, trainer: pl.Trainer, prefix: str) -> tuple[bool, float]:
        """(whether it keeps what must be kept, the watched metric)."""
        value = trainer.callback_metrics.get(f"{prefix}{self.monitor}")
        if value is None:
            raise KeyError(
                f"evaluate.monitor={self.monitor!r} chooses the best checkpoint, but that metric was not measured."
            )
        return bool(trainer.callback_metrics.get(f"{prefix}retention/within", 1.0) > 0), float(value)

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A run that had ended continues if it was given more steps."""
        continue_epoch(checkpoint, steps_of(trainer).total)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best, "best_step": self.best_step, "since_best": self.since_best,
            "best_within": self.best_within, "best_of": self.best_of, "best_prefix": self.best_prefix,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.best_step = state_dict["best_step"]
        self.since_best = state_dict["since_best"]
        self.best_within = state_dict.get("best_within", True)
        self.best_of, self.best_prefix = dict(state_dict.get("best_of", {})), state_dict.get("best_prefix", "")


def _average_of(module: pl.LightningModule) -> Average | None:
    average = vars(module).get("average")
    return average if isinstance(average, Average) else None
