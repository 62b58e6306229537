"""A callback that makes one rank fail in one of several ways, given to a run by its config."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import lightning.pytorch as pl

from gcl.data.batches.batch import PairDataset


class Fail(pl.Callback):
    """At a step of one rank: "step" (its backward pass raises), "worker" (what reads its data raises) or "killed" (its
    worker is killed). The time is written to `path`."""

    def __init__(self, how: str, rank: int, step: int, path: str) -> None:
        self.how, self.rank, self.step, self.path = how, rank, step, Path(path)

    def setup(self, trainer, module, stage):
        if self.how == "worker" and trainer.global_rank == self.rank:
            read = PairDataset.__getitem__

            def failing(dataset, index):
                if index == self.step:
                    self._note()
                    raise ValueError("no such picture")
                return read(dataset, index)

            PairDataset.__getitem__ = failing

    def on_after_backward(self, trainer, module):
        if trainer.global_rank != self.rank or trainer.global_step != self.step:
            return
        if self.how == "step":
            self._note()
            raise RuntimeError("no such number")
        if self.how == "killed":
            self._note()
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    def _note(self):
        self.path.write_text(repr(time.time()))
