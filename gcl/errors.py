"""What a user mistyped in a YAML or on the command line, told in one sentence with the nearest right name."""

from __future__ import annotations

import ast
import difflib
import os
import re
import sys
from importlib.machinery import PathFinder
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
    lines = [line.strip() for line in str(chain[-1]).split("\n") if line.strip()]
    text = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    everything = "\n".join(str(item) for item in chain)
    if bad := next((item for item in chain if hasattr(item, "problem_mark") and item.problem_mark), None):
        return _bad_yaml(bad, config_dir)
    if word := re.search(r"Error parsing override '([^']*)'", everything):
        return ConfigError(f"{word.group(1)!r} is no setting: write key=value, for example train.epochs=3.")
    if missing := re.search(r"Could not find '([^']+)/([^'/]+)'", everything):
        return _unknown_choice(*missing.groups(), config_dir)
    named = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", everything)
    named = named or re.search(r"full_key: (\S+)", everything)
    key = named.group(1) if named else getattr(chain[-1], "full_key", None)
    inside = re.search(r"full_key: (\S+)", everything)  # of a mapping that was given whole: the word in it
    if named and inside and inside.group(1).startswith(f"{named.group(1)}."):
        key = inside.group(1)
    if any(re.search(r"Key '[^']+' (is )?not in|does not exist|Could not override", str(item)) for item in chain):
        return unknown_key(key or text, known)
    return ConfigError(f"{key}: {text}" if key and key not in text else text)


def _bad_yaml(error: Any, config_dir: str | os.PathLike | None) -> ConfigError:
    """What YAML's parser says, with the file and line; Hydra hands it a stream whose name may be lost."""
    mark, problem = error.problem_mark, str(error.problem or error.context or "it cannot be parsed")
    name = str(mark.name)
    file = Path(name.removeprefix("file://"))
    line = ""
    if file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if mark.line < len(lines):
            line = f": {lines[mark.line].strip()!r}"
    elif config_dir:
        name = f"a YAML of {config_dir} or conf/"
    return ConfigError(f"{name}, line {mark.line + 1}{line}: this is no YAML ({problem}).")


def unknown_key(key: str, known: set[str]) -> ConfigError:
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
    if config_dir and (Path(config_dir) / f"{choice}.yaml").is_file():
        here = Path(config_dir)
        above = f"--config-dir {here.parent}" if here.name == group else f"a folder {here / group}"
        what = f"name the folder above it: {above}" if here.name == group else f"move it into {above}"
        return ConfigError(f"{group}={choice}: {here / choice}.yaml is there, but YAMLs of {group} stand in a folder "
                           f"{group}/ of the one that --config-dir names: {what}.")  # fmt: skip
    return ConfigError(
        f"{group}={choice}: there is no {where}.{nearest(choice, names)} Your own YAML goes into a folder "
        f"{group}/ that you name with --config-dir."
    )


def nearest(word: str, names: Any) -> str:
    near = difflib.get_close_matches(word, sorted(names), n=1)
    known = f" There is: {', '.join(sorted(names))}."
    return f" Did you mean {near[0]}?{known}" if near else known


def why_no_target(path: str) -> str | None:
    """Why `package.module.name` names nothing, without importing anything; None where it does, or may.

    >>> why_no_target("gcl.loss.weight.linar")
    "gcl.loss.weight has no 'linar'. Did you mean linear?"
    """
    parts, places, depth = path.split("."), sys.path, 0
    file = None
    while depth < len(parts):
        spec = PathFinder.find_spec(parts[depth], places)
        if spec is None:
            break
        depth, file, places = depth + 1, spec.origin, spec.submodule_search_locations
        if places is None:
            break
    if not depth:
        return None if parts[0] in sys.builtin_module_names else f"there is no package {parts[0]!r}."
    if depth == len(parts):
        return f"{path} is a module: name a class or function of it."
    module = ".".join(parts[:depth])
    names = _names_of(Path(file)) if file and file.endswith(".py") else None
    if names is None or parts[depth] in names:
        return None  # compiled, or made when it is imported: only an import could tell
    near = difflib.get_close_matches(parts[depth], names, n=1)
    return f"{module} has no {parts[depth]!r}.{f' Did you mean {near[0]}?' if near else ''}"


def _names_of(file: Path) -> set[str] | None:
    """What a module binds, as far as its text says; None where it may bind anything."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if names & {"*", "__getattr__"} else names
