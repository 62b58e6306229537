"""What every sequence of batches has: steps counted from 0, epochs, and a position that can be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from gcl.data.batches.negatives import Negatives
from gcl.data.store.prepared import Pairs


class Draw(NamedTuple):
    """How chance makes a batch: `size` of the pair rows from `start` to `stop`, in a share of the batches."""

    start: int
    stop: int
    size: float
    share: float = 1.0


class BatchOrder(ABC):
    """A pure function step -> pair rows. `batch_size` N counts the pairs of all ranks. negatives: what joins them."""

    pairs: Pairs
    batch_size: int
    seed: int
    steps_per_epoch: int
    negatives: Negatives | None = None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over the pairs and every option that moves a pair; resuming needs the same one."""

    @abstractmethod
    def batch(self, step: int) -> np.ndarray:
        """Pair rows of a global step, int64[N] or fewer."""

    def draws(self) -> list[Draw]:
        """From which rows a batch is drawn, regardless of order and options."""
        return [Draw(0, len(self.pairs), self.batch_size)]

    def epoch_of(self, step: int) -> int:
        return step // self.steps_per_epoch

    def position_of(self, step: int) -> int:
        """Number of the batch within its epoch."""
        return step % self.steps_per_epoch

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps so that a resumed run continues at `step`."""
        own = self.negatives.state(step) if self.negatives else {}
        place = {"epoch": self.epoch_of(step), "position": self.position_of(step)}
        return {"fingerprint": self.fingerprint, **place, **own}

    def step_of(self, state: dict[str, Any]) -> int:
        """The step at which a saved state continues. Raises ValueError when pairs or options are not the saved ones."""
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"The checkpoint was written for another sequence of batches (plan {state['fingerprint'][:12]}, now "
                f"{self.fingerprint[:12]}): the training pairs, batch_size, seed or sampling options have changed. "
                "Restore them, or continue at the same step with the new ones: name what changed, for example "
                "train.allow_change=[data] where the catalog's files did."
            )
        if self.negatives is not None:
            self.negatives.check(state)
        return state["epoch"] * self.steps_per_epoch + state["position"]

    def _check_step(self, step: int) -> None:
        if step < 0:
            raise ValueError(f"step is {step}: steps count from 0.")
