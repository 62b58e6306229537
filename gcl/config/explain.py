"""What Hydra, OmegaConf or a YAML parser refused, told in one sentence with the nearest right name."""

from __future__ import annotations

import ast
import difflib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from gcl.config.folder import GROUPS, choices_of, folders_of
from gcl.errors import ConfigError, did_you_mean, nearest


@dataclass(frozen=True)
class _Refusal:
    """What was raised, and what an explanation needs: the innermost error's own sentence, the key that it is about."""

    sentence: str
    key: str | None
    known: set[str]
    config_dir: str | os.PathLike | None


def not_a_setting(argument: str) -> ConfigError:
    return ConfigError(f"{argument!r} is not a setting: write key=value, for example train.epochs=3.")


def _no_choice(match: re.Match[str], refusal: _Refusal) -> ConfigError:
    group, _, folder = match[1].partition("/")
    if group in GROUPS and folder:
        return _path_for_choice(group, f"{folder}/{match[2]}")
    return _unknown_choice(match[1], match[2], refusal.config_dir)


def _path_for_choice(group: str, path: str) -> ConfigError:
    """A file where the name of a YAML belongs."""
    file = Path(path)
    if file.suffix in (".yaml", ".yml"):
        above = file.parent.parent if file.parent.name == group else f"<the folder above its folder {group}/>"
        return ConfigError(
            f"{group}={path}: name the YAML without its folder and ending: --config-dir {above} {group}={file.stem}."
        )
    made = f" `gcl init {path}` writes one for a table." if group == "data" else ""
    return ConfigError(f"{group}={path}: expected the name of a YAML in a folder {group}/, not a path.{made}")


def _no_group(match: re.Match[str], refusal: _Refusal) -> ConfigError:
    key = refusal.key or ""
    below = sorted(name for name in refusal.known if name.startswith(f"{key}."))
    one = f" (as in {below[0]}=…)" if below else ""
    return ConfigError(
        f"{key}={match[1]}: {key} is a group of settings, each set by itself{one}; `gcl help {key}` lists them."
    )


def _no_key(_: re.Match[str], refusal: _Refusal) -> ConfigError:
    return unknown_key(refusal.key or refusal.sentence, refusal.known)


def _no_member(match: re.Match[str], refusal: _Refusal) -> ConfigError:
    hint = did_you_mean(match[1], match[2].split(", "))
    return ConfigError(f"{refusal.key}={match[1]}: expected one of [{match[2]}].{hint}")


def _no_number(match: re.Match[str], refusal: _Refusal) -> ConfigError:
    kind = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}.get(match[2], "another value")
    return ConfigError(f"{refusal.key}={match[1]}: expected {kind}.")


def _unreadable(match: re.Match[str], _: _Refusal) -> ConfigError:
    if match[1].startswith("--"):
        return ConfigError(f"{match[1]}: settings are written without --: {match[1].lstrip('-')}")
    return ConfigError(
        f"{match[1]}: this cannot be read. Names consist of letters, digits, '_' and '-'; a text with other characters "
        'is written in quotes inside a list or mapping, {column: "a=b"}.'
    )


def several_values(argument: str) -> ConfigError:
    """A setting with commas, where no sweep was asked for."""
    key, _, value = argument.partition("=")
    otherwise = f"a list is written {key}=[{value}]"
    if key == "data":
        shares = ", ".join(f"{name}: 1" for name in value.split(","))
        otherwise = f"to train on them together, set data.mix={{{shares}}}"
    return ConfigError(f"{argument} gives several values: add --multirun for one run each, or give one; {otherwise}.")


# The wording of Hydra 1.3 and OmegaConf 2.3, the first that matches any error of the chain explains it: by a sentence,
# in which {0} is what it found, or by a function.
REFUSALS: tuple[tuple[str, str | Callable[[re.Match[str], _Refusal], ConfigError]], ...] = (
    (r"Ambiguous value for argument '([^']*)'", lambda match, _: several_values(match[1])),
    (r"LexerNoViableAltException: \+*(.*)", _unreadable),
    (r"Error parsing override '([^']*)'", lambda match, _: not_a_setting(match[1])),
    (r"Could not find '([^']+)/([^'/]+)'", _no_choice),
    (
        r"Environment variable '([^']+)' not found",
        "{where}the environment variable {0} is not set: export {0}=… before the command.",
    ),
    (
        r"Interpolation key '([^']+)' not found",
        "{where}${{{0}}} names no setting; an environment variable is written ${{oc.env:{0}}}.",
    ),
    (r"Could not override '[^']+'", _no_key),
    (r"Key '[^']+' (?:is )?not in", _no_key),
    (r"does not exist", _no_key),
    (r"Invalid value '([^']*)', expected one of \[([^\]]*)\]", _no_member),
    (r"Value '([^']*)' of type '\w+' could not be converted to (\w+)", _no_number),
    (r"Value '([^']*)' is not a valid (bool)", _no_number),
    (
        r"Value '?(.*?)'? \(\w+\) is not a valid input for <enum",
        "{key}={0}: expected one name; `gcl help {key}` lists them.",
    ),
    (r"Invalid type assigned: \w+ is not a subclass of \w+. value: (.*)", _no_group),
    (r"Invalid value assigned: \w+ is not a ListConfig", "{key}: expected a list, written [a, b] or [a]."),
    (
        r"Key (\S+) \(\w+\) is incompatible with",
        "{key}: inside of another mapping {0} is read as a number, not as a name: set {holder}.{0}=… by itself, or "
        "write it in a YAML.",
    ),
)
_KEYS = (r"Could not (?:override|delete from config\.) '([^']+)'", r"full_key: (\S+)")


def explain(error: Exception, known: set[str], config_dir: str | os.PathLike | None = None) -> ConfigError:
    """One sentence for what Hydra or OmegaConf raised, with the nearest of the known keys."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for item in chain:
        if getattr(item, "problem_mark", None):
            return bad_yaml(item, config_dir)
    lines = [line.strip() for line in str(chain[-1]).split("\n") if line.strip()]
    sentence = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    everything = "\n".join(map(str, chain))
    key = _key_in(everything) or getattr(chain[-1], "full_key", None)
    for pattern, explanation in REFUSALS:
        if not (match := re.search(pattern, everything)):
            continue
        if not isinstance(explanation, str):
            return explanation(match, _Refusal(sentence, key, known, config_dir))
        where, holder = f"{key}: " if key else "", str(key).rpartition(".")[0]
        return ConfigError(explanation.format(*match.groups(), key=key, where=where, holder=holder))
    return ConfigError(f"{key}: {sentence}" if key and key not in sentence else sentence)


def _key_in(text: str) -> str | None:
    """The key that an error is about; of a mapping that was given whole, the key inside it."""
    outer, inner = (match[1] if (match := re.search(pattern, text)) else None for pattern in _KEYS)
    return inner if outer is None or (inner or "").startswith(f"{outer}.") else outer


def bad_yaml(error: Any, config_dir: str | os.PathLike | None) -> ConfigError:
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
    return ConfigError(f"{name}, line {mark.line + 1}{line}: this is not YAML ({problem}).")


def unknown_key(key: str, known: set[str]) -> ConfigError:
    """Names the nearest of the known keys, or those next to it."""
    parent, _, last = key.rpartition(".")
    names = sorted(name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent)
    near = difflib.get_close_matches(last, names, n=1)
    full = f"{parent}.{near[0]}" if near and parent else near[0] if near else None
    full = full or next(iter(difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.75)), None)
    hint = f" Did you mean {full}?" if full else f" There is: {', '.join(names)}." if names else ""
    return ConfigError(f"There is no setting {key!r}.{hint}")


def _unknown_choice(group: str, choice: str, config_dir: str | os.PathLike | None) -> ConfigError:
    where = " or ".join(f"{folder}/{choice}.yaml" for folder in folders_of(group, config_dir))
    if config_dir and (Path(config_dir) / f"{choice}.yaml").is_file():
        here = Path(config_dir)
        if here.name == group:
            advice = f"name the folder above it: --config-dir {here.parent}"
        else:
            advice = f"move it into a folder {here / group}"
        return ConfigError(
            f"{group}={choice}: {here / choice}.yaml exists, but YAMLs of {group} belong in a folder {group}/ of the "
            f"one that --config-dir names: {advice}."
        )
    return ConfigError(
        f"{group}={choice}: there is no {where}.{nearest(choice, choices_of(group, config_dir))} Your own YAML goes "
        f"into a folder {group}/ that you name with --config-dir."
    )


def why_no_target(path: str) -> str | None:
    """Why `package.module.name` names nothing, without importing anything; None where it does, or may.

    >>> why_no_target("gcl.loss.weight.linar")
    "gcl.loss.weight has no 'linar'. Did you mean linear?"
    """
    parts = path.split(".")
    depth, file = _module_of(parts)
    if not depth:
        return None if parts[0] in sys.builtin_module_names else f"there is no package {parts[0]!r}."
    if depth == len(parts):
        return f"{path} is a module: name a class or function of it."
    module = ".".join(parts[:depth])
    names = _names_of(file.read_bytes()) if file else None
    if names is None or parts[depth] in names:
        return None  # compiled, or made when it is imported: only an import could tell
    return f"{module} has no {parts[depth]!r}.{did_you_mean(parts[depth], names)}"


@cache
def functions_of(module: str) -> set[str]:
    """The functions that a module defines at its top, without importing it; those it imports are not its own."""
    parts = module.split(".")
    depth, file = _module_of(parts)
    if depth < len(parts) or file is None:
        return set()
    return {node.name for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.FunctionDef)}


def _module_of(parts: list[str]) -> tuple[int, Path | None]:
    """How many of the names, from the first, are packages and the module in them, and the file of its text."""
    places: list[str] | None = sys.path
    file, depth = None, 0
    while depth < len(parts) and places is not None:
        spec = PathFinder.find_spec(parts[depth], places)
        if spec is None:
            break
        depth, file, places = depth + 1, spec.origin, spec.submodule_search_locations
    return depth, Path(file) if file and file.endswith(".py") else None


@cache
def _names_of(text: bytes) -> set[str] | None:
    """What a module binds, as far as its text says; None where it may bind anything."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if names & {"*", "__getattr__"} else names
