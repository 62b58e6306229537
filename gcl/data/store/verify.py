"""Whether the files of a prepared folder still hold the bytes that were written.

Tables, which are small, are compared with their SHA-256 whenever the folder is opened. Shards are by default compared
once and after a change: a mark in the folder says of which of them (by size and time of change) it is known, so a run
pays for it only where they were copied, restored or touched.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gcl.files.atomic import write_text
from gcl.files.digest import file_sha256
from gcl.files.lock import locked
from gcl.files.progress import counted

logger = logging.getLogger(__name__)
_ABOUT = "about.json"
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


def verify_shards(folder: Path, checks: Mapping[str, Callable[[], None]], *, every: bool) -> None:
    """Calls the check of each shard {name in the folder: check}, or, unless `every`, of those of which it is not known
    that they are as they were written.

    A check raises ValueError naming the file, and what in it changed.
    """
    folder = folder.absolute()
    if not every and not _unknown(folder, checks):
        return
    try:
        with locked(_mark(folder).with_suffix(".lock"), waiting_for=f"the files of {folder} to be checked"):
            _verify(folder, checks, every=every)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        _verify(folder, checks, every=every)  # a folder that only others may write: its files are checked every time


def check_table(path: Path, sha256: str) -> None:
    """Raises ValueError for a table whose bytes are not those that the folder's index lists."""
    digest = file_sha256(path)
    if digest != sha256:
        raise ValueError(
            f"{path} has SHA-256 {digest[:16]}…, the folder's index says {sha256[:16]}…: its bytes changed after it "
            "was written. Restore the file, or delete the prepared folder and prepare the catalog again."
        )


def write_about(table: Path, about: Mapping[str, Any]) -> None:
    """about.json next to a table that is made once of the user's own: what is known of it, and its SHA-256."""
    write_text(table.parent / _ABOUT, json.dumps({**about, "sha256": file_sha256(table)}, indent=1))


def is_whole(table: Path) -> bool:
    """Whether such a table is there, and as it was written; where it is not, a line says that it is made again."""
    if not table.is_file():
        return False
    try:
        about = json.loads((table.parent / _ABOUT).read_text(encoding="utf-8"))
        whole = about.get("sha256") in (None, file_sha256(table))  # None: of an earlier version
    except (OSError, ValueError, AttributeError):
        whole = False
    if not whole:
        logger.warning(f"{table} is damaged, so it is made again.")
    return whole


def mark_verified(folder: Path, names: Iterable[str]) -> None:
    """Call after writing, or reading and indexing, these files."""
    known = _known(folder) | {name: _state(folder / name) for name in names}
    with suppress(OSError):  # without the mark they are only verified again
        write_text(_mark(folder), json.dumps(known))


def _verify(folder: Path, checks: Mapping[str, Callable[[], None]], *, every: bool) -> None:
    names = list(checks) if every else _unknown(folder, checks)  # another process may just have verified them
    for name in counted(names, f"Verifying {folder.name}", unit="shard"):
        checks[name]()
    mark_verified(folder, names)


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
