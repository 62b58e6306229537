"""<run>/metrics.csv: the training curve as a table that survives resuming.

Lightning's CSVLogger deletes the file of the interrupted run.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from gcl.files.atomic import replacing
from gcl.lit.lightning_internals import logged_step, pending_log


class CurveLogger(Logger):
    """One row per call, one column per metric. `save` writes new rows; a new column rewrites the file atomically."""

    def __init__(self, save_dir: str, file: str = "metrics.csv") -> None:
        super().__init__()
        self.path = Path(save_dir) / file
        self._columns: list[str] = ["epoch", "step"]
        self._rows: list[dict[str, Any]] = []  # not yet on disk
        self._ahead: tuple[int | None, set[str]] | None = None
        self._loaded = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self._ahead == (step, set(metrics)):
            return
        self._rows.append({**metrics, "step": step})

    def log_ahead(self, trainer: pl.Trainer) -> None:
        """Writes the row of the step that just ended, for its checkpoint; Lightning delivers it only afterwards.

        A run killed in between would otherwise never have that row, because resuming continues after that step.
        """
        values = pending_log(trainer)
        if values is not None:
            row, step = values | {"epoch": trainer.current_epoch}, logged_step(trainer)
            self.log_metrics(row, step)
            self._ahead = step, set(row)
            self.save()

    @rank_zero_only
    def cut(self, first: int) -> None:
        """Forgets what an earlier attempt logged from step `first` on."""
        rows = [row for row in self._on_disk() if int(row["step"]) < first]
        self._write(rows)

    @rank_zero_only
    def save(self) -> None:
        if not self._rows:
            return
        if not self._loaded:
            self._on_disk()
        new = [key for row in self._rows for key in row if key not in self._columns]
        if new or not self.path.is_file():
            rows = self._on_disk()
            self._columns += dict.fromkeys(new)
            self._write([*rows, *self._rows])
        else:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(self._rows)
        self._rows = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _on_disk(self) -> list[dict[str, Any]]:
        self._loaded = True
        if not self.path.is_file():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            # A last line cut by a kill lacks its step or its end.
            rows = [row for row in table if row.get("step") and None not in row.values()]
            self._columns = list(dict.fromkeys([*self._columns, *(table.fieldnames or [])]))
        return rows

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with replacing(self.path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
