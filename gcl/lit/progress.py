"""What a run shows while it trains: the progress bar, how fast it is and what it waits for, a loader that hangs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar

from gcl.data.batches.batch import PairBatch
from gcl.data.batches.loader import PATIENCE, Watch, WatchedLoader
from gcl.files.progress import Count
from gcl.lit.lightning_internals import is_logged, progress

logger = logging.getLogger(__name__)
_MUCH = 0.2  # of a run's time, waited for data


class RunProgress(ProgressBar):
    """The steps of a run, with the loss and the watched metric; Lightning's own bar would count a run as one epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = True
        self._count: Count | None = None

    def disable(self) -> None:
        self._shown = False

    def enable(self) -> None:
        self._shown = True

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        done = progress(trainer).processed  # of a resumed run
        total = int(self.total_train_batches)
        self._count = Count("Training", total=total, unit="step", done=done, shown=self._shown)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: PairBatch, idx: int
    ) -> None:
        if self._count is not None:
            self._count.add(note=lambda: self._values(trainer, module))

    def on_train_end(self, *_: Any) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()  # what is said next begins its own line

    def _close(self) -> None:
        if self._count is not None:
            self._count.__exit__()
            self._count = None

    def _values(self, trainer: pl.Trainer, module: pl.LightningModule) -> str:
        values = self.get_metrics(trainer, module)
        return ", ".join(
            f"{name.removeprefix('train/')} {value:.3f}" for name, value in values.items() if isinstance(value, float)
        )


class Meter(Callback):
    """Logs, averaged since the last logged step: speed/samples_per_second (pairs of the global batch),
    speed/step_seconds, speed/data_share (of the time, waited for the loader), and speed/memory_gib (the peak of the
    device, on a CPU of this process).

    Validation and checkpoints do not count: the time is that of steps and of waiting for batches. The end of training
    says in a sentence how fast all of it was.
    """

    def __init__(self) -> None:
        self._clear(0.0)
        self.whole = (0.0, 0, 0.0)  # seconds, pairs and seconds waited, of the logged steps so far

    def _clear(self, waited: float) -> None:
        self.seconds, self.pairs, self.steps, self.waited = 0.0, 0, 0, waited

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._clear(getattr(trainer.train_dataloader, "waited", 0.0))
        self.whole = (0.0, 0, 0.0)

    def on_train_batch_start(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: PairBatch, idx: int
    ) -> None:
        self.seconds += time.perf_counter() - self._begun
        self.pairs += len(batch.score)
        self.steps += 1
        if not is_logged(trainer):
            return
        waited = getattr(trainer.train_dataloader, "waited", 0.0)
        total = self.seconds + waited - self.waited
        self.whole = (self.whole[0] + total, self.whole[1] + self.pairs, self.whole[2] + waited - self.waited)
        values = {
            "speed/samples_per_second": self.pairs / total,
            "speed/step_seconds": total / self.steps,
            "speed/data_share": (waited - self.waited) / total,
            "speed/memory_gib": peak_memory(module.device) / 2**30,
        }
        module.log_dict(values, batch_size=1)
        self._clear(waited)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        seconds, pairs, waited = self.whole
        if seconds:
            share = waited / seconds
            hint = " More train.workers may help." if share > _MUCH else ""
            logger.info(
                "Trained at %.0f pairs per second, %.0f %% of the time waiting for data; peak memory %.1f GiB.%s",
                pairs / seconds, 100 * share, peak_memory(module.device) / 2**30, hint,
            )  # fmt: skip


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device where that is a GPU, else of this process; 0 where the system does not tell (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Watchdog(Callback):
    """Every `seconds` in which the training loader gives no batch, one sentence with the shard it is reading.

    place: `(step) -> str`, where the first document of a global step lies. seconds=None: never.
    """

    def __init__(self, place: Callable[[int], str], *, seconds: float | None = PATIENCE) -> None:
        self.place, self.seconds = place, seconds
        self._watching = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        if self.seconds and isinstance(loader, WatchedLoader):
            self._watching.close()
            watch = Watch(loader, self.place, what="Step", rank=trainer.global_rank, seconds=self.seconds)
            self._watching.enter_context(watch)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._watching.close()
