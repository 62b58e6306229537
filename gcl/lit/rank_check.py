"""Before anything is exchanged, all ranks compare what they are about to do: the first difference ends the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from gcl.distributed.ranks import check_same, gather_objects


class Agreement(Callback):
    """facts: {dotted name: plain value} of everything that must be the same on every rank (config, plan, versions)."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self._agreed = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if not self._agreed:
            check_same(gather_objects(self.facts))
            self._agreed = True
