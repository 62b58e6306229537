"""The error for what a user typed, and the sentences that many modules say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A sentence about what a user typed in a YAML or on the command line."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a mistyped name: the closest of the known ones, and all of them."""
    names = sorted(names)
    near = difflib.get_close_matches(name, names, n=1)
    known = f" There is: {', '.join(names)}."
    return f" Did you mean {near[0]}?{known}" if near else known


def install(extra: str) -> str:
    """The command that installs an optional part of gcl; the distribution has another name than the package."""
    return f"pip install 'gcl-trainer[{extra}]'"
