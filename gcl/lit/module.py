"""The LightningModule: where the dual encoder, the loss and the batches meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from gcl.data.batches.batch import PairBatch, SideBatch
from gcl.distributed.ranks import own_rows
from gcl.lit.average import Average
from gcl.lit.grad_cache import BY_QUERY, encode_parts
from gcl.lit.learned_weights import LearnedByQuery, LearnedWeights
from gcl.lit.lightning_internals import is_logged, step_unscaled
from gcl.lit.sharded import ShardedStrategy, average_gradients, gathered, is_sharded, shard, whole_tensor
from gcl.loss.gather import gather_rows
from gcl.loss.gcl import GCLLoss, LossOutput, Part
from gcl.loss.settings import FUSED
from gcl.model.dual_encoder import DualEncoder
from gcl.optim.groups import parameter_groups
from gcl.optim.settings import Rule
from gcl.retrieval.metrics.torchmetric import RetrievalMetrics
from gcl.retrieval.page.curve import OF_AVERAGE
from gcl.retrieval.search.exact import NotFinite
from gcl.schema import Modality, SideName

PerQuery = Mapping[str, Mapping[str, np.ndarray]]  # {task: {metric: [Q]}}


class Diverged(ValueError):
    """The weights no longer give vectors that are finite."""


@dataclass(frozen=True)
class Optimization:
    """How the parameters move.

    optimizer: `(parameter groups) -> Optimizer`; schedule: `(step, warmup=, total=) -> factor`.
    warmup below 1 is a share of all `total_steps` optimiser steps, from 1 on a number of steps.
    layer_decay, rules: see gcl.optim.groups.parameter_groups.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[..., float]
    learning_rate: float
    weight_decay: float
    warmup: float
    total_steps: int
    layer_decay: float = 1.0
    rules: Mapping[str, Rule] = field(default_factory=dict)


@dataclass(frozen=True)
class Measuring:
    """What is measured while training, by every rank together: embed, search and measure, as `evaluate.py` does.

    validate: `(encoder) -> {task: {metric: [Q]}}`, every query of the dev halves.
    measure: `(encoder) -> results` on the test halves; they are kept in `GCLModule.measured`.
    retain: `(encoder) -> values` of general sets, for the curve; "retention/within" of 0 keeps a checkpoint from being
        the best one.
    monitor: the metric whose mean over monitor_tasks (None: all tasks) chooses the best checkpoint.
    """

    validate: Callable[[DualEncoder], PerQuery]
    measure: Callable[[DualEncoder], Any] | None = None
    retain: Callable[[DualEncoder], Mapping[str, float]] | None = None
    monitor: str = "ndcg@10"
    monitor_tasks: Sequence[str] | None = None


class GCLModule(pl.LightningModule):
    """Trains a DualEncoder with a GCLLoss.

    micro_batch: rows encoded at a time; None: all.
    ema: the decay of an average of the trained weights, which validations measure as well; None: no average.
    seed: the random state of step s is a function of (seed, s, rank), so a resumed run draws what the whole run drew.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        loss: GCLLoss,
        optimization: Optimization,
        *,
        measuring: Measuring | None = None,
        micro_batch: int | None = None,
        ema: float | None = None,
        seed: int = 0,
        field_weights: LearnedWeights | LearnedByQuery | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.loss = loss
        self.field_weights = field_weights if isinstance(field_weights, LearnedWeights) else None
        self.query_weights = field_weights if isinstance(field_weights, LearnedByQuery) else None
        self.optimization = optimization
        self.measuring = measuring
        self.micro_batch: int | None = micro_batch
        self.ema = ema
        self.average: Average | None = None  # while fitting
        self._saved_average: dict[str, Any] | None = None
        self.seed = seed
        self.measured: Any = None
        self.last_loss = torch.tensor(math.nan)
        self.dev_metrics: dict[str, RetrievalMetrics] = {}  # of the validation in progress, or of the last one
        self.average_metrics: dict[str, RetrievalMetrics] = {}  # the same of the average of the weights
        self._norm: Tensor | None = None

    def configure_model(self) -> None:
        """Called by Lightning before each of fit and test; only a sharding strategy has something to do."""
        if isinstance(self.trainer.strategy, ShardedStrategy) and not any(map(is_sharded, self.encoder.parameters())):
            assert self.device_mesh is not None
            shard(self.encoder, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Models come from their libraries in whatever mode, and measuring the base leaves them in evaluation mode."""
        self.train()
        if not isinstance(self.trainer.strategy, ShardedStrategy):
            self._begin_average()

    def on_train_start(self) -> None:
        """Sharded models have their checkpoint's weights only now."""
        if isinstance(self.trainer.strategy, ShardedStrategy):
            self._begin_average()

    def _begin_average(self) -> None:
        if self.ema is not None:
            self.average = Average(self, self.ema)
            if self._saved_average is not None:
                self.average.load_state_dict(self._saved_average)
                self._saved_average = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._saved_average = checkpoint.get("average")

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self.loss.clamp_()
            self.average.update()

    def on_validation_model_train(self) -> None:
        assert self.trainer.model is not None
        self.trainer.model.train()

    def on_after_backward(self) -> None:
        if isinstance(self.trainer.strategy, ShardedStrategy):
            others = (self.loss, self.field_weights, self.query_weights)
            average_gradients([p for part in others if part is not None for p in part.parameters()])

    def forward(self, batch: SideBatch, side: SideName) -> Tensor:
        return self.encoder(batch, side)

    def on_train_batch_start(self, batch: PairBatch, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self.seed, batch.step, self.global_rank))

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        output, gate = self._contrasted(batch)
        self.last_loss = output.loss.detach()
        self._log_step(output, len(batch.score))
        if gate is None:
            return output.loss
        self.log("train/query_weights", gate.loss.detach(), batch_size=len(batch.score))
        return output.loss + gate.loss

    def contrast(self, batch: PairBatch) -> LossOutput:
        """The loss of a global batch: encode this rank's share, gather, pair up, compare."""
        return self._contrasted(batch)[0]

    def _contrasted(self, batch: PairBatch) -> tuple[LossOutput, LossOutput | None]:
        """The loss of the towers, and that of the field weights that queries give."""
        query = self._parts(batch.query, "query", batch.query_row)
        document = self._parts(batch.document, "document", batch.document_row)
        known = dict(batch.known or {})
        of_pairs = {"score": batch.score, "query_id": batch.query_id, "document_id": batch.document_id}
        if self.query_weights is None:
            return self.loss(query, document, **of_pairs, **known), None
        gated = {FUSED: query.pop(BY_QUERY)}, {FUSED: document.pop(BY_QUERY)}
        output = self.loss(query, document, **of_pairs, **known)
        known.pop("teacher", None)  # which knows vectors, not weights
        return output, self.query_weights.loss(*gated, **of_pairs, **known)

    def _parts(self, side_batch: SideBatch, side: SideName, row: Tensor) -> dict[str, Part]:
        """{part: Part of [N, D]}: the parts that the loss's terms name, one row per pair of the global batch."""
        names = {getattr(term, side) for term in self.loss.terms}
        weight = None if self.field_weights is None else self.field_weights(side)
        gate = None if self.query_weights is None else self.query_weights.gate
        names |= set() if gate is None else {BY_QUERY}
        local = encode_parts(
            self.encoder, side_batch, side, names, micro_batch=self.micro_batch, weight=weight, gate=gate
        )
        return {
            name: Part(
                gather_rows(part.embedding)[row],
                None if part.present is None else gather_rows(part.present)[row],
            )
            for name, part in local.items()
        }

    def _log_step(self, output: LossOutput, pairs: int) -> None:
        self.log("train/loss", output.loss.detach(), prog_bar=True, batch_size=pairs)
        if is_logged(self.trainer):
            rates = [group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
            values = {
                "train/scale": output.scale,
                "train/bias": output.bias,
                "train/masked": output.masked,
                "train/learning_rate": max(rates),
            }
            if output.teacher is not None:
                values["train/teacher"] = output.teacher
            if min(rates) < max(rates):  # optim.rules or optim.layer_decay
                values["train/learning_rate_lowest"] = min(rates)
            self.log_dict(values, batch_size=pairs)

    def loss_and_norm(self) -> tuple[float, float]:
        """The last loss and the norm of the gradient before clipping, in one transfer from the device."""
        self._norm = gradient_norm(self._parameters_of_norm())
        loss, norm = torch.stack([self.last_loss.float(), self._norm.float()]).tolist()
        if is_logged(self.trainer):
            self.log("train/gradient_norm", norm, batch_size=1)
        return loss, norm

    def _parameters_of_norm(self) -> list[nn.Parameter]:
        """All but the gate's: the norm that the towers are clipped by knows nothing of it, and its own gradient, of
        weights from 0 to 1 and unit vectors, is never large."""
        return [one for name, one in self.named_parameters() if not name.startswith("query_weights.")]

    @property
    def learning_rate(self) -> float:
        """The highest of all parameters' in the current step."""
        return max(group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups)

    def what_to_try(self) -> str:
        """Where a run has diverged."""
        highest, clip = self.optimization.learning_rate, self.trainer.gradient_clip_val
        clipped = "" if clip else ", optim.clip_norm=1"
        return (
            f"Try optim.learning_rate={highest / 10:g} (it is {highest:g}), a longer optim.warmup{clipped}, or "
            "trainer.precision=32-true; a checkpoint before it is continued with train.resume=auto."
        )

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
            parameters = self._parameters_of_norm()
            for together in ([p for p in parameters if is_sharded(p)], [p for p in parameters if not is_sharded(p)]):
                torch.nn.utils.clip_grads_with_norm_(together, gradient_clip_val, norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.loss.clamp_()

    def validation_step(self, part: str, batch_idx: int) -> None:
        """Embeds, searches and measures the dev halves; each rank counts its share of every task's queries."""
        self.dev_metrics = self._validated()
        if self.average is not None:
            with self.average.put_in_place():
                self.average_metrics = self._validated(OF_AVERAGE)

    def _validated(self, prefix: str = "") -> dict[str, RetrievalMetrics]:
        """{task: the values of this rank's queries}. prefix: before the names of what is logged."""
        assert self.measuring is not None
        try:
            with gathered(self.encoder):
                tasks = self.measuring.validate(self.encoder)
                general = self.measuring.retain(self.encoder) if self.measuring.retain is not None else {}
        except NotFinite as error:
            raise Diverged(
                f"The model has diverged: its vectors are not finite after step {self.trainer.global_step}, whose loss "
                f"was {float(self.last_loss):g} at a learning rate of {self.learning_rate:g}. {self.what_to_try()}"
            ) from error
        self.log_dict({f"{prefix}{name}": value for name, value in general.items()}, batch_size=1)
        metrics = {}
        for task, values in tasks.items():
            own = own_rows(len(next(iter(values.values()))))
            metrics[task] = RetrievalMetrics(tuple(values)).to(self.device)
            metrics[task].update(values={name: value[own.start : own.stop] for name, value in values.items()})
        return metrics

    def on_validation_epoch_end(self) -> None:
        """Means over the queries of all ranks, to the logger and, of the watched metric, to the best checkpoint."""
        assert self.measuring is not None
        self._log_dev(self.dev_metrics)
        if self.average is not None:
            self._log_dev(self.average_metrics, OF_AVERAGE)

    def _log_dev(self, metrics: Mapping[str, RetrievalMetrics], prefix: str = "") -> None:
        assert self.measuring is not None
        monitor, wanted, watched = self.measuring.monitor, self.measuring.monitor_tasks, []
        for task, metric in metrics.items():
            means = metric.compute()
            self.log_dict({f"{prefix}dev/{task}/{name}": float(mean) for name, mean in means.items()}, batch_size=1)
            if wanted is None or task in wanted:
                watched.append(float(means[monitor]))
        if not watched:
            raise ValueError(
                f"evaluate.monitor_tasks={wanted} names no measured task; the tasks are {', '.join(metrics)}."
            )
        self.log(f"{prefix}dev/{monitor}", math.fsum(watched) / len(watched), prog_bar=not prefix, batch_size=1)

    def test_step(self, part: str, batch_idx: int) -> None:
        assert self.measuring is not None and self.measuring.measure is not None
        with gathered(self.encoder):
            self.measured = self.measuring.measure(self.encoder)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = self.optimization
        groups = parameter_groups(
            ((name.removeprefix("encoder.model."), parameter) for name, parameter in self.named_parameters()),
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            rules=options.rules,
            layer_decay=options.layer_decay,
        )
        for group in groups:
            group.pop("names")
        optimizer = options.optimizer(groups)
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            step_unscaled(optimizer)
        total = options.total_steps
        warmup = round(options.warmup * total) if options.warmup < 1 else int(options.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: options.schedule(step, warmup=warmup, total=total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of dropout and the like in a step on a rank: independent streams, the same on any Python and machine.

    >>> step_seed(0, 7, 1)
    3590295894727386197
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, unclipped; of all shards where parameters are sharded."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sharded = [gradient for gradient in gradients if is_sharded(gradient)]
    if not sharded:
        return torch.nn.utils.get_total_norm(gradients)
    whole = torch.nn.utils.get_total_norm([gradient for gradient in gradients if not is_sharded(gradient)])
    return torch.hypot(whole_tensor(torch.nn.utils.get_total_norm(sharded)), whole)


def compile_towers(encoder: DualEncoder, backend: bool | str = True) -> int:
    """train.compile: compiles in place what holds layers in each trunk; returns how many parts that is. The work is
    done at the first call; names of weights stay the same.

    backend: True for torch's default (inductor: minutes on a CPU, and a C++ compiler), or a name such as "aot_eager".
    Heads, pooling and single layers stay as they are: there is little to fuse and their shapes change most.
    """
    parts = {
        part
        for modality in Modality
        if (tower := encoder.tower(modality)) is not None
        for part in tower.trunk_parts
        if isinstance(part, nn.Module) and any(True for _ in part.children()) and any(True for _ in part.parameters())
    }
    for part in parts:
        # The number of present rows and the longest text differ from batch to batch.
        part.compile(dynamic=True, backend="inductor" if backend is True else backend)
    return len(parts)
