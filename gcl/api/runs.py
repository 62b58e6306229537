"""Training and what follows: `gcl.train`, `gcl.Run`, `gcl.prepare`, `gcl.doctor`, `gcl.export`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gcl.api.catalog import Tables
from gcl.api.model import Model, load
from gcl.api.tabular import Tabular
from gcl.config.compose import load_config, options_from
from gcl.config.schema import RunConfig
from gcl.data.store.prepared import Prepared
from gcl.data.titles import task_titles, title_of
from gcl.errors import ConfigError
from gcl.run.folder import RunFolder, config_of
from gcl.table import Table


class Run:
    """A run folder: what `gcl.train` returns, and `gcl.Run("outputs/…")`.

    path: the folder. report: its page, to be opened in a browser.
    """

    def __init__(self, path: str | Path, *, trust: Sequence[str] = ()) -> None:
        self._folder = RunFolder(Path(path), tuple(trust)).check()
        self.path, self.report = self._folder.path, self._folder.report

    def __repr__(self) -> str:
        return "\n".join(filter(None, [f"<gcl.Run {self.path}>", self.verdict, self.results.table.text()]))

    def _repr_html_(self) -> str:
        from html import escape

        said = f"<p>{escape(self.verdict)}</p>" if self.verdict else ""
        return f"{said}{self.results.table.html()}<p>{escape(str(self.report))}</p>"

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        return self._folder.read_config()

    @cached_property
    def _written(self) -> dict[str, Any]:
        path = self.path / "results.json"
        if not path.is_file():
            raise FileNotFoundError(f"{self.path} holds no results.json: the run has not ended.")
        return json.loads(path.read_text(encoding="utf-8"))

    @property
    def metrics(self) -> dict[str, Any]:
        """{"base" and "tuned": {task: {metric: mean}}}"""
        return json.loads(self._folder.metrics.read_text(encoding="utf-8"))

    @property
    def results(self) -> Results:
        """results.csv: one row for each task, metric and model, with intervals, changes and p."""
        return Results(self._written["results"], task_titles(self.config.data))

    @property
    def verdict(self) -> str:
        """What to do with the tuned model, and why; "" in runs of earlier versions."""
        return " ".join(one["sentence"] for one in self._written.get("verdicts", {}).values())

    def model(self, which: str = "tuned", **options: Any) -> Model:
        """The tuned model, or the base, as `gcl.load` gives it."""
        return load(self, which=which, trust=self._folder.trust, **options)

    def export(self, out: str | Path | None = None, **options: Any) -> Path:
        """As `gcl.export`."""
        return export(self, out, **options)


class Results(Tabular):
    """The figures of a run. titles: those that its tasks were given."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> None:
        self._rows, self._titles = [dict(row) for row in rows], titles

    def to_dicts(self) -> list[dict[str, Any]]:
        return self._rows

    @property
    def table(self) -> Table:
        """For people."""
        shown = ("task", "metric", "model", "value", "low", "high", "n", "change", "p_holm")
        rows = ({**row, "task": title_of(row["task"], self._titles)} for row in self._rows)
        return Table.of_records(({key: row.get(key) for key in shown} for row in rows), align="lll", grouped=True)

    def __repr__(self) -> str:
        return self.table.text()

    def _repr_html_(self) -> str:
        return self.table.html()


def train(
    products: Any = None,
    pairs: Any = None,
    *,
    queries: Any = None,
    qrels: Any = None,
    data: str | None = None,
    config_dir: str | None = None,
    query: Mapping[str, Any] | None = None,
    document: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Run:  # fmt: skip
    """Trains as `gcl train` does, with its results; prints how far it is.

    products, pairs: frames or files: one row per product, and one per search and product that answers it, with a score
        if there is one. Which column is what is found out as by `gcl init`. queries, qrels: judged searches to measure
        with. data: instead, a catalog of conf/data or of `config_dir`, or what the one of the frames is called.
    query, document: the fields of each side, as of `gcl.load`.
    settings: model="lite", run_dir="runs/first", **{"train.max_steps": 200}: those of the command line, as values.
        With a run_dir that holds this run already, it goes on where it was stopped, or is returned if it has ended.
    Raises ValueError, KeyError or FileNotFoundError, in sentences; KeyboardInterrupt where it was interrupted, after
    its checkpoint was saved.
    """
    from gcl.commands import train as command
    from gcl.run.resume import comparable

    if "run_dir" in settings:
        settings.setdefault("train.resume", "auto")
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 and "trainer" not in settings:
        settings.setdefault("trainer.devices", 1)  # several would start this program anew for each
    named = {
        "queries": queries,
        "qrels": qrels,
        "data": data,
        "config_dir": config_dir,
        "query": query,
        "document": document,
    }
    config = _config("train", products, pairs, {**settings, **named})
    if config.run_dir is not None and (Path(config.run_dir) / "results.json").is_file():
        done = RunFolder(Path(config.run_dir))
        if comparable(load_config(done.config, trust=None)) == comparable(config):
            return Run(done.path, trust=config.trust)
    time = os.environ.get("GCL_RUN_TIME")
    try:
        return Run(command.train(config).path, trust=config.trust)
    except SystemExit as stop:
        raise KeyboardInterrupt("Training was interrupted; the same call with its run_dir goes on.") from stop
    finally:
        if time is None:  # the next run of this program has a time of its own
            os.environ.pop("GCL_RUN_TIME", None)


def prepare(products: Any = None, pairs: Any = None, **arguments: Any) -> Prepared:
    """Checks a catalog's tables and images and writes its shards, as `gcl prepare`; returns it opened: its `folder`,
    `documents`, `queries`, `pairs` and `task`. Arguments as of `gcl.train`."""
    from gcl.data.prepare.mixed import open_catalog

    config = _config("prepare", products, pairs, arguments)
    return open_catalog(config.data, config.cache_dir)


def doctor(
    products: Any = None, pairs: Any = None, *, everything: bool = False, **arguments: Any
) -> Diagnosis:  # fmt: skip
    """Looks for what is wrong with a catalog, as `gcl doctor`. everything: at all images and texts, not at a sample.
    run: instead of tables, the catalog of a run. Other arguments as of `gcl.train`."""
    from gcl.commands.doctor.command import examine

    examined = list(examine(_config("doctor", products, pairs, arguments), everything=everything))
    return Diagnosis([one.folder / "doctor.html" for one in examined],
                     [finding for one in examined for finding in one.facts["findings"]],
                     "\n".join(one.text for one in examined))  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What `gcl.doctor` found. reports: the pages, one unless the catalog is a mix. findings: {"level": "problem" or
    less, …} each. text: everything, as `print` shows it."""

    reports: list[Path]
    findings: list[dict[str, Any]]
    text: str

    @property
    def report(self) -> Path:
        """The page."""
        return self.reports[-1]

    @property
    def problems(self) -> list[dict[str, Any]]:
        """What has to be fixed before training."""
        return [one for one in self.findings if one["level"] == "problem"]

    def __repr__(self) -> str:
        return self.text


def _config(command: str, products: Any, pairs: Any, arguments: dict[str, Any]) -> RunConfig:
    """What the arguments mean that all commands on a catalog have."""
    given = {"products": products, "pairs": pairs, **{name: arguments.pop(name, None) for name in ("queries", "qrels")}}
    tables = Tables(given, *(arguments.pop(name, None) for name in ("data", "query", "document")))
    config_dir = arguments.pop("config_dir", None)
    if run := arguments.get("run"):
        arguments["run"] = str(getattr(run, "path", run))
    config = config_of(tables.overrides(arguments, command=command, config_dir=config_dir))
    if not tables.given and tables.data is None and not run:
        raise ConfigError(f"What is the catalog? Give gcl.{command} products=, pairs= or both, or data=.")
    return config


def export(run: Run | str | Path, out: str | Path | None = None, **options: Any) -> Path:
    """Writes a run's model in the formats of other libraries, as `gcl export`; returns the folder.

    out: a new folder; None: export/ in the run. options: those of `gcl export`, formats=["open_clip"] for example.
    """
    from gcl.commands.export import ExportOptions
    from gcl.commands.export import run as command

    given = {"run": str(getattr(run, "path", run)), **options} | ({} if out is None else {"out": str(out)})
    unknown = [f"{key}={value}" for key, value in given.items() if key not in ExportOptions.__dataclass_fields__]
    return command(options_from(ExportOptions, unknown, example="gcl.export(run, out='my_model')", given=given))
