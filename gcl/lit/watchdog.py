"""Notices a training loader that gives nothing and says what it is reading."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from gcl.data.batches.loader import PATIENCE, Watch, WatchedLoader


class Watchdog(Callback):
    """Every `seconds` in which the training loader gives no batch, one sentence with the shard it is reading.

    place: `(step) -> str`, where the first document of a global step lies. seconds=None: never.
    """

    def __init__(self, place: Callable[[int], str], *, seconds: float | None = PATIENCE) -> None:
        self.place, self.seconds = place, seconds
        self._watch: Watch | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        if self.seconds and isinstance(loader, WatchedLoader):
            self._end()
            watch = Watch(loader, self.place, what="Step", rank=trainer.global_rank, seconds=self.seconds)
            self._watch = watch.__enter__()

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self._end()

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.__exit__()
            self._watch = None
