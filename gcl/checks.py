"""What a config can say that cannot be: refused before torch is loaded, in a sentence that names the key."""

from __future__ import annotations

from pathlib import Path

from gcl.mistakes import ConfigError, nearest
from gcl.retrieval.names import parse_metric
from gcl.settings import RunConfig


def check(run: RunConfig) -> None:
    """Raises ConfigError for the first impossible value."""
    try:
        run.data.schema.check()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if run.train.batch_size < 2:
        raise ConfigError(f"train.batch_size={run.train.batch_size}: a contrastive batch needs at least 2 pairs.")
    for key in ("queries", "documents", "dev"):
        share = getattr(run.data.split, key)
        if not 0 <= share <= 1 or (share == 0 and key != "dev"):
            raise ConfigError(f"data.split.{key}={share}: a share is above 0 and at most 1.")
    _check_measures(run)
    if run.model.resize not in (None, "squash", "shortest", "longest"):
        raise ConfigError(f"model.resize={run.model.resize}: it is squash, shortest, longest or null.")
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


def _check_measures(run: RunConfig) -> None:
    for name in run.evaluate.metrics:
        try:
            parse_metric(name)
        except ValueError as error:
            raise ConfigError(f"evaluate.metrics: {error}") from error
    missing = [name for name in (run.evaluate.monitor, *run.evaluate.headline) if name not in run.evaluate.metrics]
    if missing:
        raise ConfigError(
            f"evaluate.metrics does not hold {missing[0]!r}, which evaluate.monitor or headline names: add it."
        )
    if run.evaluate.part not in ("dev", "test"):
        raise ConfigError(f"evaluate.part={run.evaluate.part}: it is dev or test.")
