"""A folder in an object store, or a data set of the Hugging Face hub, that is one table -> its files on this machine.

What the folder lists is laid out here as empty files, the rules of folder.py choose among these by their names, and
what they choose is fetched. Files that did not change since the last time are not fetched again: each is kept by its
URL and state, and linked from here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gcl.data.masked import masked
from gcl.data.store.remote_shards import leads_inside
from gcl.data.tables.folder import LOGS, files_of, kind_of, not_whole, owners_of
from gcl.data.tables.remote import copied, named_by
from gcl.files.atomic import PARTIAL, link
from gcl.files.digest import text_sha256
from gcl.files.lock import locked

_DESCRIBE = {"state.json", "dataset_dict.json"}  # of a folder, in words that its rules read
_AT_ONCE = 8


class NotOneTable(ValueError):
    """A folder of which the rules say, in a sentence, why it is not read."""


def is_folder(url: str) -> bool:
    """Whether a URL names a folder: by the slash at its end, or as the store says. https:// has none."""
    import fsspec

    if url.lower().startswith("http"):
        return False
    system, path = fsspec.core.url_to_fs(url)
    system.invalidate_cache()  # of what was listed before
    return url.endswith("/") or system.isdir(path)


def check_whole_away(url: str, setting: str, *, is_folder: bool) -> None:
    """Raises NotOneTable where the files of a URL (with wildcards: several) are parts of a table of which a log says
    which of them count. Logs in the folder itself are those of `files_of`."""
    if url.lower().startswith("http"):
        return
    system, files = named_by(url)
    for folder in {PurePosixPath(file) if is_folder else PurePosixPath(file).parent: None for file in files}:
        for owner in owners_of(folder):
            if not (is_folder and owner == folder) and _has_log(system, owner):
                inner, outer = (masked(system.unstrip_protocol(str(place))) for place in (folder, owner))
                raise NotOneTable(not_whole(inner, outer, setting))


def _has_log(system: Any, folder: PurePosixPath) -> bool:
    try:
        logs = (system.exists(f"{folder}/{log}") for log in LOGS)
        return any(logs) or bool(system.glob(f"{folder}/metadata/*.metadata.json"))
    except (OSError, ValueError):  # nobody may ask, or no folder can have this name
        return False


def copy_folder(url: str, copies: Path, suffixes: Iterable[str], setting: str) -> list[Path]:
    """The files of the table, below `copies`; of a Lance data set the folder. Empty: there is nothing at the URL.

    Raises NotOneTable for a folder that is none, and what the store raises.
    """
    far = _listed(url.rstrip("/"), tuple(suffixes), setting)
    if not far.state:
        return []
    digest = text_sha256(repr((far.url, sorted(far.state.items()))))[:16]
    target, inside = copies / digest, _inside(far.path)
    copies.mkdir(parents=True, exist_ok=True)
    with locked(copies / f".{digest}.lock", waiting_for=f"{masked(url)} to be fetched"):
        if not target.exists():
            unfinished = copies / f".{digest}{PARTIAL}"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed: the lock is ours
            try:
                far.fetch_into(unfinished / inside, copies)
                os.rename(unfinished, target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return far.files_in(target / inside)


@dataclass(frozen=True)
class _Far:
    """What a folder lists of a table. state: {name below it: what changes with the file}."""

    url: str
    system: Any
    path: str
    state: dict[str, str]
    suffixes: tuple[str, ...]
    setting: str

    def files_in(self, folder: Path) -> list[Path]:
        """Those that the rules choose of the folder as it is laid out here."""
        if kind_of(folder) == "iceberg":
            raise NotOneTable(
                f"{self.setting}: {masked(self.url)} is an Iceberg table, whose own files name each other by where "
                "they lie: write its current snapshot as Parquet, and name that."
            )
        try:
            return files_of(folder, self.suffixes, self.setting)
        except (FileNotFoundError, ValueError) as error:
            raise NotOneTable(str(error).replace(str(folder), masked(self.url))) from None

    def fetch_into(self, folder: Path, copies: Path) -> None:
        for name in self.state:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        for name in self.state.keys() & _DESCRIBE:
            self._fetch(name, folder, copies)
        chosen = set(self.files_in(folder))
        names = [name for name in self.state if folder in chosen or folder / name in chosen]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self._fetch(name, folder, copies), names))

    def _fetch(self, name: str, folder: Path, copies: Path) -> None:
        here = copied(self.system.unstrip_protocol(f"{self.path}/{name}"), copies, state=self.state[name])
        (folder / name).unlink()
        link(here, folder / name)


def _listed(url: str, suffixes: tuple[str, ...], setting: str) -> _Far:
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    about: dict[str, dict[str, Any]] = {}
    if system.exists(path):
        path = system.info(path)["name"].rstrip("/")
        about = {name[len(path) + 1 :]: info for name, info in system.find(path, detail=True).items()}
    is_lance = any(name.startswith("_versions/") for name in about)
    state = {
        name: repr(sorted((key, str(value)) for key, value in info.items()))
        for name, info in about.items()
        if (is_lance or _matters(name, suffixes)) and leads_inside(name)
    }
    return _Far(url, system, path, state, suffixes, setting)


def _matters(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file may be part of the table, or say something about it."""
    return name.lower().removesuffix(".gz").endswith(suffixes) or not LOGS.keys().isdisjoint(name.split("/"))


def _inside(path: str) -> Path:
    """The end of a path that says something of the rows: its name, and partitions above that."""
    *above, name = path.split("/")
    kept = [name]
    while above and "=" in above[-1]:
        kept.insert(0, above.pop())
    return Path(*kept)
