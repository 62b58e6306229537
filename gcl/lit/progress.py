"""The progress bar of a run: one bar over all steps, none for the measurements, which say what they do in words."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm


class RunProgress(TQDMProgressBar):
    """Lightning counts a run as one epoch; the bar says "Training" and shows the loss and the watched metric."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_start(trainer)
        self.train_progress_bar.total = self.total_train_batches  # a resumed run starts no epoch
        self.train_progress_bar.set_description("Training")

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("Training")

    def init_validation_tqdm(self) -> tqdm:
        return tqdm(disable=True)

    def init_test_tqdm(self) -> tqdm:
        return tqdm(disable=True)

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, module)
        return {name.removeprefix("train/"): value for name, value in shown.items() if name != "v_num"}
