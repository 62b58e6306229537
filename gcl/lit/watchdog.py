"""Notices a data loader that gives nothing and says what it is reading; counts the time training waits for data."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)


class WatchedLoader(DataLoader):
    """A DataLoader that knows what it is waiting for: (step, since when), and how long it has waited in all."""

    waiting: tuple[int, float] | None = None
    waited: float = 0.0

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        for step in self.sampler:
            begun = time.monotonic()
            self.waiting = (step, begun)
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waiting = None
                self.waited += time.monotonic() - begun
            yield batch


class Watchdog(Callback):
    """Every `seconds` in which the training loader gives no batch, one sentence with the shard it is reading.

    place: `(step) -> str`, where the first document of a global step lies. seconds=None: never.
    """

    def __init__(self, place: Callable[[int], str], *, seconds: float | None = 60.0) -> None:
        self.place, self.seconds = place, seconds
        self._stop: threading.Event | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        if self.seconds and isinstance(loader, WatchedLoader):
            self.watch(loader, rank=trainer.global_rank)

    def watch(self, loader: WatchedLoader, *, rank: int) -> None:
        self.stop()
        self._stop = threading.Event()
        arguments = (loader, rank, self._stop)
        threading.Thread(target=self._run, args=arguments, name="loader watchdog", daemon=True).start()

    def stop(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.stop()

    def _run(self, loader: WatchedLoader, rank: int, stop: threading.Event) -> None:
        told: tuple[int, int] | None = None
        while not stop.wait(min(1.0, self.seconds / 4)):
            if (waiting := loader.waiting) is None:
                continue
            step, since = waiting
            periods = int((time.monotonic() - since) / self.seconds)
            if periods and (step, periods) != told:
                told = (step, periods)
                # Every rank may say this: rank 1's loader can hang while rank 0 waits in a collective.
                logger.error(
                    "Rank %d: the data loader has given no batch for %.0f s. Step %d begins at %s. Can that file be "
                    "read, and do the loader's workers (train.workers) still run?",
                    rank, periods * self.seconds, step, self.place(step),
                )  # fmt: skip
