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
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from tqdm import tqdm

from gcl.data.batches.batch import PairBatch
from gcl.data.batches.loader import PATIENCE, Watch, WatchedLoader
from gcl.lit.lightning_internals import is_logged

logger = logging.getLogger(__name__)
_MUCH = 0.2  # of a run's time, waited for data


class RunProgress(TQDMProgressBar):
    """Lightning counts a run as one epoch; the bar says "Training" and shows the loss and the watched metric."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_start(trainer)
        self.train_progress_bar.total = self.total_train_batches  # a resumed run starts no epoch
        self.train_progress_bar.set_description("Training")

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("Training")

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.training:
            self.train_progress_bar.close()  # what is said next begins its own line

    def init_validation_tqdm(self) -> tqdm:
        return tqdm(disable=True)

    def init_test_tqdm(self) -> tqdm:
        return tqdm(disable=True)

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, module)
        return {name.removeprefix("train/"): value for name, value in shown.items() if name != "v_num"}


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
