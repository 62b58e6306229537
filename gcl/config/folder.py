"""conf/: where the YAMLs lie, which choices a group has, and which YAMLs set a key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

GROUPS = ("data", "model", "loss", "optim", "trainer", "logger", "callbacks", "evaluate", "experiment")


@cache
def conf_folder() -> Path:
    """conf/ next to the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def folders_of(group: str, config_dir: str | os.PathLike | None = None) -> list[Path]:
    return [conf_folder() / group, *([Path(config_dir) / group] if config_dir else [])]


def choices_of(group: str, config_dir: str | os.PathLike | None = None) -> list[str]:
    """The YAMLs of a group, by name: gcl's own, and those of a folder of one's own."""
    return sorted({path.stem for folder in folders_of(group, config_dir) for path in folder.glob("*.yaml")})


def purpose_of(group: str, choice: str) -> str:
    """The first comment of a YAML of conf/, up to its first sentence's end."""
    lines = (conf_folder() / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
    first = next((line for line in lines if line.startswith("# ") and not line.startswith("# @")), "")
    return first.lstrip("# ").partition(". ")[0].partition(" `")[0].rstrip(".:")


def values_in_yamls(key: str) -> Iterator[tuple[str, Any]]:
    """(file, value) of each YAML in conf/ that sets a dotted key, config.yaml first; values are not resolved."""
    for path in [conf_folder() / "config.yaml", *sorted(conf_folder().glob("*/*.yaml"))]:
        value = _below(_content(path), key)
        if value is not _ABSENT:
            yield str(path.relative_to(conf_folder().parent)), value


def default_of(key: str) -> Any:
    """The value of a dotted key where the command line says nothing, not resolved; KeyError where no YAML sets it."""
    for content in _chosen_contents():
        if (value := _below(content, key)) is not _ABSENT:
            return value
    raise KeyError(key)


_ABSENT = object()


@cache
def _chosen_contents() -> list[dict[str, Any]]:
    """config.yaml and the YAMLs that it chooses."""
    config = _content(conf_folder() / "config.yaml")
    chosen = {name: choice for entry in config["defaults"] if isinstance(entry, dict) for name, choice in entry.items()}
    return [config, *(_content(conf_folder() / g / f"{chosen[g]}.yaml") for g in GROUPS if chosen.get(g))]


@cache
def _content(path: Path) -> dict[str, Any]:
    """A YAML of conf/ from the root of a run's config down."""
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    is_global = path.name == "config.yaml" or "# @package _global_" in path.read_text(encoding="utf-8")
    return {str(key): value for key, value in content.items()} if is_global else {path.parent.name: content}


def _below(content: Any, key: str) -> Any:
    for name in key.split("."):
        content = content.get(name, _ABSENT) if isinstance(content, dict) else _ABSENT
    return content
