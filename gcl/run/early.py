"""What is wrong with a machine, a model, a contestant or a column, said before anything is prepared or loaded.

Imports no torch. The rules are those of the modules that act on the settings; what only they can find out, they say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.errors import ConfigError
from gcl.loss.settings import TeacherConfig
from gcl.model.reach import check_architecture, check_name, check_weights
from gcl.model.settings import Head, ModelConfig
from gcl.retrieval.settings import needed_columns
from gcl.run.folder import RunFolder, run_of

RUN_PREFIX = "run:"  # model.pretrained=run:<folder> begins where an earlier run ended


def check_training(config: RunConfig) -> None:
    """Raises ConfigError for what training would only find out after the catalog is prepared."""
    if config.merged:
        raise ConfigError("merged is what gcl merge writes into a run's config; a training has no use for it.")
    _check_accelerator(config.trainer.accelerator)
    _check_model(config.model, begun=config.train.resume is None)
    _check_teacher(config.teacher, config.trust)
    _check_head(config)
    if (mined := config.plan.hard_negatives.file) is not None and "://" not in mined:
        from gcl.data.tables.of_queries import negatives_table  # which loads pyarrow

        negatives_table(mined)
    _check_columns_and_tasks(config, [config.data], monitored=config.evaluate.monitor_tasks or ())


def check_measuring(config: RunConfig, catalogs: Sequence[Catalog], config_dir: str | None = None) -> None:
    """The same for measuring: every contestant is looked at before the first is measured."""
    if config.run is not None:
        if config.models:
            raise ConfigError(
                f"run={config.run} measures that run's base and its best checkpoint, and models={config.models} would "
                "not be measured: leave one of them out. models=[run:<folder>, …] compares runs and models."
            )
        _check_run(run_of(config))
    elif not config.models:
        _check_model(config.model)
    labels = [label for label, _ in map(split_label, config.models) if label]
    if len(set(config.models)) < len(config.models) or len(set(labels)) < len(labels):
        raise ConfigError(f"models={config.models}: a model or a name is listed twice.")
    for name in config.models:
        check_contestant(name, config_dir=config_dir, trust=config.trust)
    _check_columns_and_tasks(config, catalogs)


_LABEL = re.compile(r"([^:/\\=]+)=(.+)")


def split_label(name: str) -> tuple[str | None, str]:
    """The name that somebody gives a contestant, and what it is.

    >>> split_label("ours=run:outputs/1"), split_label("local-dir:a=b")
    (('ours', 'run:outputs/1'), (None, 'local-dir:a=b'))
    """
    match = _LABEL.fullmatch(name)
    return (match[1].strip(), match[2].strip()) if match else (None, name)


def check_contestant(name: str, *, config_dir: str | None = None, trust: Sequence[str] = ()) -> None:
    """Raises ConfigError or FileNotFoundError for a contestant that is not there."""
    _, name = split_label(name)
    kind, colon, rest = name.partition(":")
    if not colon:
        model_of(name, config_dir)
    elif kind == "run":
        _check_run(RunFolder(Path(rest), tuple(trust)))
    elif kind in ("embeddings", "trec"):
        for file in rest.split("+") if kind == "embeddings" else [] if "{task}" in rest else [rest]:
            if not Path(file).is_file():
                raise ConfigError(f"models: {name}: there is no file {file}.")
    elif kind == "open_clip":
        architecture, _, weights = rest.partition("/")
        _in_a_setting("models", check_architecture, architecture)
        _in_a_setting("models", lambda tag: check_weights(architecture, tag, given_as=f"{name}: "), weights)
    else:
        _in_a_setting("models", check_name, name)


def model_of(name: str, config_dir: str | None = None) -> ModelConfig:
    """The settings of a name in conf/model, among contestants. Raises ConfigError."""
    try:
        model = Overrides([f"model={name}"], config_dir).config().model
        _check_model(model)
        return model
    except ConfigError as error:
        raise ConfigError(
            f"models: {error} Write a run as run:<folder>, an exported folder as local-dir:<folder>, an open_clip "
            "model as open_clip:<architecture>/<weights>, precomputed embeddings as embeddings:<file>.parquet."
        ) from error


def earlier_run(pretrained: str | None) -> RunFolder | None:
    """The run that `model.pretrained` names, if it names one. Raises ConfigError if nothing was trained there."""
    if not pretrained or not pretrained.startswith(RUN_PREFIX):
        return None
    try:
        return RunFolder(Path(pretrained.removeprefix(RUN_PREFIX))).check_trained()
    except FileNotFoundError as error:
        raise ConfigError(f"model.pretrained={pretrained}: {str(error).partition(': ')[2]}") from error


def _check_teacher(teacher: TeacherConfig, trust: Sequence[str]) -> None:
    if teacher.run is not None:
        try:
            config = _check_run(RunFolder(Path(teacher.run), tuple(trust)))
        except FileNotFoundError as error:
            raise ConfigError(f"teacher.{error}") from error
        check_teacher_fields(teacher.run, teacher.document, config.data.document)
    for setting in ("embeddings", "scores"):
        files = getattr(teacher, setting)
        for file in [] if files is None else files.split("+") if setting == "embeddings" else [files]:
            if not Path(file).is_file():
                raise ConfigError(f"teacher.{setting}={files}: there is no file {file}.")
    if teacher.embeddings is not None:
        from gcl.data.importers.vectors import check_vectors  # which loads pyarrow

        _in_a_setting("teacher", check_vectors, teacher.embeddings)
    if teacher.scores is not None:
        from gcl.data.tables.of_queries import scores_table

        scores_table(Path(teacher.scores))


def check_teacher_fields(run: str | Path, fields: Iterable[str], own: Iterable[str]) -> None:
    """Raises ConfigError where teacher.document names a field that the teacher does not have. own: those it has."""
    for name in fields:
        if name not in own:
            raise ConfigError(f"teacher.document: {run} has no document field {name!r}; it has {', '.join(own)}.")


_SIGLIP = (
    "'optim.freeze=[visual.trunk.*, text.token_embedding.*, text.positional_embedding, text.transformer.*, "
    "text.ln_final.*]'"
)


def _check_head(config: RunConfig) -> None:
    if config.model.head is not Head.linear and not config.optim.freeze:
        raise ConfigError(
            f"model.head={config.model.head} is for frozen towers, and optim.freeze=[] trains them: set {_SIGLIP} (a "
            "SigLIP; of another model the next message names the parts), or model.head=linear."
        )


def _check_run(run: RunFolder) -> RunConfig:
    config = run.read_config()
    try:
        run.check_trained()
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    return config


def _check_model(model: ModelConfig, *, begun: bool = True) -> None:
    """begun: not continued from a checkpoint, which needs no earlier run any more."""
    names_run = (model.pretrained or "").startswith(RUN_PREFIX)
    if ":" in model.name and not names_run:
        check_weights(model.name, model.pretrained)
    _in_a_setting(f"model.name={model.name}", check_name, model.name)
    if not names_run:
        check_weights(model.name, model.pretrained)
    elif begun:
        earlier_run(model.pretrained)


def _in_a_setting(setting: str, check: Callable[[str], None], name: str) -> None:
    try:
        check(name)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _check_columns_and_tasks(config: RunConfig, catalogs: Sequence[Catalog], *, monitored: Sequence[str] = ()) -> None:
    slices, tasks = config.evaluate.slices, config.evaluate.tasks or ()
    if not (slices or tasks or monitored):
        return
    from gcl.data.prepare.judged_tasks import possible_tasks  # which load pyarrow
    from gcl.data.prepare.sources import check_columns
    from gcl.data.store.prepared import check_tasks

    for catalog in catalogs:
        if (known := possible_tasks(catalog)) is not None:
            check_tasks(tasks, known)
            check_tasks(monitored, known, "evaluate.monitor_tasks")
        check_columns(catalog, needed_columns(catalog.schema, slices))


def gpu_files() -> list[Path]:
    """What a GPU's driver leaves in /dev on Linux: known without loading torch."""
    devices = [*Path("/dev").glob("nvidia[0-9]*"), *(Path("/dev") / name for name in ("kfd", "dxg"))]
    return [device for device in devices if device.exists()]


def _check_accelerator(accelerator: str) -> None:
    """A GPU leaves files on Linux; elsewhere Lightning finds out."""
    if accelerator not in ("gpu", "cuda") or not sys.platform.startswith("linux"):
        return
    if not gpu_files():
        raise ConfigError(
            f"trainer.accelerator={accelerator}: this machine has no GPU. trainer=cpu trains on its processor, "
            "trainer=auto on what there is."
        )
