"""What a prepared folder depends on, as one SHA-256: equal inputs, equal name, nothing to do.

Content of every table; of image files the path as written, size and time of last change (reading millions of images
to learn that none changed would cost as much as preparing them); everything of the catalog that decides what is
written. Not where the tables lie, what URLs in them hold, how many threads there are, or the weights and prompts of
the fields.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog
from gcl.data.prepare.sources import CORPORA, Sources, column
from gcl.data.store.prepared import FORMAT
from gcl.data.tables.images import image_path, is_url
from gcl.data.tables.table import Table
from gcl.files.digest import file_sha256
from gcl.schema import Field, Modality

_RULES = 1  # raised when the same inputs would be prepared into something else


def fingerprint(catalog: Catalog, sources: Sources) -> str:
    """64 hexadecimal digits."""
    whole = _start(catalog)
    for table in sources.tables:
        for file in table.files:
            whole.update(f"{file.suffixes} {file_sha256(file)}\n".encode())
    sides = [(sources.documents, catalog.document)]
    sides += [(sources.pairs, catalog.query)] if sources.pairs else []
    sides += [(task.queries, catalog.query) for task in sources.tasks.values()]
    for table, side in sides:
        _add_images(whole, table, side, sources.image_root)
    return whole.hexdigest()


def fingerprint_shards(catalog: Catalog, shards: Iterable[Path]) -> str:
    """Of ready shards: their paths (they stay where they are), sizes and times of last change."""
    whole = _start(catalog)
    for path in shards:
        whole.update(f"{path}\0{_state(path)}\n".encode())
    return whole.hexdigest()


def _start(catalog: Catalog) -> Any:
    return hashlib.sha256(json.dumps([FORMAT, _RULES, _settings(catalog)], sort_keys=True).encode())


def _settings(catalog: Catalog) -> dict[str, Any]:
    values = asdict(catalog)
    for name in ("name", "root", "generator", "products", "pairs", "shards", "image_root"):
        values[name] = values[name] is not None
    for side in ("query", "document"):
        fields = catalog.schema.side(side)
        values[side] = [[name, spec.modality.value, column(name, spec)] for name, spec in fields.items()]
    if values["training"]:  # words that are newer than prepared folders stand there only where they say something
        del values["training"]
    values["tasks"] = [[name, _task(task)] for name, task in values["tasks"].items()]
    del values["store"]["workers"], values["download"], values["mix"], values["batches"], values["catalogs"]
    return values


def _task(task: dict[str, Any]) -> dict[str, Any]:
    """Tables count by their content; the weights of fields not at all."""
    corpus = {} if task["corpus"] in CORPORA else {"corpus": "table"}
    newer = {key: task[key] for key in ("column", "qrels_query_id") if task[key] is not None}
    left_out = ("document", "column", "qrels_query_id")
    return {k: v for k, v in task.items() if k not in left_out} | {"queries": "", "qrels": ""} | corpus | newer


def _add_images(whole: Any, table: Table, side: Mapping[str, Field], image_root: Path | None) -> None:
    columns = [column(name, spec) for name, spec in side.items() if spec.modality is Modality.image]
    if not columns:
        return
    state = lru_cache(maxsize=1 << 17)(_state)  # a table of pairs names the same product's image again and again
    for block in table.blocks((), columns):
        folder = image_root or block.file.parent
        for name in columns:
            cells = [cell for cell in block.columns[name] if isinstance(cell, str) and not is_url(cell)]
            whole.update("\n".join([f"{cell}\0{state(image_path(cell, folder))}" for cell in cells]).encode())


def _state(path: Path) -> str:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"
