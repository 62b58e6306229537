"""What `train:` and `trainer:` in a run's config may say, and the rules for it. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from gcl.errors import nearest
from gcl.loss.settings import FUSED, Term
from gcl.options import MISSING, Choice, Range, check_given, check_numbers, free, node, number, path
from gcl.schema import SIDES, Schema, SideName

# Lightning's own (lightning.fabric.plugins.precision), and "auto".
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true", "32", "16", "bf16", "64", "transformer-engine",
              "transformer-engine-float16")  # fmt: skip
_HALF = {"bf16-true": "bf16-mixed", "16-true": "16-mixed"}


class NonFinitePolicy(Choice):
    """What happens at a step whose loss or gradient is not finite. It never reaches the weights."""

    stop = "stop"
    skip = "skip"
    rollback = "rollback"


class FieldWeights(Choice):
    """The field weights that a run's model is measured, searched, served and exported with: those that its dev half
    chooses after training, those that the catalog gives, or those that the loss has learned, constant or from each
    query's vector."""

    dev = "dev"
    given = "given"
    learned = "learned"
    learned_by_query = "learned_by_query"


@dataclass
class TrainConfig:
    """How long, how wide and how carefully a run trains."""

    batch_size: int = number(MISSING, least=2)
    """Pairs of one contrastive batch, over all GPUs; at least 2."""
    epochs: float = number(MISSING, above=0, most=1e6)
    """Passes over the training pairs; a fraction is allowed."""
    max_steps: int | None = number(None, least=1, most=10**9)
    """Optimiser steps of the run, in place of epochs; null: epochs count."""
    micro_batch: Any = free(None, "whole number, auto or null", "32", "auto", "null")
    """Rows encoded at a time (or, of a field with images=all, images), "auto" for the most that fit, or null for all;
    it does not change loss or gradient, except for what dropout draws."""
    accumulate: int = number(1, least=1, most=10**6)
    """Batches whose gradients are added up before an optimiser step."""
    checkpoint_every: int | None = number(None, least=1)
    """Optimiser steps between checkpoints; null: only after validations and at the end."""
    validate_every: Any = free(1.0, 'number of epochs, or a number of steps as in "50 steps"', "0.5")
    """Epochs between validations (0.5), or "50 steps"."""
    patience: int | None = number(None, least=1)
    """Validations without a better result after which training stops; null: never."""
    workers: int = number(2, least=0, most=1000)
    """Processes that read and decode data, per GPU; 0 reads in the training process itself."""
    field_weights: FieldWeights = FieldWeights.dev
    """The field weights that the trained model is used with: dev (chosen on the dev half after training; training keeps
    the given ones), given, learned (one number per field, trained with the loss), or learned_by_query (each query's
    vector weighs the document's fields; used where the dev half finds no constant weights that are better). Validations
    keep the given ones. Weights on the command line of a training mean given."""
    cache_features: bool = True
    """Whether outputs of frozen trunks are computed once and kept in cache_dir."""
    augment: bool = False
    """Whether training images are augmented."""
    ema: float | None = number(None, above=0, below=1)
    """Decay of an exponential moving average of the trained weights, 0.999 is usual: each validation measures it as
    well, and the best checkpoint is the better of the two. null: none."""
    compile: Any = free(False, "true, false, or the name of a backend", "true", "false")
    """true for torch.compile of the towers, or the name of one of its backends."""
    resume: str | None = path()
    """auto for the run's own last checkpoint, or the path of one; null: a new run."""
    allow_change: list[str] = field(default_factory=list)
    """Keys that a resumed run may have other values of than it began with."""
    nonfinite: NonFinitePolicy = NonFinitePolicy.stop
    """At a loss or gradient that is not finite: stop, skip the batch, or rollback to the last checkpoint without it."""
    max_skips: int = number(10, least=0)
    """Batches that may be skipped for it before the run stops."""
    spike_factor: float | None = number(5.0, least=1)
    """A loss or gradient norm above this many times its running median is recorded with its batch; null: never."""
    loader_patience: float | None = number(60.0, above=0, most=1e6)
    """Seconds without a batch after which a sentence says what the loader is reading; null: never."""


@dataclass
class DryConfig:
    """A run on paper: nothing is trained, and nothing is written into the run folder."""

    world: int = number(256, least=1, most=1_000_000)
    """Processes, each with a GPU of its own, that hold the whole model (trainer=ddp)."""
    memory_gb: float = number(80.0, above=0, most=1e6)
    """Gigabytes of memory that each has. A step that does not fit is refused."""
    network_gb_s: float = number(25.0, above=0, most=1e6)
    """Gigabytes that each receives in a second while it sends as many."""


@dataclass
class TrainerConfig:
    """Where a run is computed: the arguments of lightning.Trainer that name machines."""

    accelerator: str = "auto"
    """cpu, gpu, mps, tpu, or auto for what the machine has."""
    devices: Any = free("auto", "whole number, list of whole numbers, or auto", "2", "auto")
    """Number of devices per node, a list of them, or auto for all."""
    num_nodes: int = number(1, least=1, most=100_000)
    """Machines."""
    strategy: Any = free("auto", "name of a strategy, or a _target_ with its arguments", "ddp", "auto")
    """Lightning's name of a strategy (ddp), or a `_target_`; conf/trainer has the ones that are tested."""
    precision: Any = free("auto", ", ".join(PRECISIONS), *PRECISIONS)
    """Lightning's name of a precision (bf16-mixed, 32-true); auto: bf16 on GPUs that compute in it, else float32."""
    start_timeout: float = number(120.0, above=0, most=1e6)
    """Seconds in which all processes of a run must have begun; those that have not are named, and the run ends."""
    timeout: float = number(600.0, above=0, most=1e6)
    """Seconds that one exchange between the processes may take before the run ends: the longest that one of them may be
    behind the others (a slow disk, a model that compiles). One that fails or is lost ends the others much earlier."""
    log_every_n_steps: int = number(5, least=1)
    """Optimiser steps per row of the training curve."""
    options: dict[str, Any] = node({})
    """Any other argument of lightning.Trainer."""
    dry: DryConfig | None = None
    """Only compute what a step of many processes would take (trainer=dry). null: train."""


class Interval(NamedTuple):
    """A number of epochs or of optimiser steps."""

    amount: float
    unit: Literal["epochs", "steps"]


def interval(every: float | str) -> Interval:
    """Parses train.validate_every; ValueError with the key for anything else.

    >>> interval(0.5), interval("50 steps"), interval("1 epoch")
    (Interval(amount=0.5, unit='epochs'), Interval(amount=50.0, unit='steps'), Interval(amount=1.0, unit='epochs'))
    """
    amount, _, unit = every.strip().partition(" ") if isinstance(every, str) else (every, "", "")
    try:
        number = float(amount)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf or unit.strip() not in ("", "step", "steps", "epoch", "epochs"):
        raise ValueError(f'train.validate_every={every}: a number of epochs above 0 (0.5), or "50 steps".')
    return Interval(number, "steps" if unit.strip().startswith("step") else "epochs")


def sides_to_learn(schema: Schema, terms: Sequence[Term]) -> list[SideName]:
    """The sides with several fields of positive weight that a term of the loss compares as a whole."""
    return [
        side
        for side in SIDES
        if sum(one.weight > 0 for one in schema.side(side).values()) > 1
        and any(getattr(term, side) == FUSED for term in terms)
    ]


def check_field_weights(train: TrainConfig, schema: Schema, terms: Sequence[Term]) -> None:
    """Raises ValueError where no weight could be learned."""
    documents = [name for name, one in schema.document.items() if one.weight > 0]
    if train.field_weights is FieldWeights.learned_by_query and len(documents) < 2:
        raise ValueError(
            "train.field_weights=learned_by_query weighs the fields of a document against each other, and there is "
            f"only {documents[0]}: leave it out, or give data.document another field of positive weight."
        )
    if train.field_weights is FieldWeights.learned and not sides_to_learn(schema, terms):
        raise ValueError(
            "train.field_weights=learned: no side has several fields of positive weight that a term of the loss "
            f"compares together ({FUSED}), so there is nothing to learn. "
            "train.field_weights=dev chooses after training."
        )


def check_train(train: TrainConfig) -> None:
    """Raises ValueError, with the key, for the first value that cannot be."""
    check_numbers(train, "train.")
    size = train.micro_batch
    if not (size in (None, "auto") or (isinstance(size, int) and not isinstance(size, bool) and size >= 1)):
        raise ValueError(f'train.micro_batch={size}: a number of rows (32), "auto", or null for the whole batch.')
    interval(train.validate_every)


_COUNT, _AMOUNT = Range(least=1), Range(least=0)
_LIGHTNING = {
    "accumulate_grad_batches": _COUNT, "check_val_every_n_epoch": _COUNT, "limit_train_batches": Range(above=0),
    "val_check_interval": Range(above=0), "overfit_batches": _AMOUNT, "limit_val_batches": _AMOUNT,
    "limit_test_batches": _AMOUNT, "limit_predict_batches": _AMOUNT, "gradient_clip_val": _AMOUNT,
    "reload_dataloaders_every_n_epochs": _AMOUNT, "min_epochs": _AMOUNT, "min_steps": _AMOUNT,
    "max_epochs": Range(least=-1), "max_steps": Range(least=-1), "num_sanity_val_steps": Range(least=-1),
}  # fmt: skip


def check_devices(devices: Any) -> None:
    """Raises ValueError for what is neither a number of devices, nor their numbers, nor a name ("auto")."""
    if isinstance(devices, list | tuple):
        fits = len(devices) > 0 and all(type(one) is int and one >= 0 for one in devices)
    elif isinstance(devices, str):
        fits = devices.strip() not in ("", "0")
    else:
        fits = type(devices) is int and (devices >= 1 or devices == -1)  # Lightning's -1: all
    if not fits:
        raise ValueError(
            f"trainer.devices={devices}: a number of devices of at least 1, a list of their numbers ([0, 2]), or auto."
        )


def check_trainer(trainer: TrainerConfig) -> None:
    """Raises ValueError, with the key, for numbers of machines or of Lightning's that cannot be, and for a precision
    that Lightning does not know or nothing is learned in."""
    check_devices(trainer.devices)
    check_given("trainer.options.", trainer.options, _LIGHTNING)
    precision = str(trainer.precision)
    if precision in _HALF:
        raise ValueError(
            f"trainer.precision={precision} keeps the weights themselves in 16 bits, where a step of a usual learning "
            f"rate is rounded away: {_HALF[precision]} computes as fast and keeps them in float32."
        )
    if precision not in PRECISIONS:
        known = nearest(precision, PRECISIONS)
        raise ValueError(f"trainer.precision={precision} is not a precision that Lightning knows.{known}")
    if precision.startswith("transformer-engine") and find_spec("transformer_engine") is None:
        raise ValueError(f"trainer.precision={precision} needs NVIDIA's package transformer_engine; try bf16-mixed.")
