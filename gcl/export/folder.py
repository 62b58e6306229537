"""The folder of an export: written beside its place, and renamed when everything is in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from gcl.files.atomic import synchronize
from gcl.files.lock import locked

_KEPT = "embeddings"


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Gives a folder to write into; after the block it stands at `out`. After an error or a kill nothing stands there.

    The next attempt begins anew, but for embeddings: finished files of theirs say of which model and catalog they are,
    took hours, and are found again.

    Raises FileExistsError if there is something at `out` already.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.unfinished")
    with locked(out.with_name(f".{out.name}.lock"), waiting_for=f"the export into {out}"):
        check_free(out)  # whoever held the lock may have written it
        _empty(beside)  # of a process that was killed: the lock says that nobody is at work in it
        beside.mkdir(exist_ok=True)
        try:
            yield beside
            _sync(beside)
            os.replace(beside, out)  # an empty folder at `out` is replaced, too
        except BaseException:
            _empty(beside)
            raise


def _empty(folder: Path) -> None:
    """Removes the folder, or everything but its embeddings."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != _KEPT:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out={out} is not empty: name a new folder, or empty this one.")


def settled(config: dict[str, Any], place: str) -> dict[str, Any]:
    """An open_clip_config.json whose Hugging Face tokenizer and text tower are looked for at `place`: a path, or
    owner/name on the Hub. open_clip finds the tokenizer of a local folder by itself."""
    config = deepcopy(config)
    text_cfg = config["model_cfg"]["text_cfg"]
    foreign, published = bool(text_cfg.get("hf_model_name")), not Path(place).is_absolute()
    if foreign:
        text_cfg["hf_model_name"] = place
    if text_cfg.get("hf_tokenizer_name") and (foreign or published):
        text_cfg["hf_tokenizer_name"] = place
    return config


def _sync(folder: Path) -> None:
    """Everything is on the disk before the name says so."""
    for path in folder.rglob("*"):
        if path.is_file():
            synchronize(path)
