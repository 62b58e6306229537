"""Callbacks that spoil gradients, given to a run by its config."""

import lightning.pytorch as pl


class Poison(pl.Callback):
    """Multiplies one rank's gradient of the scale at one step."""

    def __init__(self, step: int, factor: str = "nan", rank: int = 0) -> None:
        self.step, self.factor, self.rank = step, float(factor), rank

    def on_after_backward(self, trainer, module):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad *= self.factor


class Diverge(pl.Callback):
    """Makes a weight infinite after a step, as an overflow of the optimiser would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == self.step:
            next(p for p in module.encoder.parameters() if p.requires_grad).data.fill_(float("inf"))
