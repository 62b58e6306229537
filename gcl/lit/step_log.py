"""<run>/steps.csv: what each step was made of and what came out, exact enough to compare two runs bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.utils.data import Sampler

from gcl.data.batches.batch import PairBatch
from gcl.files.atomic import write_text
from gcl.lit.curve import CurveLogger

if TYPE_CHECKING:  # the module brings open_clip with it
    from gcl.lit.module import GCLModule

HEADER = "step,epoch,pairs,loss\n"


class Steps(Sampler[int]):
    """Global steps first, first + 1, … total - 1; its length is always the whole run's."""

    def __init__(self, total: int) -> None:
        self.first = 0
        self.total = total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


def steps_of(trainer: pl.Trainer) -> Steps:
    """The steps that the trainer's data module feeds; Lightning sets that attribute without declaring it."""
    return vars(trainer)["datamodule"].steps


class StepLog(Callback):
    """One line per global batch, by rank 0, flushed at once: step, epoch, digest of its pairs, loss as a hex float.

    A resumed run cuts what was logged after its checkpoint and continues, so the file of a run that was killed ends up
    equal to that of one that was not.
    """

    def __init__(self, path: Path, epoch_of: Callable[[int], int]) -> None:
        self.path, self.epoch_of = path, epoch_of
        self._file: TextIO | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, CurveLogger):
                logger.cut(trainer.global_step)
        first = steps_of(trainer).first
        self.path.parent.mkdir(parents=True, exist_ok=True)
        keep_before(self.path, lambda line: line == HEADER or int(line.partition(",")[0]) < first)
        self._file = open(self.path, "a", encoding="utf-8")
        if self._file.tell() == 0:
            self._file.write(HEADER)
        self._file.flush()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: PairBatch, idx: int
    ) -> None:
        if self._file is not None:
            loss = float(cast("GCLModule", module).last_loss).hex()
            self._file.write(f"{batch.step},{self.epoch_of(batch.step)},{digest_of(batch)},{loss}\n")
            self._file.flush()

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def digest_of(batch: PairBatch) -> str:
    """16 hex digits of a global batch's (query, document, score), in order; the same on every rank."""
    digest = hashlib.sha256()
    for values in (batch.query_id, batch.document_id, batch.score):
        digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def keep_before(path: Path, belongs: Callable[[str], bool]) -> None:
    """Keeps a log's whole lines that belong to what a run continues from; the file is replaced, never half written."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n") and belongs(line)]
    write_text(path, "".join(lines))
