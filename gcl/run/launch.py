"""The processes of a training run on this machine and on others: found, or started, before anything heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gcl.errors import ProcessLost
from gcl.lit.settings import TrainerConfig
from gcl.run.early import gpu_files


@contextmanager
def all_ranks(trainer: TrainerConfig) -> Iterator[None]:
    """Runs the block with a process group over all processes of the run, whoever starts them: torchrun, SLURM, or, for
    several devices of one machine, this process. One process alone needs none.

    Raises ProcessLost, in a sentence, when another process does not begin, fails or is lost.
    """
    if not _several(trainer):
        yield
        return
    # Read as torch loads. Its warnings of a store that is gone, with frames of C++, would stand before our sentence.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import lightning.pytorch as pl
    import torch

    from gcl.config.compose import build
    from gcl.distributed.group import Place, started
    from gcl.lit.lightning_internals import start_children
    from gcl.run.console import quiet_libraries

    quiet_libraries()
    strategy = trainer.strategy if isinstance(trainer.strategy, str) else build(trainer.strategy)
    probe = pl.Trainer(
        accelerator=trainer.accelerator, devices=trainer.devices, num_nodes=trainer.num_nodes, strategy=strategy,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    device, environment = probe.strategy.root_device, getattr(probe.strategy, "cluster_environment", None)
    if probe.world_size == 1 or environment is None or device.type not in ("cpu", "cuda"):
        yield  # one process after all, or a device whose library starts and joins processes itself
        return
    children = start_children(probe)

    def look() -> None:
        for number, child in enumerate(children, 1):
            if child.poll():
                raise ProcessLost(
                    f"Rank {number} ended with status {child.returncode} as it began: its output says why."
                )

    if device.type == "cuda":
        torch.cuda.set_device(device)
    place = Place(probe.global_rank, probe.world_size, environment.main_address, environment.main_port)
    with started(
        place,
        backend="nccl" if device.type == "cuda" else "gloo",
        start_timeout=trainer.start_timeout,
        timeout=trainer.timeout,
        look=look,
    ):
        yield


@contextmanager
def launched_ranks(trainer: TrainerConfig) -> Iterator[None]:
    """The same for a command that only measures: the processes that a launcher began (torchrun, srun, Ray Train),
    whatever `trainer` says of their number; without one, this process alone."""
    ranks = launched_count()
    if ranks == 1:
        yield
        return
    nodes = _number("SLURM_NNODES") if "WORLD_SIZE" not in os.environ else ranks // _number("LOCAL_WORLD_SIZE")
    with all_ranks(replace(trainer, devices=ranks // nodes, num_nodes=nodes, strategy="ddp")):
        yield


def launched_count() -> int:
    """How many processes a launcher began; 1 without one."""
    return _number("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def _number(*names: str) -> int:
    """The first of these variables that is set; 1 without any."""
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 1)


def _several(trainer: TrainerConfig) -> bool:
    """Whether there may be several processes; for one on the CPU nothing has to be loaded to know."""
    launched = max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_NTASKS"))
    if launched > 1 or trainer.num_nodes > 1 or trainer.devices not in ("auto", 1, "1"):
        return True
    if trainer.accelerator in ("cpu", "mps", "tpu") or trainer.devices != "auto":
        return False
    if sys.platform.startswith("linux") and not gpu_files():
        return False
    import torch

    return torch.cuda.device_count() > 1
