"""What a model's name tells before anything heavy is loaded: whether it is known, or its repository reachable.

Imports no torch: a mistyped name is answered before a catalog is prepared.
"""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Collection, Iterator
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


def check_weights(
    name: str, pretrained: str | None, tags: Collection[str] | None = None, *, given_as: str = "model.pretrained="
) -> None:
    """Raises ValueError for weights that a model of this name cannot be given: neither a file nor one of its tags.

    tags: the architecture's; None: those that open_clip's text says, and nothing is refused if it cannot be read so.
    given_as: what precedes the weights in the sentence.
    """
    if not pretrained:
        return
    if ":" in name:
        raise ValueError(f"{given_as}{pretrained!r}: {name} has weights of its own; leave model.pretrained out.")
    tags = _tags().get(name, []) if tags is None else tags
    if Path(pretrained).is_file() or pretrained.lower().replace("-", "_") in tags or (not tags and not _tags()):
        return
    near = difflib.get_close_matches(pretrained, tags, n=5, cutoff=0.4)
    known = f"the nearest of its tags are {', '.join(near)}" if near else f"its tags are {', '.join(tags) or 'none'}"
    raise ValueError(f"{given_as}{pretrained!r} is neither a file nor a tag of {name}; {known}.")


@cache
def _tags() -> dict[str, list[str]]:
    """{architecture: its weights' tags} of open_clip, read from its text, for importing it loads torch; {} if its text
    has changed."""
    spec = PathFinder.find_spec("open_clip")
    places = spec.submodule_search_locations if spec else None
    tables: dict[str, dict[str, ast.expr]] = {}

    def entries(node: ast.expr) -> dict[str, ast.expr]:
        made: dict[str, ast.expr] = {}
        match node:
            case ast.Name(id=name):
                made |= tables[name]
            case ast.Call(ast.Name(id="dict"), keywords=keywords):
                for keyword in keywords:
                    made |= {keyword.arg: keyword.value} if keyword.arg else entries(keyword.value)  # **another
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    made |= {ast.literal_eval(key): value} if key else entries(value)
            case _:
                raise KeyError
        return made

    try:
        text = (Path(next(iter(places or ()))) / "pretrained.py").read_bytes()
        for statement in ast.parse(text).body:
            match statement:
                case ast.Assign([ast.Name(id=name)], ast.Call(ast.Name(id="dict")) | ast.Dict() as value):
                    tables[name] = entries(value)
        models = {name: entries(tags) for name, tags in tables["_PRETRAINED"].items()}
    except (OSError, StopIteration, KeyError, ValueError, SyntaxError):
        return {}
    known = {name: list(tags) for name, tags in models.items()}
    for name, tags in models.items():
        if quick := [tag for tag, value in tags.items() if _is_quick(value)]:
            known[f"{name}-quickgelu"] = quick
    return known


def _is_quick(value: ast.expr) -> bool:
    """Whether a tag's weights were trained with another activation, for which open_clip has an architecture."""
    keywords = value.keywords if isinstance(value, ast.Call) else []
    return any(keyword.arg == "quick_gelu" and ast.literal_eval(keyword.value) for keyword in keywords)


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
