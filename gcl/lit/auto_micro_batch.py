"""train.micro_batch=auto: the largest micro-batch that fits. Memory depends on it; the loss and gradient do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from gcl.data.batches.batch import PairBatch, SideBatch, cut, size_of
from gcl.distributed.ranks import max_over_ranks
from gcl.errors import ConfigError
from gcl.lit.module import GCLModule
from gcl.lit.sharded import ShardedStrategy
from gcl.lit.step_log import steps_of
from gcl.schema import SideName

logger = logging.getLogger(__name__)
Sides = dict[SideName, SideBatch]
_PROBE = 16  # rows whose activations are counted on a CPU
_SHARE = 0.5  # of the memory that is free there: the loader, the loss and the page cache want some too


class FitMicroBatch(Callback):
    """Before the first step each rank tries its first batch; all take the smallest result.

    On a GPU: doubling from 8 rows until memory runs out, with room kept for the optimiser's state. On a CPU, where
    running out ends the process: the bytes that a few rows' activations take, against a share of the free memory.
    """

    def __init__(self, *, budget: int | None = None) -> None:
        self.budget = budget  # bytes; None: what the machine has

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if isinstance(trainer.strategy, ShardedStrategy):
            raise ConfigError(
                "train.micro_batch=auto cannot probe the memory with trainer=fsdp: give a number of rows."
            )
        assert isinstance(module, GCLModule) and trainer.train_dataloader is not None
        batch: PairBatch = trainer.train_dataloader.dataset[steps_of(trainer).first]
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        sides: Sides = {"query": batch.query, "document": batch.document}
        rows = max(map(size_of, sides.values()))
        with unchanged(module):
            fits = (
                self._on_gpu(module, sides, rows)
                if module.device.type == "cuda"
                else self._on_cpu(trainer, module, sides)
            )
        (negative,) = max_over_ranks([-min(fits, rows)], module.device)
        module.micro_batch = None if -negative >= rows else -negative
        logger.info("Micro-batches of %s rows.", -negative if module.micro_batch else f"all {rows}")

    def _on_gpu(self, module: GCLModule, sides: Sides, rows: int) -> int:
        trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
        # AdamW's two moments, and the two copies more of the gradient that adding up micro-batches takes.
        kept = torch.empty(4 * trained, dtype=torch.uint8, device=module.device)
        size, fits = 8, 1
        while True:
            try:
                for side, batch in sides.items():
                    encode_backward(module, cut(batch, size)[0], side)
            except torch.cuda.OutOfMemoryError:
                break
            finally:
                module.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
            fits = size
            if size >= rows:
                break
            size *= 2
        del kept
        return fits

    def _on_cpu(self, trainer: pl.Trainer, module: GCLModule, sides: Sides) -> int:
        here = trainer.num_devices  # processes that share this machine's memory
        budget = self.budget or int(_SHARE * available_memory()) // here
        a_row = 1
        for side, batch in sides.items():
            some = cut(batch, _PROBE)[0]
            used = saved_bytes(partial(encode_backward, module, some, side), module.parameters())
            a_row = max(a_row, used // size_of(some))
            module.zero_grad(set_to_none=True)
        return max(1, budget // a_row)


def encode_backward(module: GCLModule, batch: SideBatch, side: SideName) -> None:
    """What training does with a micro-batch."""
    with module.trainer.precision_plugin.forward_context():
        module.encoder.embed_fields(batch, side).sum().backward()


def saved_bytes(run: Callable[[], None], without: Iterable[Tensor] = ()) -> int:
    """Bytes of all different tensors that autograd keeps while `run` runs, without some (the parameters, say).

    >>> x = torch.ones(4, requires_grad=True)
    >>> saved_bytes(lambda: (x.exp() * 2).sum().backward())
    16
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in without}
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []  # or a freed tensor's address is counted once for two

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        run()
    return sum(sizes.values())


def available_memory() -> int:
    """Bytes that can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):
        return 4 << 30  # not Linux: a modest machine's worth


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """A module's buffers (batch statistics) and the random state are afterwards what they were."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.random.fork_rng():
        yield
    module.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
