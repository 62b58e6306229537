"""From a typed config to the objects of a run. Each function builds one thing from what it needs of the config."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gcl.config.compose import build, load_config
from gcl.config.schema import RunConfig
from gcl.data.batches.batch import SideReader
from gcl.data.batches.lookups import Lookups
from gcl.data.batches.mixed_plan import CatalogShare, MixedPlan
from gcl.data.batches.negatives import Negatives, Rounds
from gcl.data.batches.order import BatchOrder
from gcl.data.batches.plan import Plan
from gcl.data.prepare.mixed import Joined
from gcl.data.store.prepared import Prepared
from gcl.data.store.records import Records
from gcl.errors import ConfigError
from gcl.files.progress import doing
from gcl.lit.auto_micro_batch import FitMicroBatch
from gcl.lit.checkpoint import BestAndLast, WholeCheckpointIO, read_checkpoint
from gcl.lit.curve import CurveLogger
from gcl.lit.data import PairData
from gcl.lit.guards import Agreement, Guard
from gcl.lit.learned_weights import LearnedByQuery, LearnedWeights
from gcl.lit.lightning_internals import leave_signals_alone
from gcl.lit.mining import Mining
from gcl.lit.module import GCLModule, Measuring, Optimization
from gcl.lit.progress import Meter, Watchdog
from gcl.lit.settings import FieldWeights, TrainConfig, TrainerConfig, interval, sides_to_learn
from gcl.lit.signals import Interruption
from gcl.lit.step_log import StepLog
from gcl.loss.gcl import GCLLoss
from gcl.loss.settings import Form, LossConfig, Term
from gcl.loss.terms import Teaching
from gcl.model.dual_encoder import DualEncoder
from gcl.model.heads import image_head
from gcl.model.load import load_model
from gcl.model.lora import add_adapters, merge_adapters
from gcl.model.settings import ModelConfig
from gcl.model.weights import fill
from gcl.optim.groups import freeze
from gcl.optim.settings import OptimConfig, check_warmup
from gcl.retrieval.embedding.embed import EmbedOptions
from gcl.retrieval.mining import mine
from gcl.run.early import RUN_PREFIX, earlier_run
from gcl.run.folder import RunFolder
from gcl.run.measurement import Features
from gcl.run.resume import may_change
from gcl.schema import Modality, Schema, SideName


@dataclass(frozen=True)
class Watch:
    """The callbacks that keep a run safe; the two that others ask for by name, and the rest."""

    checkpoints: BestAndLast
    interruption: Interruption
    others: Sequence[pl.Callback]

    @property
    def callbacks(self) -> list[pl.Callback]:
        """In the order they must act: a run is interrupted only after its checkpoint was considered."""
        return [self.checkpoints, *self.others, self.interruption]


_PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}


def assemble_encoder(model: ModelConfig, schema: Schema, *, begun: bool = True) -> DualEncoder:
    """begun: with the weights of an earlier run that model.pretrained names; not needed where a checkpoint follows."""
    names_run = (model.pretrained or "").startswith(RUN_PREFIX)
    with doing(f"Loading {model.label}"):
        encoder = load_model(model.name, schema=schema, options=replace(model, pretrained=None) if names_run else model)
    if begun and (earlier := earlier_run(model.pretrained)) is not None:
        begin_from(encoder, earlier)
    if model.lora.rank is not None:
        add_adapters(encoder, model.lora)
    return encoder


def begin_from(encoder: DualEncoder, run: RunFolder) -> None:
    """Puts the run's best weights, temperature and bias into an encoder of the same architecture, in place.

    Raises ValueError naming the first tensor that does not fit.
    """
    state, source = read_checkpoint(run.best)["state_dict"], f"model.pretrained=run:{run.path}"
    weights = {name.removeprefix("encoder.model."): value for name, value in state.items() if "encoder.model." in name}
    if any("lora_" in name for name in weights):
        weights = _merged(encoder, run, weights, source)
    learned = encoder.model.logit_bias
    if not isinstance(learned, Tensor):
        weights.pop("logit_bias", None)
    elif "logit_bias" not in weights:
        weights["logit_bias"] = learned.detach().clone()
    try:
        fill(encoder.model, weights, source)
    except ValueError as error:
        raise ValueError(f"{error} The run was trained with another architecture: set the run's model.name.") from error
    # A model that came without a bias has learned one in the sigmoid form; the softmax form has no use for it.
    kept = isinstance(learned, Tensor) or load_config(run.config, trust=None).loss.form is Form.sigmoid
    encoder.write_scale_bias(float(state["loss.log_scale"]), float(state["loss.bias"]) if kept else None)


def _merged(encoder: DualEncoder, run: RunFolder, weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights of a run that trained adapters, with the adapters merged into them."""
    twin = deepcopy(encoder)
    add_adapters(twin, load_config(run.config, trust=None).model.lora)
    try:
        twin.model.load_state_dict(weights)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise ValueError(
            f"{source} does not fit: {lines[:300]} The run was trained with another architecture."
        ) from error
    return dict(merge_adapters(twin.eval()).model.state_dict())


def assemble_loss(
    loss: LossConfig,
    encoder: DualEncoder,
    score_to_weight: Callable[[Tensor], Tensor] | None = None,
    *,
    teaching: Teaching | None = None,
) -> GCLLoss:
    """Scale and bias come from the checkpoint unless the config sets them. score_to_weight: in place of the config's,
    where no loss is computed."""
    log_scale, bias = encoder.scale_bias
    if loss.bias is not None:
        bias = loss.bias
    return GCLLoss(
        **vars(loss) | {
            "score_to_weight": score_to_weight or build(loss.score_to_weight),
            "scale": loss.scale if loss.scale is not None else math.exp(log_scale),
            "bias": bias,
        },
        teaching=teaching,
    )  # fmt: skip


def freeze_parts(encoder: DualEncoder, optim: OptimConfig) -> None:
    """Freezes what the config names and every tower that no field uses. Raises ConfigError if no adapter is left, and
    for a head that needs frozen towers on one that is trained."""
    freeze(encoder.model, optim.freeze)
    for parameter in encoder.unused_parameters():
        parameter.requires_grad_(False)
    if encoder.adapters is not None and not any(
        parameter.requires_grad for name, parameter in encoder.named_parameters() if "lora_" in name
    ):
        raise ConfigError(
            f"model.lora: optim.freeze=[{','.join(optim.freeze)}] freezes every adapter. model.lora already "
            "freezes the model's own weights: set optim.freeze=[]."
        )
    head = image_head(encoder.model.visual)
    if head is not None and (trained := encoder.trained_trunks()):
        needed = [name for modality in Modality for name in encoder.trunk_names(modality)]
        told = " and ".join(f"the {name} tower" for name in trained) + (" is" if len(trained) == 1 else " are")
        raise ConfigError(
            f"model.head={head.kind} is for frozen towers, and {told} trained: set "
            f"'optim.freeze=[{', '.join(needed)}]', or model.head=linear."
        )


def assemble_plan(prepared: Prepared, config: RunConfig) -> BatchOrder:
    plan = _order(prepared, config)
    settings = config.plan.hard_negatives
    rounds = mining_rounds(config) if settings.source is not None else None
    plan.negatives = Negatives(
        prepared.not_relevant, per_query=settings.per_query, seed=config.seed, mined=rounds
    )  # fmt: skip
    return plan


def mining_rounds(config: RunConfig) -> Rounds:
    """Where a run keeps what it mined, by batches."""
    every = config.plan.hard_negatives.every
    batches = None if every is None else every * config.train.accumulate
    return Rounds(RunFolder(Path(str(config.run_dir))).mined, batches)


def assemble_mining(config: RunConfig, prepared: Prepared, features: Features) -> list[Callback]:
    """The callback that mines hard negatives, where the plan wants some."""
    settings = config.plan.hard_negatives
    if settings.source is None:
        return []
    options = EmbedOptions(config.evaluate.batch_size, config.train.workers, features=features)
    return [Mining(partial(mine, prepared=prepared, settings=settings, options=options), mining_rounds(config))]


def _order(prepared: Prepared, config: RunConfig) -> BatchOrder:
    options: dict[str, Any] = {"batch_size": config.train.batch_size, "seed": config.seed, **vars(config.plan)}
    del options["hard_negatives"]
    if not isinstance(prepared, Joined):
        return Plan(prepared.pairs, shard_of_document=prepared.documents.shard, **options)
    first = prepared.first_rows("document")
    return MixedPlan(
        prepared.pairs,
        catalogs={
            name: CatalogShare(config.data.mix[name], len(part.pairs), part.documents.shard, first[name])
            for name, part in prepared.parts.items()
        },
        batches=config.data.batches,
        **options,
    )


def total_steps(train: TrainConfig, plan: BatchOrder) -> int:
    """Global batches of the whole run."""
    if train.max_steps is not None:
        return train.max_steps * train.accumulate
    return max(1, round(train.epochs * plan.steps_per_epoch))


def validation_interval(train: TrainConfig, plan: BatchOrder, steps: int) -> int:
    """train.validate_every as a number of batches."""
    amount, unit = interval(train.validate_every)
    batches = amount * (plan.steps_per_epoch if unit == "epochs" else train.accumulate)
    return min(max(1, round(batches)), steps)


def choose_precision(precision: Any, accelerator: str) -> Any:
    """ "auto": bf16 on GPUs that have it, else float32 (on CPUs bf16 is slower, not faster)."""
    if precision != "auto":
        return precision
    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def assemble_trainer(
    trainer: TrainerConfig, *, validate_every: int, run_dir: Path, loggers: list[Logger],
    callbacks: list[Callback], clip_norm: float | None, accumulate: int,
) -> pl.Trainer:  # fmt: skip
    """Runs one Lightning epoch, however many epochs of the plan that is; optimiser steps are batches / accumulate."""
    limit = trainer.options.get("limit_train_batches")
    arguments: dict[str, Any] = {
        "accelerator": trainer.accelerator,
        "devices": trainer.devices,
        "num_nodes": trainer.num_nodes,
        "strategy": trainer.strategy if isinstance(trainer.strategy, str) else build(trainer.strategy),
        "precision": choose_precision(trainer.precision, trainer.accelerator),
        "log_every_n_steps": trainer.log_every_n_steps,
        "max_epochs": 1,
        "val_check_interval": min(validate_every, limit) if isinstance(limit, int) else validate_every,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": clip_norm,
        "default_root_dir": str(run_dir),
        "logger": loggers or False,
        "callbacks": callbacks,
        "plugins": [WholeCheckpointIO()],
        "enable_model_summary": False,
        "enable_checkpointing": True,
    }
    options = dict(trainer.options)
    if profiler := _PROFILERS.get(str(options.get("profiler"))):
        options["profiler"] = profiler(dirpath=run_dir, filename="profile")  # by itself it only logs
    try:
        built = pl.Trainer(**(arguments | options))
    except (MisconfigurationException, TypeError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    leave_signals_alone(built)
    return built


def assemble_watch(
    config: RunConfig, run: RunFolder, prepared: Prepared, plan: BatchOrder, facts: dict[str, Any]
) -> Watch:
    """The callbacks that keep a run safe."""
    train = config.train

    def describe(step: int) -> dict[str, Any]:
        rows, pairs = plan.batch(step), prepared.pairs
        named = zip(pairs.query[rows], pairs.document[rows], pairs.score[rows], strict=True)
        queries, documents = prepared.queries.ids, prepared.documents.ids
        return {
            "step": step,
            "epoch": plan.epoch_of(step),
            "pairs": [{"query": queries[q], "document": documents[d], "score": float(s)} for q, d, s in named],
        }

    def place(step: int) -> str:
        return prepared.documents.place(int(prepared.pairs.document[plan.batch(step)[0]]))

    checkpoints = BestAndLast(
        run.checkpoints,
        monitor=f"dev/{config.evaluate.monitor}",
        every=train.checkpoint_every,
        patience=train.patience,
    )
    interruption = Interruption(run.last)
    guard = Guard(
        run.path,
        describe,
        interruption,
        policy=train.nonfinite,
        max_skips=train.max_skips,
        can_roll_back=run.last.is_file,
        spike_factor=train.spike_factor,
    )
    steps = StepLog(run.path / "steps.csv", plan.epoch_of)
    watchdog = Watchdog(place, seconds=train.loader_patience)
    fit = [FitMicroBatch()] if train.micro_batch == "auto" else []
    return Watch(checkpoints, interruption, [Agreement(facts), guard, steps, watchdog, Meter(), *fit])


def assemble_loggers(node: Any, run: RunFolder) -> list[Logger]:
    """metrics.csv, whatever was chosen, and the logger that was chosen, if it is another one."""
    chosen = build(node, save_dir=str(run.path)) if node else None
    if isinstance(chosen, CurveLogger):
        return [chosen]
    return [CurveLogger(str(run.path)), *([] if chosen is None else [chosen])]


def assemble_module(
    config: RunConfig, encoder: DualEncoder, loss: GCLLoss, steps: int, measuring: Measuring
) -> GCLModule:
    optim, size, schema = config.optim, config.train.micro_batch, config.data.schema
    learned: LearnedWeights | LearnedByQuery | None = None
    if config.train.field_weights is FieldWeights.learned:
        learned = LearnedWeights(schema, sides_to_learn(schema, config.loss.terms))
    elif config.train.field_weights is FieldWeights.learned_by_query:
        learned = LearnedByQuery(schema, encoder.width, assemble_loss(replace(config.loss, terms=[Term()]), encoder))
    check_warmup(optim.warmup, -(-steps // config.train.accumulate))
    return GCLModule(
        encoder,
        loss,
        Optimization(
            build(optim.optimizer),
            build(optim.schedule),
            learning_rate=optim.learning_rate,
            weight_decay=optim.weight_decay,
            warmup=optim.warmup,
            total_steps=-(-steps // config.train.accumulate),
            layer_decay=optim.layer_decay,
            rules=optim.rules,
        ),
        measuring=measuring,
        ema=config.train.ema,
        micro_batch=None if size == "auto" else size,  # auto: FitMicroBatch finds it when training begins
        seed=config.seed,
        field_weights=learned,
    )


def assemble_data(
    config: RunConfig,
    prepared: Prepared,
    plan: BatchOrder,
    steps: int,
    encoder: DualEncoder,
    features: Features,
    lookups: Lookups,
) -> PairData:
    def reader(side: SideName, store: Records) -> SideReader:
        return SideReader(store, config.data.schema.side(side), encoder.preprocess, features.get(side))

    return PairData(
        plan,
        steps=steps,
        workers=config.train.workers,
        augment=config.train.augment,
        may_change=may_change(config.train),
        query=reader("query", prepared.queries),
        document=reader("document", prepared.documents),
        lookups=lookups,
    )


def write_scale_back(encoder: DualEncoder, loss: GCLLoss) -> None:
    """The trained temperature and bias into the model they came from, where export finds them."""
    scale, bias = encoder.model.logit_scale, encoder.model.logit_bias
    assert isinstance(scale, Tensor)
    with torch.no_grad():
        scale.copy_(loss.log_scale.detach())
        if isinstance(bias, Tensor):
            bias.copy_(loss.bias.detach())
        elif loss.form == Form.sigmoid.value:  # a model that came without a bias has learned one
            encoder.model.logit_bias = nn.Parameter(loss.bias.detach().clone(), requires_grad=False)


def seed_everything(config: RunConfig) -> None:
    pl.seed_everything(config.seed, workers=True, verbose=False)
