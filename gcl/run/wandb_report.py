"""What a run leaves at Weights & Biases when `logger=wandb` was chosen, beyond the curves that Lightning logs:

config     the whole config by dotted key, and what the run is made of (catalog, steps, parameters)
results    the table of tasks and metrics, as in results.csv
queries    the queries that gained and that lost most, with the first results before and after as images
artifact   `report`: the page, the tables and the config

Nothing here runs, and wandb is not imported, with another logger. Offline (logger.offline=true, WANDB_MODE=offline) all
of it goes into the run folder's wandb/, for `wandb sync`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.loggers import WandbLogger

from gcl.config.secrets import without_secrets_in
from gcl.errors import ConfigError
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.page.details import Side
from gcl.retrieval.page.thumbnails import small_picture
from gcl.retrieval.report import contest_rows, results_records
from gcl.run.outcome import Outcome
from gcl.table import visible

if TYPE_CHECKING:
    from wandb import Run

QUERIES = 10  # that gained, and as many that lost
RESULTS = 3  # of each model, per query
_PIXELS = 160  # of the longer side of an image
_FILES = ("report.html", "results.md", "results.csv", "results.json", "metrics.json", "metrics.csv", "config.yaml")


def begin(trainer: pl.Trainer, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Run | None:
    """The W&B run with the config in it, on the first rank of a run that logs there; None for all others.

    Raises ConfigError where Weights & Biases refuses, for want of a login for example.
    """
    logger = next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)
    if logger is None or not trainer.is_global_zero:
        return None
    import wandb

    given = sys.argv  # which wandb copies into its record
    sys.argv = without_secrets_in(given)
    try:
        run = logger.experiment
    except wandb.Error as error:
        sentence = " ".join(str(error).split())
        raise ConfigError(
            f"logger=wandb: {sentence} Without a network or an account, add logger.offline=true."
        ) from error
    finally:
        sys.argv = given
    run.config.update({**config, **{f"run.{name}": value for name, value in facts.items()}}, allow_val_change=True)
    return run


def place_of(run: Run) -> str:
    """Where a W&B run is looked at: its address, or the command that uploads it."""
    return run.url or f"wandb sync {Path(run.dir).parent}"


def finish(run: Run, outcome: Outcome, folder: Path) -> None:
    """Logs results, queries and the report, and ends the W&B run, so that the next of a sweep is another one."""
    import wandb

    records = results_records(contest_rows(outcome.models, outcome.settings.headline))
    tables = {"results": _table(records.header, records.rows)}
    columns, rows = _changed_queries(outcome)
    if rows:
        tables["queries"] = _table(columns, rows)
    run.log(tables)
    for label, results in outcome.models.items():
        for task, result in results.items():
            run.summary.update({visible(f"{label}/{task}/{name}"): mean for name, mean in result.means.items()})
    artifact = wandb.Artifact(f"report-{run.id}", type="report", metadata={"title": visible(outcome.title)})
    for name in _FILES:
        if (folder / name).is_file():
            artifact.add_file(str(folder / name), name=name)
    run.log_artifact(artifact)
    run.finish()


def _table(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Any:
    """A wandb.Table whose texts show what they hold: `wandb` prints them at terminals."""
    import wandb

    cells = [[visible(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return wandb.Table(columns=[visible(name) for name in columns], data=cells)


def _changed_queries(outcome: Outcome) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: those that gained most by the first headline metric, then those that lost most."""
    metric, labels = outcome.settings.headline[0], list(outcome.models)[:2]
    places = [f"{label} {place}" for label in labels for place in range(1, RESULTS + 1)]
    columns = ["change", "task", "query", *(f"{metric} {label}" for label in labels)]
    columns += [name for place in places for name in (place, f"{place} image")]
    if len(labels) < 2:
        return columns, []
    changes = []
    for task in outcome.tasks:
        before, after = (outcome.models[label][outcome.name_of(task)] for label in labels)
        change = after.values[metric] - before.values[metric]
        changes += [(float(change[n]), task, int(n), (before, after)) for n in np.flatnonzero(change)]
    changes.sort(key=lambda one: -one[0])
    gained = [one for one in changes[:QUERIES] if one[0] > 0]
    lost = [one for one in changes[: -QUERIES - 1 : -1] if one[0] < 0]
    rows = []
    for difference, task, query, results in [*gained, *lost]:
        values = [float(result.values[metric][query]) for result in results]
        shown = [cell for result in results for cell in _first_results(Side(task.corpus), result, query)]
        rows.append([difference, outcome.name_of(task), Side(task.queries).title(query), *values, *shown])
    return columns, rows


def _first_results(documents: Side, result: TaskResult, query: int) -> Iterator[Any]:
    """Two cells per place: the document's title, and its image or None; both are None beyond the end."""
    import wandb
    from PIL import Image

    rows = [int(row) for row in result.row[query][:RESULTS] if row >= 0]
    for row in rows:
        title, data = visible(documents.title(row)), documents.picture(row)
        small = small_picture(data, _PIXELS) if data else None
        yield title
        yield (None if small is None else wandb.Image(Image.open(io.BytesIO(small)).convert("RGB"), caption=title))
    yield from [None, None] * (RESULTS - len(rows))
