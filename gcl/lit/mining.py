"""When hard negatives are mined: before training and every so many steps, by all ranks; rank 0 writes what it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from gcl.data.batches.negatives import Mined, Rounds
from gcl.distributed.ranks import agree, of_first_rank
from gcl.lit.lightning_internals import progress
from gcl.lit.module import GCLModule
from gcl.lit.sharded import gathered
from gcl.lit.step_log import steps_of


class Mining(Callback):
    """mine: `(encoder, weights=) -> Mined`, the same on every rank; weights: of the fields, where they are learned.

    Batches name the file of their round, and a process that reads ahead waits for it: what an earlier attempt left of
    later rounds is removed before anything is read.
    """

    def __init__(self, mine: Callable[..., Mined], rounds: Rounds) -> None:
        self.mine, self.rounds = mine, rounds

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        first = steps_of(trainer).first
        now = self.rounds(first)
        if trainer.is_global_zero:
            for path in self.rounds.files():
                if path > now or first == 0:
                    path.unlink()
        trainer.strategy.barrier()
        if not of_first_rank(now.exists()):  # as the first rank sees it: disks may show changes late
            self._round(trainer, module, first)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        position = progress(trainer)
        if not position.is_last and self.rounds.first_step(position.begun) == position.begun:
            self._round(trainer, module, position.begun)

    def _round(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        assert isinstance(module, GCLModule)
        learned = module.field_weights
        weights = {} if learned is None else {side: learned.shares(side) for side in learned.fields}
        with gathered(module.encoder):
            mined = self.mine(module.encoder, weights=weights)
        error = None
        try:
            if trainer.is_global_zero:
                mined.write(self.rounds(step))
        except OSError as caught:
            error = caught
        agree(error)
