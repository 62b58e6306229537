"""Asked to stop (SIGTERM, SIGHUP, SIGUSR1, Ctrl-C), a run saves where it is, on all ranks at the same step, and ends.

Lightning's own handler tells the other ranks by a broadcast from inside the signal handler, which only rank 0 may send
and which can meet any other collective. Here a signal sets a number; the ranks compare their numbers once per step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from gcl.distributed.ranks import max_over_ranks
from gcl.lit.checkpoint import at_optimizer_step, save_together, validation_due

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)  # Windows has neither SIGHUP nor SIGUSR1


class Interrupted(Exception):
    """A run was asked to stop and has saved its state. `status` is what the process should exit with."""

    def __init__(self, signum: int, step: int) -> None:
        self.signum, self.step = signum, step
        name = signal.Signals(signum).name
        super().__init__(
            f"{name}: training stopped after step {step}. Continue with train.resume=auto and the same run_dir."
        )

    @property
    def status(self) -> int:
        """143 for SIGTERM, SIGHUP and SIGUSR1 (all ask for the machine back), 130 for Ctrl-C."""
        return 130 if self.signum == signal.SIGINT else 143


class Interruption(Checkpoint):
    """Ends training with Interrupted at the first optimiser step after any rank received a signal, saved in `path`.

    `requested` is what this process received, `agreed` what any rank did; whoever calls `agree` sets it, once per step.
    A validation that is due at that step is done first: what a resumed run continues is then always a whole state.
    A second Ctrl-C stops at once and saves nothing. It is a Checkpoint because Lightning calls those last, in the
    order given: it must come after BestAndLast.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requested = 0
        self.agreed = 0
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """From now on signals are noted instead of ending the process. Python lets only the main thread do this."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in SIGNALS:
            if signal.getsignal(signum) is signal.SIG_IGN:
                continue  # nohup, or a script's background: the run shall outlive its terminal
            self._before.setdefault(signum, signal.signal(signum, self._note))

    def ignore(self) -> None:
        """Puts back what handled the signals before."""
        while self._before:
            signum, handler = self._before.popitem()
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: Any) -> None:
        if signum == signal.SIGINT and self.requested == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self.requested = signum

    def agree(self, *others: int, device: torch.device) -> Sequence[int]:
        """The largest of each of `others` over all ranks; what was requested of any rank travels with them."""
        self.agreed, *rest = max_over_ranks([self.requested, *others], device)
        return rest

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self.agreed and at_optimizer_step(trainer) and not validation_due(trainer):
            save_together(trainer, self.path)
            raise Interrupted(self.agreed, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.agreed and trainer.state.fn == "fit":
            raise Interrupted(self.agreed, trainer.global_step)


def requeue(environment: Mapping[str, str] = os.environ) -> str | None:
    """Puts this SLURM job back into the queue and returns its number; None where there is no job or SLURM refuses."""
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return None
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return job if done.returncode == 0 else None
