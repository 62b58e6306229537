"""How fast a run is and what it waits for: a few numbers from the clock, at the steps that are logged anyway."""

from __future__ import annotations

import logging
import resource
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from gcl.data.batches.batch import PairBatch

logger = logging.getLogger(__name__)
_MUCH = 0.2  # of a run's time, waited for data


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
        if not module.logs_now():
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
                "Trained at %.0f pairs a second, %.0f %% of the time waiting for data; memory at most %.1f GiB.%s",
                pairs / seconds, 100 * share, peak_memory(module.device) / 2**30, hint,
            )  # fmt: skip


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device where that is a GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
