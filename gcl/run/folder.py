"""The layout of a run folder, how a new one is named, and a command line on top of its config."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from gcl.config.compose import Overrides, load_config, under, with_settings, with_values
from gcl.config.schema import RunConfig
from gcl.config.words import weighed_by_hand
from gcl.data.catalog import Catalog
from gcl.distributed.launched import launched_rank
from gcl.errors import ConfigError
from gcl.files.lock import owned
from gcl.lit.settings import FieldWeights
from gcl.lit.whole import done_file
from gcl.run.field_weights import read_weights
from gcl.schema import SideName

T = TypeVar("T")


_RESULTS = (
    "field_weights.json",
    "metrics.json",
    "results.json",
    "report.html",
    "results.csv",
    "results.md",
    "queries.parquet",
)
_CURVE = "metrics.csv"


class _Within:
    """The path of a file or folder of a run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: RunFolder, kind: type[RunFolder]) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run. Nothing is created by looking. trust: packages whose objects its config may name."""

    path: Path
    trust: tuple[str, ...] = ()

    config = _Within("config.yaml")
    environment = _Within("environment.json")
    checkpoints = _Within("checkpoints")
    best = _Within("checkpoints/best.ckpt")
    last = _Within("checkpoints/last.ckpt")
    metrics = _Within("metrics.json")
    tasks = _Within("tasks")
    report = _Within("report.html")
    field_weights = _Within("field_weights.json")
    """The field weights that the trained model is used with, where they were chosen (gcl/run/field_weights.py)."""
    mined = _Within("mined")
    """What was mined, one file for each round."""
    owner = _Within(".owner")
    """Names the process that trains here, while it does."""

    def read_config(self) -> RunConfig:
        """The run's own config, with the field weights that were chosen for its model. Raises FileNotFoundError or
        ConfigError."""
        config = load_config(self.check().config, trust=self.trust)
        config.data = self.weighted(config.data)
        return config

    def weighted(self, catalog: Catalog) -> Catalog:
        """The run's own catalog with the field weights that were chosen on it; any other, or with other weights than
        those that the run was given, as it is."""
        chosen = read_weights(self.field_weights)
        return catalog if chosen is None else chosen.applied(catalog)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Keeps other processes from training into the folder; the ranks of one run are one. Raises ConfigError."""
        if launched_rank():
            yield
            return
        try:
            with ExitStack() as stack:
                try:
                    stack.enter_context(owned(self.owner, what=f"The run folder {self.path}"))
                except ValueError as error:
                    raise ConfigError(str(error)) from error
                yield
        finally:
            with suppress(OSError):
                self.path.rmdir()  # where nothing was begun

    def traces(self) -> list[str]:
        """What a run has left here that another would overwrite: its checkpoints, whole or not, and its results."""
        checkpoints = sorted(f"checkpoints/{path.name}" for path in self.checkpoints.glob("*.ckpt"))
        return checkpoints + [name for name in (*_RESULTS, _CURVE) if (self.path / name).is_file()]

    @property
    def was_begun(self) -> bool:
        """Whether a run came so far here that there is something to continue: one that was killed before its first
        checkpoint leaves its training curve alone."""
        return self.traces() not in ([], [_CURVE])

    def check(self) -> RunFolder:
        """Itself, if a run was begun here; FileNotFoundError with a sentence otherwise."""
        if not self.config.is_file():
            near = sorted(str(p.parent) for p in Path("outputs").glob("*/*/*/config.yaml"))[-3:]
            hint = f" Your last runs: {', '.join(near)}." if near else ""
            raise FileNotFoundError(f"run={self.path}: there is no config.yaml, so this is not a run folder.{hint}")
        return self

    def check_trained(self) -> RunFolder:
        """Itself, if it has a best checkpoint; FileNotFoundError with a sentence otherwise."""
        if not self.check().best.is_file():
            lost = self.metrics.is_file() or done_file(self.best).is_file()
            why = (
                "it was deleted, moved or not copied with the folder. Put it back, or train again."
                if lost
                else "the run ended before its first validation."
            )
            raise FileNotFoundError(f"run={self.path}: there is no checkpoints/best.ckpt: {why}")
        return self


def fact(path: Path, key: str, kind: type[T]) -> T | None:
    """What a JSON file that a run left says under a key; None where it does not say so, or not in this type."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def new_run_folder(run_dir: str | None, *, data: str, model: str, name: str | None = None) -> RunFolder:
    """The folder of a new run: run_dir, or outputs/<data>/<model>/<name, or the time>, the same on every rank."""
    if run_dir is not None:
        return RunFolder(Path(run_dir))
    return RunFolder(Path("outputs") / data / model / (name or _common_time()))


def _common_time() -> str:
    """The time this run started, agreed by all its processes: inherited, the scheduler's job, or rank 0's clock."""
    if known := os.environ.get("GCL_RUN_TIME"):
        return known
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"job-{job}"
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from gcl.distributed.ranks import of_first_rank

        now = of_first_rank(now)
    else:
        base, number = now, 1
        while any(Path("outputs").glob(f"*/*/{now}")):
            number += 1
            now = f"{base}-{number}"
    os.environ["GCL_RUN_TIME"] = now
    return now


def new_folder(parent: Path) -> Path:
    """The folder `parent`/<time> of what a command writes now; nothing that was written before is in it."""
    base = now = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(2):
        try:
            (parent / now).mkdir(parents=True)
            return parent / now
        except FileExistsError:
            now = f"{base}-{number}"
    raise AssertionError("itertools.count does not end")


def config_of(overrides: Overrides) -> RunConfig:
    """The config of a command line: with run=…, that run's own config with the given settings on top."""
    whole = overrides
    if "run" in overrides.keys and "data" not in overrides.keys:
        # They are about the run's catalog, whose fields the catalog of conf/config.yaml need not have.
        settings = [setting for setting in overrides.settings if not setting.lstrip("+~").startswith("data.")]
        values = {key: value for key, value in overrides.values.items() if not key.startswith("data.")}
        whole = replace(overrides, settings=settings, values=values)
    config = whole.config()
    return config if config.run is None else of_run(run_of(config), config, overrides)


def run_of(config: RunConfig) -> RunFolder:
    """The run folder that run= names."""
    return RunFolder(Path(str(config.run)), tuple(config.trust))


_OF_CATALOG = ("tasks", "monitor_tasks", "slices", "compress")  # settings of evaluate that speak of one catalog
_ON_TOP = ("data", "evaluate", "trainer", "cache_dir", "seed", "train.workers")
_WITH_RUN = (*_ON_TOP, "run", "models", "out", "trust")


def of_run(run: RunFolder, given: RunConfig, overrides: Overrides) -> RunConfig:
    """The run's own config with the given settings on top; `data=…`, `evaluate=…` and `trainer=…` replace the run's.

    Raises ConfigError for a setting of the model or of training, which are the run's.
    """
    for key in overrides.keys:
        if not under(key.lstrip("+~"), _WITH_RUN):
            root, *others, last = key.lstrip("+~").partition(".")[0], *_ON_TOP
            raise ConfigError(
                f"run={run.path} has its own {root}, so {key}= would change nothing: leave it out. What can be set "
                f"besides a run is {', '.join(others)} and {last}."
            )
    config = load_config(run.check().config, trust=run.trust)
    theirs = {name: spec.catalog for name, spec in config.evaluate.retention.items()}
    for name in _ON_TOP:
        if name in overrides.keys:
            *above, last = name.split(".")
            setattr(reduce(getattr, above, config), last, attrgetter(name)(given))
    if "data" in overrides.keys and "evaluate" not in overrides.keys:
        for name in _OF_CATALOG:  # another catalog need not have such tasks and columns
            setattr(config.evaluate, name, getattr(given.evaluate, name))
    typed = [*overrides.settings, *(f"{key}={value}" for key, value in overrides.values.items())]
    by_hand = weighed_by_hand(typed)
    config.data = _weighted(run, config.data, by_hand)
    if "document" in by_hand:
        config.train.field_weights = FieldWeights.given
    on_top = {*_ON_TOP} - overrides.keys
    settings = [one for one in overrides.settings if one.lstrip("+~").partition(".")[0] in on_top]
    config = with_settings(config, settings, trained=True)
    values = {key: value for key, value in overrides.values.items() if key.partition(".")[0] in on_top}
    config = with_values(config, values, trained=True) if values else config
    config.run, config.models, config.out, config.trust = given.run, given.models, given.out, given.trust
    for name, spec in config.evaluate.retention.items():
        if spec.catalog != theirs.get(name):  # the command line's own
            spec.untrusted = False
    return config


def _weighted(run: RunFolder, catalog: Catalog, by_hand: set[SideName]) -> Catalog:
    """With the weights that the run chose, but for a side of which the command line gives one."""
    chosen = run.weighted(catalog)
    return replace(
        chosen,
        query=(catalog if "query" in by_hand else chosen).query,
        document=(catalog if "document" in by_hand else chosen).document,
    )
