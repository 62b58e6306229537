"""The LightningDataModule: a plan's global batches in order, and one item per part for validation and test."""

from __future__ import annotations

import logging
import signal
from collections.abc import Collection
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset

from gcl.data.batches.batch import PairDataset, SideReader
from gcl.data.batches.loader import WatchedLoader
from gcl.data.batches.lookups import Lookups
from gcl.data.batches.order import BatchOrder
from gcl.data.batches.read_ahead import read_ahead
from gcl.lit.lightning_internals import end_workers, progress
from gcl.lit.signals import SIGNALS
from gcl.lit.step_log import Steps

logger = logging.getLogger(__name__)


class PairData(pl.LightningDataModule):
    """Feeds a run of `steps` global batches. Its state is the plan's: resuming continues at its position.

    lookups: what the loss has to know of every batch besides its pairs.
    may_change: "batches": a checkpoint of another plan is accepted, too; its run continues at the same step with this
        plan's batches. "teacher": so is one that learned from another teacher.

    To Lightning the run is one long epoch: the plan knows epochs, so world size and workers never enter the count.
    """

    def __init__(
        self,
        plan: BatchOrder,
        *,
        query: SideReader,
        document: SideReader,
        steps: int,
        workers: int = 0,
        augment: bool = False,
        lookups: Lookups | None = None,
        may_change: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.plan = plan
        self.query, self.document = query, document
        self.steps = Steps(steps)
        self.workers, self.augment, self.may_change = workers, augment, may_change
        self.lookups = lookups or Lookups()
        self._loader: WatchedLoader | None = None

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        dataset = PairDataset(
            self.plan.pairs,
            self.plan,
            query=self.query,
            document=self.document,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            augment=self.augment,
            lookups=self.lookups,
        )
        self._loader = WatchedLoader(
            dataset,
            batch_size=None,
            sampler=self.steps,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
            prefetch_factor=2 if self.workers else None,
            worker_init_fn=_ignore_signals,
        )
        self._loader.ahead = read_ahead(dataset, self.steps.first, ranks_here=self.trainer.num_devices)
        return self._loader

    def val_dataloader(self) -> DataLoader:
        return DataLoader(_OnePart("dev"), batch_size=None)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(_OnePart("test"), batch_size=None)

    def teardown(self, stage: str) -> None:
        self._end_workers()

    def on_exception(self, exception: BaseException) -> None:
        self._end_workers()

    def _end_workers(self) -> None:
        if self._loader is not None:
            end_workers(self._loader)

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        step = progress(self.trainer).processed
        return {**self.plan.state(step), "step": step, "teacher": self.lookups.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("teacher") != self.lookups.digest and "teacher" not in self.may_change:
            raise ValueError(
                "The run cannot be resumed: what its teacher says has changed since it began (the file or the run that "
                "teacher names). Put it back, begin a new run, or continue with what there is: "
                "train.allow_change=[teacher]."
            )
        try:
            self.steps.first = self.plan.step_of(state)
        except ValueError:
            if "batches" not in self.may_change:
                raise
            self.steps.first = state["step"]
            logger.info("From step %d on, batches follow the changed settings.", state["step"])


class _OnePart(Dataset[str]):
    """The name of a part, "dev" or "test", as the only item of a data set.

    Measuring is one call for a whole part (embed, search, measure), which shares the records among the ranks itself.
    It goes through a Lightning loop all the same, because that puts the model on its device, under the strategy and
    precision of the run, and makes every rank take part: one item makes every rank call the step exactly once.
    """

    def __init__(self, part: str) -> None:
        self.part = part

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> str:
        if index:
            raise IndexError(index)
        return self.part


def _ignore_signals(worker: int) -> None:
    """A scheduler signals every process of a job: the main one then saves its state, and its workers must live on."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
