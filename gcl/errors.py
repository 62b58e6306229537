"""The error for what a user typed, and the sentences that many modules say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from importlib.util import find_spec


class ConfigError(ValueError):
    """A sentence about what a user typed in a YAML or on the command line."""


class ProcessLost(RuntimeError):
    """A sentence about another process of this run that failed, was killed or never began."""


class WorkerLost(ProcessLost):
    """The same about a process that reads data for this one."""


def sentence_of(error: BaseException) -> str:
    """What an error says, for people; those that are not meant for them with their kind."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) if isinstance(error, ValueError | OSError | ProcessLost) else f"{type(error).__name__}: {error}"


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C (or another signal) behind an error; Lightning ends with SystemExit where it is interrupted."""
    return next((one for one in (error, error.__context__) if isinstance(one, KeyboardInterrupt)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint for a mistyped name: the closest of the known ones; "" where none is close."""
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def nearest(name: str, names: Iterable[str]) -> str:
    """The same, and all of the known ones."""
    names = sorted(names)
    return f"{did_you_mean(name, names)} There is: {', '.join(names)}."


def one_of(names: Sequence[str]) -> str:
    """
    >>> one_of(["ray", "daft", "spark"])
    'ray, daft or spark'
    """
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def install(extra: str) -> str:
    """The command that installs an optional part of gcl; the distribution has another name than the package."""
    return f"pip install 'gcl-trainer[{extra}]'"


def missing_of(packages: Iterable[str]) -> list[str]:
    """Those of these packages (import names) that are not installed."""
    return [package for package in packages if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def check_packages(what: str, packages: Iterable[str], extra: str) -> None:
    """Raises ConfigError, with the command that installs them, where packages that `what` needs are missing."""
    if missing := missing_of(packages):
        raise ConfigError(f"{what} needs {', '.join(missing)}, which is not installed: {install(extra)}.")
