"""Before anything is exchanged, all ranks compare what they are about to do: the first difference ends the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from gcl.distributed.ranks import gather_objects


class Agreement(Callback):
    """facts: {dotted name: plain value} of everything that must be the same on every rank (config, plan, versions)."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self._agreed = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if not self._agreed:
            check_same(gather_objects(self.facts))
            self._agreed = True


def check_same(facts: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError naming the ranks and keys that differ from rank 0.

    >>> check_same([{"torch": "2.6", "seed": 0}, {"torch": "2.7", "seed": 0}])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The ranks do not agree: torch is '2.7' on rank 1 and '2.6' on rank 0. Start all of them with ...
    """
    different = [
        f"{key} is {_shown(other, key)} on rank {rank} and {_shown(facts[0], key)} on rank 0"
        for rank, other in enumerate(facts)
        for key in dict.fromkeys([*facts[0], *other])
        if _shown(other, key) != _shown(facts[0], key)
    ]
    if different:
        more = f" (and {len(different) - 5} more)" if len(different) > 5 else ""
        raise ValueError(
            f"The ranks do not agree: {'; '.join(different[:5])}{more}. "
            "Start all of them with the same command, files and packages."
        )


def _shown(facts: Mapping[str, Any], key: str) -> str:
    return repr(facts[key]) if key in facts else "not set"
