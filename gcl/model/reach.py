"""What a model's name tells before anything heavy is loaded: whether it is known, or its repository reachable.

Imports no torch: a mistyped name is answered before a catalog is prepared.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

LOCAL_DIR_PREFIX, HF_HUB_PREFIX, HF_TEXT_PREFIX = "local-dir:", "hf-hub:", "hf-text:"
CONFIG = "open_clip_config.json"
OWN_CONFIGS = Path(__file__).parent / "configs"


def check_name(name: str) -> None:
    """Raises ValueError for an architecture that nobody knows, a folder that is not there, or a repository whose
    config cannot be fetched; the config of one that can be is fetched."""
    if name.startswith(LOCAL_DIR_PREFIX):
        if not Path(name.removeprefix(LOCAL_DIR_PREFIX)).is_dir():
            raise ValueError(f"{name}: there is no such folder.")
    elif name.startswith(HF_HUB_PREFIX):
        _fetch(name, name.removeprefix(HF_HUB_PREFIX), CONFIG)
    elif name.startswith(HF_TEXT_PREFIX):
        source = name.removeprefix(HF_TEXT_PREFIX)
        if not Path(source).is_dir():
            _fetch(name, source, "config.json")
    else:
        check_architecture(name)


def check_architecture(name: str) -> None:
    """Raises ValueError, with the nearest names, for one that is not open_clip's nor ours."""
    known = architectures()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
        raise ValueError(
            f"open_clip knows no architecture {name!r}; the nearest names are {', '.join(near)}. "
            "A hub repository is written hf-hub:<owner>/<name>, a folder local-dir:<path>."
        )


@cache
def architectures() -> list[str]:
    """The names of open_clip's configs and of ours, read from their folders."""
    spec = PathFinder.find_spec("open_clip")
    places = spec.submodule_search_locations if spec else None
    folders = [Path(place) / "model_configs" for place in places or ()]
    return sorted(path.stem for folder in (*folders, OWN_CONFIGS) for path in folder.glob("*.json"))


def _fetch(name: str, repository: str, file: str) -> None:
    from huggingface_hub import hf_hub_download

    with reaching(name, repository, file):
        hf_hub_download(repository, file)


@contextmanager
def reaching(name: str, repository: str | None, file: str) -> Iterator[None]:
    """Turns whatever the hub's client raises into one sentence; without a repository nothing is fetched."""
    try:
        yield
    except Exception as error:
        if repository is None or Path(repository).is_dir():
            raise
        scheme = HF_TEXT_PREFIX if name.startswith(HF_TEXT_PREFIX) else LOCAL_DIR_PREFIX
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
        why = "HF_HUB_OFFLINE is set" if offline else str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} needs {file} of the repository {repository} on huggingface.co, which cannot be fetched ({why}): "
            f"copy the model's folder to this machine and set model.name={scheme}/path/to/folder."
        ) from error
