"""The LightningDataModule: a plan's global batches in order, and one validation item per part."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Sampler

from gcl.data.batches.batch import PairDataset, SideReader
from gcl.data.batches.loader import WatchedLoader
from gcl.data.batches.plan import Plan
from gcl.data.store.prepared import Pairs
from gcl.lit.signals import SIGNALS

logger = logging.getLogger(__name__)


class Steps(Sampler[int]):
    """Global steps first, first + 1, … total - 1; its length is always the whole run's."""

    def __init__(self, total: int) -> None:
        self.first = 0
        self.total = total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


class PairData(pl.LightningDataModule):
    """Feeds a run of `steps` global batches. State is the plan's: resuming continues at its position.

    may_change: a checkpoint of another plan is taken, too; its run goes on at the same step with this plan's batches.

    To Lightning the run is one long epoch: the plan knows epochs, so world size and workers never enter the count.
    """

    def __init__(
        self,
        pairs: Pairs,
        plan: Plan,
        *,
        query: SideReader,
        document: SideReader,
        steps: int,
        workers: int = 0,
        augment: bool = False,
        may_change: bool = False,
    ) -> None:
        super().__init__()
        self.may_change = may_change
        self.pairs = pairs
        self.plan = plan
        self.query = query
        self.document = document
        self.workers = workers
        self.augment = augment
        self.steps = Steps(steps)
        self._loader: WatchedLoader | None = None

    def train_dataloader(self) -> DataLoader:
        dataset = PairDataset(
            self.pairs,
            self.plan,
            query=self.query,
            document=self.document,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            augment=self.augment,
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
        return self._loader

    def val_dataloader(self) -> DataLoader:
        return DataLoader(["dev"], batch_size=None)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(["test"], batch_size=None)

    def teardown(self, stage: str) -> None:
        self._end_workers()

    def on_exception(self, exception: BaseException) -> None:
        self._end_workers()

    def _end_workers(self) -> None:
        """They ignore SIGTERM, by which Python would end them at exit and then wait."""
        batches = getattr(self._loader, "_iterator", None)
        if batches is not None:
            batches._shutdown_workers()
            for worker in batches._workers:
                if worker.is_alive():
                    worker.kill()
            self._loader._iterator = None

    def state_dict(self) -> dict[str, Any]:
        step = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed
        return {**self.plan.state(step), "step": step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.may_change and state["fingerprint"] != self.plan.fingerprint:
            self.steps.first = state["step"]
            logger.info("From step %d on the batches are those of the changed settings.", state["step"])
        else:
            self.steps.first = self.plan.step_of(state)


def _ignore_signals(worker: int) -> None:
    """A scheduler signals every process of a job: the main one then saves its state, and its workers must live on."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
