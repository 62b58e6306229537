"""What a user mistyped in a YAML or on the command line, told in one sentence with the nearest right name."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A sentence about what a user typed in a YAML or on the command line."""


def conf_folder() -> Path:
    """conf/ beside the package in a checkout, inside it in an installed wheel."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def explain(error: Exception, known: set[str], config_dir: str | os.PathLike | None = None) -> ConfigError:
    """One sentence for what Hydra or OmegaConf raised, with the nearest of the known keys."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = str(chain[-1]).split("\n")[0]
    everything = "\n".join(str(item) for item in chain)
    if word := re.search(r"Error parsing override '([^']*)'", everything):
        return ConfigError(f"{word.group(1)!r} is no setting: write key=value, for example train.epochs=3.")
    if missing := re.search(r"Could not find '([^']+)/([^'/]+)'", everything):
        return _unknown_choice(*missing.groups(), config_dir)
    named = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", everything)
    named = named or re.search(r"full_key: (\S+)", everything)
    key = named.group(1) if named else getattr(chain[-1], "full_key", None)
    if any(re.search(r"Key '[^']+' (is )?not in|does not exist|Could not override", str(item)) for item in chain):
        return _unknown_key(key or text, known)
    return ConfigError(f"{key}: {text}" if key and key not in text else text)


def _unknown_key(key: str, known: set[str]) -> ConfigError:
    parent, _, last = key.rpartition(".")
    names = sorted(name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent)
    near = difflib.get_close_matches(last, names, n=1)
    full = f"{parent}.{near[0]}" if near and parent else near[0] if near else None
    full = full or next(iter(difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.75)), None)
    hint = f" Did you mean {full}?" if full else f" There is: {', '.join(names)}." if names else ""
    return ConfigError(f"There is no setting {key!r}.{hint}")


def _unknown_choice(group: str, choice: str, config_dir: str | os.PathLike | None) -> ConfigError:
    folders = [conf_folder() / group] + ([Path(config_dir) / group] if config_dir else [])
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    where = " or ".join(f"{folder}/{choice}.yaml" for folder in folders)
    return ConfigError(
        f"{group}={choice}: there is no {where}.{nearest(choice, names)} Your own YAML goes into a folder "
        f"{group}/ that you name with --config-dir."
    )


def nearest(word: str, names: Any) -> str:
    near = difflib.get_close_matches(word, sorted(names), n=1)
    known = f" There is: {', '.join(sorted(names))}."
    return f" Did you mean {near[0]}?{known}" if near else known
