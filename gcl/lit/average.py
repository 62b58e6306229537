"""The exponential moving average of what is trained (train.ema).

Lightning's EMAWeightAveraging copies the frozen weights as well and leaves the copies in every checkpoint, measures the
average alone, and does not know sharded models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gcl.lit.sharded import is_sharded, load_weights, whole_tensor


class Average:
    """average <- d average + (1 - d) weights at every optimiser step t = 1, 2, …, d = min(decay, (1 + t) / (10 + t)):
    a short run's average is not the weights it began with (as in TensorFlow's ExponentialMovingAverage).

    Only what is trained has a copy, and the running statistics that a trained batch norm keeps. Every rank averages
    what it holds: the same whole weights, or its shards of them.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.updates = 0
        self.in_module = False
        self._weights = _trained(module)
        self._average = {name: value.detach().clone() for name, value in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Call after each optimiser step."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in self._weights.items():
            _local(self._average[name]).lerp_(_local(value), share)

    @contextmanager
    def put_in_place(self) -> Iterator[None]:
        """The module has the average's weights meanwhile, and a checkpoint saved meanwhile is the average's."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self._weights.items():
            ours, theirs = _local(self._average[name]), _local(value)
            kept = ours.clone()
            ours.copy_(theirs)
            theirs.copy_(kept)
        self.in_module = not self.in_module

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has in addition to the module's weights; all ranks take part."""
        values = {name: whole_tensor(value).cpu() for name, value in self._average.items()}
        return {"updates": self.updates, "is_average": not self.in_module, "values": values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a checkpoint whose weights the module has already: afterwards it has the trained ones, not the average."""
        self.updates, self.in_module = state["updates"], False
        self._average = {name: value.detach().clone() for name, value in self._weights.items()}
        load_weights(self.module, state["values"], strict=False)
        if state["is_average"]:
            self._exchange()
            self.in_module = False


def _trained(module: nn.Module) -> dict[str, Tensor]:
    """{name in the state dict: parameter or running statistic}."""
    tensors: dict[str, Tensor] = {name: value for name, value in module.named_parameters() if value.requires_grad}
    for place, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and any(p.requires_grad for p in part.parameters(False)):
            for name, value in part.named_buffers(place, recurse=False):
                if value.is_floating_point():
                    tensors[name] = value
    return tensors


def _local(tensor: Tensor) -> Tensor:
    """What this rank holds of it, in the same memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
