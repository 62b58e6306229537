"""Where a catalog's relative paths start.

    a YAML of one's own         its folder (or data.root, which starts there); a path that is not there but in the
                                working folder is taken from the working folder, and that is said
    a YAML of gcl's own conf/   the working folder (or data.root)
    the command line            the working folder, also on top of a run's config

The paths of a composed config are absolute, or start at its root, which is absolute unless it was typed: that is shown
as it was typed. A run's config.yaml has every root absolute, so it names the same files from anywhere.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gcl.config.yaml import SCHEME
from gcl.data.catalog import Catalog, Task, is_corpus
from gcl.data.tables.remote import is_remote
from gcl.options import Kind, keys_of

logger = logging.getLogger(__name__)
_TABLES = tuple(key for key in keys_of(Catalog, Kind.path) if "." not in key and key != "root")
_OF_TASKS = (*keys_of(Task, Kind.path), "corpus")


def path_keys(data: Mapping[str, Any]) -> list[str]:
    """The dotted keys of a catalog's paths, but for `root`, that are set."""
    keys = [key for key in _TABLES if data.get(key)]
    for name, task in (data.get("tasks") or {}).items():
        keys += [f"tasks.{name}.{key}" for key in _OF_TASKS if task.get(key) and not is_corpus(task[key])]
    return keys


def own_folder(choice: str, sources: Iterable[Mapping[str, Any]]) -> Path | None:
    """The folder of data/<choice>.yaml, found in Hydra's config sources; None for one of gcl's own."""
    for source in sources:
        file = Path(source["path"]) / "data" / f"{choice}.yaml"
        if source["schema"] in ("file", SCHEME) and file.is_file():
            return None if source["provider"] == "main" else file.parent
    return None


def locate(
    data: DictConfig, folder: Path | None, *, typed: Collection[str] = (), name: str = "", partial: bool = False
) -> None:
    """Makes `root` absolute, unless it was typed, and with it, or by itself, every path of a catalog.

    folder: of its YAML; None for one of gcl's own. typed: the keys that the command line gave. name: of the YAML, for
    the sentence that says what was taken from the working folder. partial: some settings to go on top of a catalog.
    """
    if data.get("mix"):
        return
    here = Path.cwd()
    starts = [here] if folder is None else [folder, here]
    elsewhere: list[str] = []

    def begun(path: str, candidates: list[Path], *, by_hand: bool) -> Path | None:
        """The first of the folders that has the path, or else the first. None for a path that needs no start."""
        if is_remote(path) or path.startswith("file:") or Path(path).expanduser().is_absolute():
            return None
        chosen = next((start for start in candidates if _exists(start, path)), candidates[0])
        if chosen is not candidates[0] and folder is not None and not by_hand:
            elsewhere.append(path)
        return chosen

    whole = root = data.get("root")
    if root:
        by_hand = "root" in typed
        start = begun(root, [here] if by_hand else starts, by_hand=by_hand)
        whole = root if start is None else _join(start, root)
        if partial or not by_hand:
            data.root = whole
        starts = [Path(whole).expanduser()]
        typed = () if by_hand else typed
    elif data.get("generator"):  # writes its tables where it is told to
        return
    begins: dict[str, Path] = {}
    for key in path_keys(data):
        by_hand = _is_typed(key, typed)
        start = begun(OmegaConf.select(data, key), [here, *starts] if by_hand else starts, by_hand=by_hand)
        if start is not None:
            begins[key] = start
    if not root and not partial:  # the folder that most need: messages call a table what it is called here
        data.root = whole = str(here if set(begins.values()) == {here} else starts[0])
    for key, start in begins.items():
        if str(start) != whole:
            OmegaConf.update(data, key, _join(start, OmegaConf.select(data, key)))
    if elsewhere and folder is not None:
        _say_elsewhere(name, folder, here, tuple(elsewhere))


def _is_typed(key: str, typed: Collection[str]) -> bool:
    """Whether the command line gave a key, or all of a mapping that it is in."""
    names = key.split(".")
    return any(".".join(names[: count + 1]) in typed for count in range(len(names)))


def anchored(root: str) -> str:
    """A root as it is found from any folder."""
    return root if is_remote(root) else _join(Path.cwd(), str(Path(root).expanduser()))


def _join(start: Path, path: str) -> str:
    return os.path.normpath(start / path)


def _exists(start: Path, path: str) -> bool:
    """Whether a path, or a pattern of paths, names something below `start`."""
    place = start / Path(path).expanduser()
    if place.exists():
        return True
    pattern = re.sub(r"\{[^{}]*\}", "*", str(place))
    return any(True for _ in glob.iglob(pattern)) if glob.has_magic(pattern) else False


@cache  # a command may compose its config more than once
def _say_elsewhere(name: str, folder: Path, here: Path, paths: tuple[str, ...]) -> None:
    better = os.path.relpath(_join(here, paths[0]), folder)
    logger.warning(
        f"{name}.yaml names {', '.join(paths)}: not in its folder {folder}, where its paths start, but in the working "
        f"folder; taken from there. Write {better} to find it from any folder."
    )
