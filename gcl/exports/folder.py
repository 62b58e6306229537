"""The folder of an export: written under a temporary name, and renamed when it is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from gcl.files.atomic import names_full_disk, remove_unfinished, synchronize
from gcl.files.lock import locked

EMBEDDINGS = "embeddings"  # its folder with a catalog's vectors, and the name that formats=[…] has for them


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Yields a folder to write into, which becomes `out` after the block. After an error or a kill there is no `out`.

    The next attempt starts from the beginning, except for embeddings: their finished files took hours, name their
    model and catalog, and are used again.

    Raises FileExistsError if `out` is there already.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.unfinished")
    with locked(out.with_name(f".{out.name}.lock"), waiting_for=f"the export into {out}"):
        check_free(out)  # whoever held the lock may have written it
        _empty(temporary)  # of a killed process: the lock says that nobody works in it any more
        temporary.mkdir(exist_ok=True)
        try:
            with names_full_disk(out):
                yield temporary
                _sync(temporary)
            os.replace(temporary, out)  # an empty folder at `out` is replaced, too
        except BaseException:
            _empty(temporary)
            raise


def _empty(folder: Path) -> None:
    """Removes the folder, or everything but the finished files of its embeddings."""
    remove_unfinished(folder / EMBEDDINGS)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != EMBEDDINGS:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty: name a new folder, or empty this one" if out.is_dir() else "is a file: name a folder"
        raise FileExistsError(f"out={out} {what}.")


def reached(place: str) -> tuple[str, str]:
    """The import that a snippet in Python needs, and the expression of the folder at `place`: a path, or owner/name."""
    if Path(place).is_dir():
        return "", f'"{place}"'
    return "from huggingface_hub import snapshot_download\n", f'snapshot_download("{place}")'


def write_json(path: Path, content: Any) -> None:
    """A JSON file of an export, in which names and texts of any script stay readable; makes its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def settled(config: dict[str, Any], place: str) -> dict[str, Any]:
    """An open_clip_config.json whose Hugging Face tokenizer and text tower are found at `place`: a path, or owner/name
    on the Hub. open_clip finds the tokenizer of a local folder by itself."""
    config = deepcopy(config)
    text_cfg = config["model_cfg"]["text_cfg"]
    foreign, published = bool(text_cfg.get("hf_model_name")), not Path(place).is_absolute()
    if foreign:
        text_cfg["hf_model_name"] = place
    if text_cfg.get("hf_tokenizer_name") and (foreign or published):
        text_cfg["hf_tokenizer_name"] = place
    return config


def _sync(folder: Path) -> None:
    """Waits until every file is on the disk: the name must not be there before them."""
    for path in folder.rglob("*"):
        if path.is_file():
            synchronize(path)
