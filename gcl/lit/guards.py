"""Guards of a run: ranks that would do different things are stopped before they exchange anything, and a loss or
gradient that is not finite never reaches the weights."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from gcl.distributed.ranks import check_same, gather_objects
from gcl.files.atomic import write_json
from gcl.lit.module import GCLModule
from gcl.lit.settings import NonFinitePolicy
from gcl.lit.signals import Interruption
from gcl.lit.step_log import keep_before, steps_of
from gcl.table import readable_json

_WARM = 8  # a median of fewer steps says little


class Agreement(Callback):
    """Before anything else is exchanged, all ranks compare what they are about to do; a difference ends the run.

    facts: {dotted name: plain value} of everything that must be the same on every rank (config, plan, versions).
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self._agreed = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if not self._agreed:
            check_same(gather_objects(self.facts))
            self._agreed = True


class NonFinite(ValueError):
    """A loss or gradient that is not finite; training stopped before it reached the weights."""


class RollBack(Exception):
    """Training has to go back to the last checkpoint and pass over the batches of `steps`."""

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps
        super().__init__(f"back to the last checkpoint, without step {steps[0]}")


class Guard(Callback):
    """Before each optimiser step the ranks agree whether any of them found a loss or gradient norm that is not finite.

    policy: "stop" ends the run with NonFinite; "skip" leaves the weights as they are and continues; "rollback" raises
        RollBack, for the caller to continue from the last checkpoint (before the first one it is "skip"). More than
        `max_skips` of either end the run.
    describe: `(step) -> dict` of a global batch for people: the ids of its queries and documents.
    spike_factor: a loss or norm above this many times its running median is recorded in spikes.jsonl; None: never.
    Each bad step leaves <folder>/nonfinite-step-N.json. The same collective carries the interruption's signal.
    """

    def __init__(
        self,
        folder: Path,
        describe: Callable[[int], dict[str, Any]],
        interruption: Interruption,
        *,
        policy: NonFinitePolicy = NonFinitePolicy.stop,
        max_skips: int = 10,
        can_roll_back: Callable[[], bool] = lambda: True,
        spike_factor: float | None = 5.0,
        window: int = 128,
    ) -> None:
        self.folder, self.describe, self.interruption = folder, describe, interruption
        self.policy, self.max_skips, self.spike_factor = policy, max_skips, spike_factor
        self.can_roll_back = can_roll_back
        self.recent: dict[str, deque[float]] = {name: deque(maxlen=window) for name in ("loss", "gradient norm")}
        self.skipped: list[int] = []  # first step of each bad batch so far
        self.avoided: set[int] = set()  # what a rollback passes over
        self._steps: list[int] = []  # of the batches since the last optimiser step

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._steps = []
        if trainer.is_global_zero:
            first = steps_of(trainer).first
            keep_before(self.folder / "spikes.jsonl", lambda line: json.loads(line)["step"] < first)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, idx: int) -> None:
        self._steps.append(batch.step)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        assert isinstance(module, GCLModule)
        steps, self._steps = self._steps, []
        values = dict(zip(self.recent, module.loss_and_norm(), strict=True))
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            values.pop("gradient norm")  # float16's scaler looks for infinities itself and expects some
        bad = not all(map(math.isfinite, values.values()))
        (anywhere,) = self.interruption.agree(int(bad), device=module.device)
        if anywhere:
            self._refuse(trainer, module, steps, values)
        elif self.avoided.intersection(steps):
            module.forget_gradients()
        else:
            self._look_for_spikes(trainer, steps, values)

    def _refuse(self, trainer: pl.Trainer, module: GCLModule, steps: list[int], values: dict[str, float]) -> None:
        path = self.folder / f"nonfinite-step-{steps[0]}.json"
        if steps[0] not in self.skipped:
            self.skipped.append(steps[0])
        if trainer.is_global_zero:
            shown = {name: repr(value) for name, value in values.items()}
            content: dict[str, Any] = {"policy": self.policy.value, **shown, "parameters": _not_finite(module)}
            content["batches"] = [self.describe(step) for step in steps]
            write_json(path, content, ascii=False)
        told = ", ".join(f"{name} {value:g}" for name, value in values.items())
        where = (
            f"Step {steps[0]} gave {told} at a learning rate of {module.learning_rate:g} on at least one rank; its "
            f"batch is recorded in {path}."
        )
        if self.policy is NonFinitePolicy.stop:
            raise NonFinite(
                f"{where} The weights are unchanged by it. If only this batch is bad, check its records, or set "
                "train.nonfinite=skip (skip such batches) or rollback (also return to the last checkpoint). If the run "
                f"has diverged: {module.what_to_try()}"
            )
        if len(self.skipped) > self.max_skips:
            raise NonFinite(
                f"{where} These are {len(self.skipped)} such steps, more than train.max_skips={self.max_skips} allows."
            )
        if self.policy is NonFinitePolicy.rollback and not self.avoided.intersection(steps) and self.can_roll_back():
            self.avoided.update(steps)
            raise RollBack(steps)
        module.forget_gradients()

    def _look_for_spikes(self, trainer: pl.Trainer, steps: list[int], values: dict[str, float]) -> None:
        for name, value in values.items():
            recent = self.recent[name]
            usual = statistics.median(recent) if len(recent) >= _WARM and self.spike_factor else math.inf
            if value > (self.spike_factor or 0) * usual and trainer.is_global_zero:
                line: dict[str, Any] = {"step": steps[0], "what": name, "value": value, "median": usual}
                line["batches"] = [self.describe(step) for step in steps]
                with open(self.folder / "spikes.jsonl", "a", encoding="utf-8") as file:
                    file.write(readable_json(line) + "\n")
            recent.append(value)

    def state_dict(self) -> dict[str, Any]:
        recent = {name: list(values) for name, values in self.recent.items()}
        return {"recent": recent, "skipped": self.skipped, "avoided": sorted(self.avoided)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, values in state_dict["recent"].items():
            self.recent[name].clear()
            self.recent[name].extend(values)
        # What was learnt since the checkpoint must survive going back to it.
        self.skipped = sorted({*self.skipped, *state_dict["skipped"]})
        self.avoided.update(state_dict["avoided"])


def _not_finite(module: torch.nn.Module) -> list[str]:
    """Parameters whose gradient on this rank is not finite everywhere."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
    ]
