"""Whether shards still hold the bytes that were indexed: looked at once, and again when a file has changed.

A mark in the prepared folder says of which files (size and time of change) that is known, so that a run pays for
it only where shards were copied, restored or touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gcl.data.store.store import RecordStore
from gcl.files.atomic import write_text
from gcl.files.lock import locked


def verify_changed(folder: Path, stores: Iterable[RecordStore]) -> None:
    """Raises ValueError naming the first shard, and the first record in it, whose bytes are not those indexed."""
    folder = folder.absolute()
    shards = {shard["name"]: (store, shard) for store in stores for shard in store.shards}
    if not _unknown(folder, shards):
        return
    try:
        with locked(_mark(folder).with_suffix(".lock"), waiting_for=f"the shards of {folder} to be checked"):
            _verify(folder, shards)
    except PermissionError:  # a folder that only others may write: it is looked at every time
        _verify(folder, shards)


def mark_verified(folder: Path, names: Iterable[str]) -> None:
    """Call after writing, or reading and indexing, these shards."""
    known = _known(folder) | {name: _state(folder / name) for name in names}
    with suppress(OSError):  # without the mark they are only verified again
        write_text(_mark(folder), json.dumps(known))


def _verify(folder: Path, shards: Mapping[str, tuple[RecordStore, dict[str, Any]]]) -> None:
    unknown = _unknown(folder, shards)  # another process may just have looked
    for name in unknown:
        store, shard = shards[name]
        store.verify([shard])
    mark_verified(folder, unknown)


def _unknown(folder: Path, names: Iterable[str]) -> list[str]:
    known = _known(folder)
    return [name for name in names if known.get(name) != _state(folder / name)]


def _known(folder: Path) -> dict[str, list[int]]:
    try:
        known = json.loads(_mark(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _mark(folder: Path) -> Path:
    return folder / ".verified"


def _state(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]
