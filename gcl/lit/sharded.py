"""Fully sharded training (FSDP2): every rank holds a share of each weight, its gradient and its optimiser state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from gcl.distributed.ranks import world
from gcl.lit.lightning_internals import share_data_among_all_ranks
from gcl.model.dual_encoder import DualEncoder


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 with all ranks sharing the data; a checkpoint is one file with whole tensors.

    So it opens anywhere: in one process, under another number of ranks, in `gcl export`.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        share_data_among_all_ranks(self, self.num_nodes * self.num_processes)
        super().setup_environment()


def shard(encoder: DualEncoder, mesh: DeviceMesh) -> None:
    """Shards an encoder in place over the mesh: its transformer blocks one by one, then what remains."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # FSDP2 cannot split a number; the checkpoint's scale and bias are not trained here (the loss has its own).
    for parameter in encoder.parameters():
        parameter.data = parameter.data.contiguous()  # nor what lies in channels_last
    whole = {parameter for parameter in encoder.parameters() if parameter.ndim == 0}
    for block in _blocks(encoder):
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh, ignored_params=whole)
    register_fsdp_forward_method(encoder, "embed_fields")


@contextmanager
def gathered(encoder: DualEncoder) -> Iterator[None]:
    """Every rank holds all weights meanwhile: for measuring, where ranks encode different numbers of blocks."""
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in encoder.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not encoder, recurse=False)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The members of lists of equal layers, whose weights are then gathered only while they compute."""
    return [
        layer
        for part in module.modules()
        if isinstance(part, (nn.ModuleList, nn.Sequential)) and len(part) > 1
        for layer in part
        if type(layer).__name__.endswith(("Block", "Layer")) and any(True for _ in layer.parameters())
    ]


def load_weights(module: nn.Module, state: dict[str, Any], *, strict: bool = True) -> None:
    """A state of whole tensors into a module, sharded or not. strict: the state must have all of the module's."""
    if not any(map(is_sharded, module.parameters())):
        module.load_state_dict(state, strict=strict)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True, strict=strict))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean over ranks of the gradients of parameters that every rank holds whole (the loss's scale and bias)."""
    for parameter in parameters:
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= world()[1]


def is_sharded(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, DTensor)


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
