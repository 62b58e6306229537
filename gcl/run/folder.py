"""The run folder: where a run keeps what (DESIGN: "The run folder"), written and found again."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run. Nothing is created by looking."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def tasks(self) -> Path:
        return self.path / "tasks"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def check(self) -> RunFolder:
        """Itself, if a run was begun here; FileNotFoundError with a sentence otherwise."""
        if not self.config.is_file():
            near = sorted(str(p.parent) for p in Path("outputs").glob("*/*/*/config.yaml"))[-3:]
            hint = f" Your last runs: {', '.join(near)}." if near else ""
            raise FileNotFoundError(f"run={self.path}: there is no config.yaml, so this is no run folder.{hint}")
        return self


def new_run_folder(run_dir: str | None, *, data: str, model: str) -> RunFolder:
    """The folder of a new run: run_dir, or outputs/<data>/<model>/<time>, the same on every rank."""
    if run_dir is not None:
        return RunFolder(Path(run_dir))
    return RunFolder(Path("outputs") / data / model / _common_time())


def _common_time() -> str:
    """The time this run started, agreed by all its processes: inherited, the scheduler's job, or rank 0's word."""
    if known := os.environ.get("GCL_RUN_TIME"):
        return known
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"job-{job}"
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ:
        now = _ask_rank_zero(now)
    else:
        base, number = now, 1
        while any(Path("outputs").glob(f"*/*/{now}")):
            number += 1
            now = f"{base}-{number}"
    os.environ["GCL_RUN_TIME"] = now
    return now


_STORES: list[Any] = []


def _ask_rank_zero(word: str) -> str:
    """Rank 0's word on every rank, through the launcher's own key-value store."""
    from torch.distributed import rendezvous

    store, rank, _ = next(iter(rendezvous("env://")))
    _STORES.append(store)  # rank 0's is a server: it must answer the slower ranks, and the process group uses it again
    if rank == 0:
        store.set("gcl/run_time", word)
    return store.get("gcl/run_time").decode()


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    write_text(path, json.dumps(content, indent=2, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole or not at all: written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
