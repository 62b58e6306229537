"""A callback with which a rank signals itself at a chosen moment; given to a run by its config."""

import os
import signal

import lightning.pytorch as pl


class Signal(pl.Callback):
    """moment: "training" (a step has ended) or "measuring" (the test part is about to be measured), both when `step`
    steps are done."""

    def __init__(self, moment: str, step: int, signum: str, rank: int = 0) -> None:
        self.moment, self.step, self.signum, self.rank = moment, step, signal.Signals[signum], rank

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._signal("training", trainer)

    def on_test_batch_start(self, trainer, module, batch, batch_idx):
        self._signal("measuring", trainer)

    def _signal(self, moment, trainer):
        if (moment, trainer.global_step, trainer.global_rank) == (self.moment, self.step, self.rank):
            os.kill(os.getpid(), self.signum)


def signals(moment: str, step: int, signum: signal.Signals, rank: int = 0) -> str:
    """The setting of a run with this callback."""
    given = f"_target_: {Signal.__module__}.Signal, moment: {moment}, step: {step}, signum: {signum.name}, rank: {rank}"
    return f"++callbacks={{signal: {{{given}}}}}"
