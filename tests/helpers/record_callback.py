"""A callback that writes down what a run really takes; given to a run by its config."""

import json
import time
from pathlib import Path

import lightning.pytorch as pl
import torch


class Recorder(pl.Callback):
    """Per step: repeats of queries and of documents, seconds, bytes kept for the backward pass. At the end: bytes of
    parameters, and of gradients and the optimiser's state."""

    def __init__(self, path: str) -> None:
        self.path, self.steps, self.held = Path(path), [], {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.begun = time.process_time()
        self.kept = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self.hooks.__enter__()

    def _keep(self, tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            self.kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def on_before_backward(self, trainer, module, loss):
        self.hooks.__exit__(None, None, None)

    def on_before_zero_grad(self, trainer, module, optimizer):
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        slots = [value for state in optimizer.state.values() for value in state.values()]
        self.held["parameters"] = sum(p.numel() * p.element_size() for p in module.parameters())
        if slots:
            self.held["gradients_and_adam"] = sum(t.numel() * t.element_size() for t in gradients + slots)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        same = {}
        for side in ("query", "document"):
            count = getattr(batch, f"{side}_id").unique(return_counts=True)[1]
            same[side] = int((count * (count - 1) // 2).sum())
        self.steps.append(same | {"seconds": time.process_time() - self.begun, "kept": sum(self.kept.values())})

    def on_train_end(self, trainer, module):
        self.path.write_text(json.dumps({"steps": self.steps, **self.held}))
