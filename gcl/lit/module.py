"""The LightningModule: where the dual encoder, the loss and the batches meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from gcl.data.batches.batch import PairBatch, SideBatch
from gcl.lit.encode import encode_parts
from gcl.lit.sharded import ShardedStrategy, average_gradients, gathered, is_sharded, shard
from gcl.loss.gather import gather_rows
from gcl.loss.gcl import GCLLoss, LossOutput, Part
from gcl.model.dual_encoder import DualEncoder
from gcl.optim.groups import Rule, parameter_groups


class GCLModule(pl.LightningModule):
    """Trains a DualEncoder with a GCLLoss.

    optimizer: `(parameter groups) -> Optimizer`; schedule: `(step, warmup=, total=) -> factor`.
    warmup below 1 is a share of all `total_steps` optimiser steps, from 1 on a number of steps.
    validate: `(encoder) -> {task: {metric: mean}}` on the dev halves; measure: `(encoder) -> results` on the test
    halves, kept in `measured`. Both are the call that `evaluate.py` makes; every rank takes part in it.
    retain: `(encoder) -> values` of general sets, for the curve; "retention/within" of 0 keeps a checkpoint from being
    the best one.
    seed: the random state of step s is a function of (seed, s, rank), so a resumed run draws what the whole run drew.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        loss: GCLLoss,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., float],
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        total_steps: int,
        layer_decay: float = 1.0,
        rules: Mapping[str, Rule] | None = None,
        micro_batch: int | None = None,
        validate: Callable[[DualEncoder], Mapping[str, Mapping[str, float]]] | None = None,
        measure: Callable[[DualEncoder], Any] | None = None,
        retain: Callable[[DualEncoder], Mapping[str, float]] | None = None,
        monitor: str = "ndcg@10",
        monitor_tasks: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.total_steps = total_steps
        self.layer_decay = layer_decay
        self.rules = dict(rules or {})
        self.micro_batch = micro_batch
        self.validate = validate
        self.measure = measure
        self.retain = retain
        self.measured: Any = None
        self.monitor = monitor
        self.monitor_tasks = monitor_tasks
        self.seed = seed
        self.last_loss: Tensor | None = None
        self._norm: Tensor | None = None

    def configure_model(self) -> None:
        """Called by Lightning before each of fit and test; only a sharding strategy has something to do."""
        if isinstance(self.trainer.strategy, ShardedStrategy) and not any(map(is_sharded, self.encoder.parameters())):
            shard(self.encoder, self.device_mesh["data_parallel"])

    def on_after_backward(self) -> None:
        if isinstance(self.trainer.strategy, ShardedStrategy):
            average_gradients(self.loss.parameters())

    def forward(self, batch: SideBatch, side: str) -> Tensor:
        return self.encoder(batch, side)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        output = self.contrast(batch)
        self.last_loss = output.loss.detach()
        self._log_step(output, len(batch.score))
        return output.loss

    def contrast(self, batch: PairBatch) -> LossOutput:
        """The loss of a global batch: encode this rank's share, gather, pair up, compare."""
        query = self._parts(batch.query, "query", batch.query_row)
        document = self._parts(batch.document, "document", batch.document_row)
        return self.loss(query, document, score=batch.score, query_id=batch.query_id, document_id=batch.document_id)

    def _parts(self, side_batch: SideBatch, side: str, row: Tensor) -> dict[str, Part]:
        """{part: Part of [N, D]}: the parts that the loss's terms name, one row a pair of the global batch."""
        names = {getattr(term, side) for term in self.loss.terms}
        local = encode_parts(self.encoder, side_batch, side, names, micro_batch=self.micro_batch)
        return {
            name: Part(
                gather_rows(part.embedding)[row],
                None if part.present is None else gather_rows(part.present)[row],
            )
            for name, part in local.items()
        }

    def _log_step(self, output: LossOutput, pairs: int) -> None:
        self.log("train/loss", output.loss.detach(), prog_bar=True, batch_size=pairs)
        if self.logs_now():
            rates = [group["lr"] for group in self.optimizers().param_groups]
            values = {
                "train/scale": output.scale,
                "train/bias": output.bias,
                "train/masked": output.masked,
                "train/learning_rate": max(rates),
            }
            if min(rates) < max(rates):  # optim.rules or optim.layer_decay
                values["train/learning_rate_lowest"] = min(rates)
            self.log_dict(values, batch_size=pairs)

    def logs_now(self) -> bool:
        """Whether the logger takes what is logged in this step; the rest need not be computed."""
        return (self.trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % self.trainer.log_every_n_steps == 0

    def on_train_batch_start(self, batch: PairBatch, batch_idx: int) -> None:
        torch.manual_seed(hash((self.seed, batch.step, self.global_rank)) & 0x7FFFFFFF)

    def loss_and_norm(self) -> tuple[float, float]:
        """The last loss and the norm of the gradient before clipping, in one transfer from the device."""
        self._norm = gradient_norm(self.parameters())
        loss, norm = torch.stack([self.last_loss.float(), self._norm.float()]).tolist()
        if self.logs_now():
            self.log("train/gradient_norm", norm, batch_size=1)
        return loss, norm

    def forget_gradients(self) -> None:
        """Makes the coming optimiser step leave every parameter, its decay and its moments as they are."""
        self._norm = None
        for parameter in self.parameters():
            parameter.grad = None

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """Clips by the norm that was measured already."""
        norm, self._norm = self._norm, None
        if norm is None or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            parameters = list(self.parameters())
            for together in ([p for p in parameters if is_sharded(p)], [p for p in parameters if not is_sharded(p)]):
                torch.nn.utils.clip_grads_with_norm_(together, gradient_clip_val, norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.loss.clamp_()

    def validation_step(self, part: str, batch_idx: int) -> None:
        with gathered(self.encoder):
            results = self.validate(self.encoder)
            general = self.retain(self.encoder) if self.retain is not None else {}
        self.log_dict(dict(general), batch_size=1)
        for task, metrics in results.items():
            self.log_dict({f"dev/{task}/{metric}": value for metric, value in metrics.items()}, batch_size=1)
        watched = [
            m[self.monitor] for task, m in results.items() if self.monitor_tasks is None or task in self.monitor_tasks
        ]
        if not watched:
            raise ValueError(
                f"evaluate.monitor_tasks={self.monitor_tasks} names no task that was measured: {', '.join(results)}."
            )
        self.log(f"dev/{self.monitor}", math.fsum(watched) / len(watched), prog_bar=True, batch_size=1)

    def test_step(self, part: str, batch_idx: int) -> None:
        with gathered(self.encoder):
            self.measured = self.measure(self.encoder)

    def configure_optimizers(self) -> dict[str, Any]:
        groups = parameter_groups(
            ((name.removeprefix("encoder.model."), parameter) for name, parameter in self.named_parameters()),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            rules=self.rules,
            layer_decay=self.layer_decay,
        )
        for group in groups:
            group.pop("names")
        optimizer = self.optimizer(groups)
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            # A fused step would divide by float16's loss scale only after the norm was measured and clipped.
            optimizer._step_supports_amp_scaling = False
            for group in optimizer.param_groups:
                group["fused"] = False
        total = self.total_steps
        warmup = round(self.warmup * total) if self.warmup < 1 else int(self.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule(step, warmup=warmup, total=total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, unclipped; of all shards where parameters are sharded."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sharded = [gradient for gradient in gradients if is_sharded(gradient)]
    if not sharded:
        return torch.nn.utils.get_total_norm(gradients)
    whole = torch.nn.utils.get_total_norm([gradient for gradient in gradients if not is_sharded(gradient)])
    return torch.hypot(torch.nn.utils.get_total_norm(sharded).full_tensor(), whole)
