"""`gcl completion bash`: the shell's script, and the candidates it asks for, from the records of commands and settings.

The script passes the line up to the cursor to `gcl __complete <shell> <line>` and offers the candidates it prints.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from gcl.commands.registry import COMMANDS, Command, list_settings
from gcl.config.folder import choices_of
from gcl.options import MISSING, Kind, Option


class Shell(Enum):
    """A shell that completion is written for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@dataclass
class CompletionOptions:
    """Options of `gcl completion`."""

    shell: Shell = MISSING
    """The shell in which commands, options, setting keys and their choices are completed."""


SCRIPTS = {
    Shell.bash: """\
_gcl() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done \\
        < <(gcl __complete bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case "${COMPREPLY[*]}" in *[=./]) compopt -o nospace 2>/dev/null;; esac
}
complete -F _gcl gcl""",
    Shell.zsh: """\
_gcl() {
    local -a candidates
    candidates=("${(@f)$(gcl __complete zsh "$LBUFFER" 2>/dev/null)}")
    compadd -Q -S '' -- ${candidates:#}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _gcl gcl""",
    Shell.fish: """\
complete -c gcl -f -a '(gcl __complete fish (commandline -cp) 2>/dev/null)'""",
}


def run(options: CompletionOptions) -> None:
    print(SCRIPTS[options.shell], flush=True)


def complete(shell: str, line: str) -> None:
    """Prints the candidates for the last argument of a command line, one per line."""
    arguments = _arguments(line)
    for candidate in candidates(arguments[1:]):
        print(candidate[len(_kept_by_bash(arguments[-1])) :] if shell == "bash" else candidate)


def _arguments(line: str) -> list[str]:
    """The arguments of an unfinished line; the last is the one to complete, and may be empty."""
    for closing in ("", "'", '"'):
        try:
            arguments = shlex.split(line + closing)
            break
        except ValueError:  # a quotation mark that is still open
            continue
    else:
        arguments = line.split()
    return [*arguments, ""] if not line or (line[-1].isspace() and not closing) else arguments


def _kept_by_bash(argument: str) -> str:
    """The part of an argument that bash keeps: it completes only what follows the last = or :."""
    return argument[: max(argument.rfind("="), argument.rfind(":")) + 1]


def candidates(arguments: list[str]) -> list[str]:
    """The ways to complete the last argument.

    >>> candidates(["tr"]), candidates(["train", "train.micro"]), candidates(["train", "loss.form="])
    (['train'], ['train.micro_batch='], ['loss.form=softmax', 'loss.form=sigmoid'])
    """
    *before, last = arguments or [""]
    if not before:
        return _starting(last, [*COMMANDS, "help", "--help", "--version"])
    name = before[0]
    if name == "help":
        return _starting(last, _steps(last, [*COMMANDS, *(option.key for option in list_settings())], end=""))
    command = COMMANDS.get(name)
    if command is None:
        return []
    if last.startswith("-"):
        flags = ["--help", *(["--config-dir", "--cfg"] if command.composed else [])]
        return _starting(last, [*flags, "--multirun"] if command.sweep else flags)
    sign = last[0] if last[:1] in ("~", "+") else ""
    return [sign + candidate for candidate in _of_command(command, last.removeprefix(sign), before)]


def _of_command(command: Command, last: str, before: list[str]) -> list[str]:
    own = command.list_options()
    every = {option.key: option for option in [*own, *(list_settings() if command.composed else [])]}
    key, equals, value = last.partition("=")
    if equals:
        if command.composed and key in command.groups:
            return [f"{key}={choice}" for choice in _starting(value, choices_of(key, _config_dir(before)))]
        return [f"{key}={choice}" for choice in _values(every[key], value)] if key in every else []
    if command.bare and key == last:
        bare = next(option for option in own if option.key == command.bare)
        if bare.choices:
            return _starting(last, bare.choices)
    groups = [f"{group}=" for group in command.groups]
    keys = [f"{option.key}=" for option in own]
    if command.composed:
        leaves = [option.key for option in every.values() if option.below is None or "<name>" not in option.key]
        keys += _steps(last, [leaf for leaf in leaves if leaf.partition(".")[0] in _tops(command)], end="=")
    return _starting(last, dict.fromkeys([*groups, *keys]))


def _tops(command: Command) -> set[str]:
    """The first parts of the keys that a composed command offers."""
    return {*command.groups, *command.settings, *(("train", "plan") if "optim" in command.groups else ())}


def _steps(last: str, keys: Iterable[str], *, end: str) -> list[str]:
    """Keys up to their next dot: `train.` first, then what is below it."""
    depth = last.count(".") + 1
    steps = dict.fromkeys(".".join(key.split(".")[:depth]) + ("." if key.count(".") >= depth else end) for key in keys)
    return [step for step in steps if "<" not in step and "[" not in step]


def _values(option: Option, value: str) -> list[str]:
    if option.kind is Kind.path:
        head, slash, tail = value.rpartition("/")
        folder = Path(head + slash) if slash else Path()
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            return []
        return [f"{head}{slash}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries
                if entry.name.startswith(tail) and (tail or not entry.name.startswith("."))]  # fmt: skip
    return _starting(value, option.choices)


def _config_dir(before: list[str]) -> str | None:
    for place, argument in enumerate(before):
        if argument.startswith("--config-dir="):
            return argument.partition("=")[2]
        if argument == "--config-dir" and place + 1 < len(before):
            return before[place + 1]
    return None


def _starting(prefix: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(prefix)]
