"""Functions and classes by their names, so that what lists them imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any


def load(dotted: str) -> Any:
    """What `package.module:name` names; the name may have dots."""
    module, _, name = dotted.partition(":")
    return attrgetter(name)(import_module(module))


def later(package: str, name: str) -> Callable[..., Any]:
    """A function or class `module:name` of a package, imported when it is called."""

    def call(*args: Any, **options: Any) -> Any:
        return load(f"{package}.{name}")(*args, **options)

    return call
