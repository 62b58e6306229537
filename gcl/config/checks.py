"""What a config can say that cannot be: refused before torch is loaded, in a sentence that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcl.config.explain import why_no_target
from gcl.config.schema import RunConfig
from gcl.data.catalog import check_split
from gcl.errors import ConfigError, nearest

# Lightning's words (lightning.fabric.plugins.precision), and "auto".
_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "16", "bf16", "64",
               "transformer-engine", "transformer-engine-float16")  # fmt: skip


def check(run: RunConfig) -> None:
    """Raises ConfigError for the first impossible value."""
    try:
        run.data.schema.check()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for name, catalog in run.data.catalogs.items():
        try:
            catalog.schema.check()
        except ValueError as error:
            raise ConfigError(f"In the catalog {name}: {error}") from error
    if run.train.batch_size < 2:
        raise ConfigError(f"train.batch_size={run.train.batch_size}: a contrastive batch needs at least 2 pairs.")
    for catalog in run.data.catalogs.values() if run.data.mix else [run.data]:
        try:
            check_split(catalog.split)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    try:
        run.evaluate.check()
        run.plan.check("plan.")
        run.model.check()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    _check_training(run)
    _check_targets(run)
    folder = run.model.name.removeprefix("local-dir:")
    if folder != run.model.name and not Path(folder).is_dir():
        raise ConfigError(f"model.name={run.model.name}: there is no such folder.")
    parts = {"query": {"fused", *run.data.query}, "document": {"fused", *run.data.document}}
    for number, term in enumerate(run.loss.terms):
        for side, names in parts.items():
            part = getattr(term, side)
            if part not in names:
                raise ConfigError(
                    f"loss.terms[{number}].{side}={part!r} is no part of the {side} side.{nearest(part, names)}"
                )


def _check_training(run: RunConfig) -> None:
    """What would otherwise be refused only after the catalog was prepared."""
    train, tile, every = run.train, run.loss.tile, run.train.validate_every
    if not (tile in (None, "auto") or _is_count(tile)):
        raise ConfigError(f'loss.tile={tile}: a number of rows (1024), "auto", or null for the whole matrix.')
    if not (train.micro_batch in (None, "auto") or _is_count(train.micro_batch)):
        raise ConfigError(f'train.micro_batch={train.micro_batch}: a number of rows (32), "auto", or null.')
    amount, _, unit = every.strip().partition(" ") if isinstance(every, str) else (every, "", "epochs")
    try:
        possible = 0 < float(amount) < float("inf") and unit.strip() in ("step", "steps", "epoch", "epochs")
    except (TypeError, ValueError):
        possible = False
    if not possible:
        raise ConfigError(f'train.validate_every={every}: a number of epochs above 0 (0.5), or "50 steps".')
    if str(run.trainer.precision) not in _PRECISIONS:
        known = nearest(str(run.trainer.precision), _PRECISIONS)
        raise ConfigError(f"trainer.precision={run.trainer.precision} is none that Lightning has.{known}")
    for key in ("max_steps", "accumulate", "checkpoint_every", "patience"):
        if (number := getattr(train, key)) is not None and number < 1:
            raise ConfigError(f"train.{key}={number}: a number of at least 1.")
    if train.max_steps is None and not 0 < train.epochs < float("inf"):
        raise ConfigError(f"train.epochs={train.epochs}: a number above 0.")
    if train.workers < 0:
        raise ConfigError(f"train.workers={train.workers}: 0 reads in the training process itself.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_targets(run: RunConfig) -> None:
    nodes = {"loss.score_to_weight": run.loss.score_to_weight, "optim.optimizer": run.optim.optimizer,
             "optim.schedule": run.optim.schedule, "logger": run.logger, "trainer.strategy": run.trainer.strategy,
             **{f"callbacks.{name}": node for name, node in run.callbacks.items()}}  # fmt: skip
    for key, node in nodes.items():
        target = node.get("_target_") if isinstance(node, dict) else None
        if key in ("loss.score_to_weight", "optim.optimizer", "optim.schedule") and target is None:
            raise ConfigError(f"{key} has no _target_: name the function, for example as conf/ does.")
        if target is not None and (why := why_no_target(str(target))):
            raise ConfigError(f"{key}._target_={target}: {why}")
