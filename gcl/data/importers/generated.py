"""`data.generator`: a function that writes a catalog's tables, or translates published files into tables."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gcl.files.digest import text_sha256
from gcl.files.lock import locked


def generated(name: str, generator: str, folder: Path, root: Path | None) -> Path:
    """The folder below `folder` that a generator wrote its tables into; called the first time only, or with a `root`
    to translate when the files that lie there (not those in its folders) change."""
    source = folder / f"{name}-source{'' if root is None else '-' + _state_of(root)}"
    if source.is_dir():
        return source
    with locked(folder / f".{source.name}.lock", waiting_for=f"{source} to be generated"):
        if not source.is_dir():
            write = _import(generator)
            unfinished = folder / f".{source.name}.partial"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            write(unfinished, *([] if root is None else [root]))
            os.rename(unfinished, source)
    return source


def _state_of(root: Path) -> str:
    if not root.is_dir():
        raise FileNotFoundError(f"data.root: there is no folder {root}.")
    files = sorted((entry.name, entry.stat()) for entry in os.scandir(root) if entry.is_file())
    state = [str(root), *(f"{name} {found.st_size} {found.st_mtime_ns}" for name, found in files)]
    return text_sha256("\n".join(state))[:12]


def _import(path: str) -> Callable[..., None]:
    module, _, name = path.partition(":")
    hint = f"data.generator is {path!r}; expected 'package.module:function'"
    if not name:
        raise ValueError(f"{hint}.")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{hint}, and this one cannot be imported: {error}.") from error
