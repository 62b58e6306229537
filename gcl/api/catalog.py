"""Tables that a program holds, or the names of files and catalogs, and settings -> what a command would be told.

1. frames are written once below the cache folder, called by their content: a run can be measured again and resumed
2. which column is what is found out as `gcl init` finds it out; `query` and `document` state the fields instead
3. settings are values of Python: {"train.max_steps": 200}, model="lite"; a group's choice is its name
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gcl.config.compose import Overrides, catalog_from
from gcl.config.folder import GROUPS
from gcl.data.init.draft import draft_tables
from gcl.data.init.inputs import find_inputs
from gcl.data.prepare.rows import columns_of
from gcl.data.store.away import local_folder
from gcl.data.tables.frame import write_frame
from gcl.data.tables.table import Table
from gcl.errors import ConfigError
from gcl.retrieval.tasks.items import fitted
from gcl.run.console import say
from gcl.schema import Field, Modality, SideName, fields_of

_CACHE = "prepared"


@dataclass
class Tables:
    """What a call names as its data: tables by what they are, or a catalog's name."""

    given: dict[str, Any] = field(default_factory=dict)
    """products, pairs, queries, qrels: frames or paths."""
    data: str | None = None
    """A catalog of conf/data; with tables, what theirs is called."""
    query: Mapping[str, Any] | None = None
    document: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.given = {name: rows for name, rows in self.given.items() if rows is not None}

    def overrides(
        self, settings: Mapping[str, Any], *, command: str, config_dir: str | None = None, training: bool = True
    ) -> Overrides:
        """As the command line's. Raises ConfigError for a setting that the command would ignore."""
        if refused := [
            key for key in ("run", "models", "out") if key in settings and (key == "models" or command != "doctor")
        ]:
            raise ConfigError(f"gcl.{command} has no {refused[0]}=.")
        choices = {key: value for key, value in settings.items() if key in GROUPS and not isinstance(value, Mapping)}
        words = [f"{key}={'null' if value is None else value}" for key, value in choices.items()]
        values = {key: value for key, value in settings.items() if key not in choices}
        catalog = self._catalog(str(settings.get("cache_dir", _CACHE)), training=training) if self.given else None
        if catalog is None:
            sides: list[tuple[SideName, Any]] = [("query", self.query), ("document", self.document)]
            values |= {f"data.{side}": stated_fields(side, fields) for side, fields in sides if fields is not None}
            words += [f"data={self.data}"] if self.data else []
        return Overrides(words, config_dir, values, catalog)

    def _catalog(self, cache_dir: str, *, training: bool) -> dict[str, Any]:
        """The catalog of the tables, as its YAML would say it."""
        place = local_folder(cache_dir).absolute()
        files = {name: _file(rows, place / "frames", name) for name, rows in self.given.items()}
        inputs = find_inputs(list(files.values()), place / "tables")
        try:
            draft = draft_tables(inputs, name=self.data or "catalog", like=None, place=str, begin="A program's tables.")
        except ValueError as error:
            raise ConfigError(
                f"{', '.join(f'{name}=' for name in files)}: {error} Usual names of columns are product_id, title, "
                "image and description for products, and query, product_id and score for pairs."
            ) from error
        settings: dict[str, Any] = yaml.safe_load(draft.text)
        for line in draft.told:
            say(line)
        for name in ("products", "pairs"):
            if name in files and name not in settings:
                raise ConfigError(f"{name}= was not taken for {name}: {'; '.join(draft.notes) or draft.text}")
        if {"queries", "qrels"} & files.keys() and "tasks" not in settings:
            raise ConfigError(f"No task can be made of queries= and qrels=: {'; '.join(draft.notes)}.")
        if any(name in self.given and files[name] != str(self.given[name]) for name in ("products", "pairs")):
            settings.setdefault("image_root", str(Path.cwd()))  # a frame has no folder
        settings["training"] = training
        self._state_fields(settings, files)
        return settings

    def _state_fields(self, settings: dict[str, Any], files: Mapping[str, str]) -> None:
        """Puts the fields that were stated in the place of those that were guessed."""
        if self.document is not None:
            document = stated_fields("document", self.document)
            settings["document"] = _there(document, files.get("products") or files["pairs"])
        if self.query is None:
            return
        guessed, query = settings["query"]["query"].get("column", "query"), stated_fields("query", self.query)
        settings["query"] = _there(query, files.get("pairs") or files["products"]) if settings["training"] else query
        for task in settings.get("tasks", {}).values():
            column = task.pop("query_columns", {}).get("query", guessed)
            there = _columns(task["queries"])
            other = [name for name in fields_of(query, Modality.text) if (query[name].column or name) not in there]
            task["query_columns"] = dict.fromkeys(other[:1], column)


def stated_fields(side: SideName, fields: Mapping[str, Any]) -> dict[str, Field]:
    """The fields of a side as a person writes them. Raises ConfigError, in a sentence.

    >>> stated_fields("document", {"title": "text", "image": {"modality": "image", "weight": 0.9}})["image"].weight
    0.9
    """
    plain = {name: {"modality": one} if isinstance(one, str) else one for name, one in fields.items()}
    return getattr(catalog_from({"name": "items", side: plain}), side)


def _file(rows: Any, folder: Path, name: str) -> str:
    return str(rows) if isinstance(rows, str | Path) else str(write_frame(rows, folder, name))


def _columns(path: str) -> list[str]:
    return Table(path, [Path(path)]).columns if Path(path).is_file() else []


def _there(fields: Mapping[str, Field], path: str) -> dict[str, Field]:
    """Those that a table has a column of; all of them where it has none, which preparing explains."""
    columns = _columns(path)
    found = {name: spec for name, spec in fitted(fields, columns).items() if set(columns_of(name, spec)) & set(columns)}
    return found or dict(fields)
