"""What must not be in a file that is handed on: passwords and keys, in a config or on a command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.data.masked import HIDDEN, masked
from gcl.files.atomic import write_text


def without_secrets(run: RunConfig) -> RunConfig:
    """The config with URLs without their logins, and headers that are references to the environment alone."""
    run = _masked(deepcopy(run))
    catalogs = [run.data, *(one for one in run.data.catalogs.values() if isinstance(one, Catalog))]
    for catalog in catalogs:
        catalog.download.headers = {name: _reference(value) for name, value in catalog.download.headers.items()}
    return run


def without_secrets_in(arguments: Sequence[str]) -> list[str]:
    """A command line's arguments, as results may show them.

    >>> without_secrets_in(["gcl", "data.download.headers={Cookie: abc}", "data.products=https://me:pw@shop.example/p.csv"])
    ['gcl', 'data.download.headers=***', 'data.products=https://***@shop.example/p.csv']
    """
    shown = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if "headers" in argument and equals:
            argument = f"{key}={_reference(value)}" if "headers." in key else f"{key}={HIDDEN}"
        shown.append(masked(argument))
    return shown


def hide_in_yaml(file: Path) -> None:
    """Rewrites a YAML of settings, such as Hydra's multirun.yaml, without passwords and keys."""

    def hidden(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: hidden(below, "headers" if key == "headers" else str(name)) for name, below in value.items()}
        if isinstance(value, list):
            return [hidden(item, key) for item in value]
        if not isinstance(value, str):
            return value
        return _reference(value) if key == "headers" else without_secrets_in([value])[0]

    write_text(file, yaml.safe_dump(hidden(yaml.safe_load(file.read_text())), sort_keys=False, allow_unicode=True))


def _reference(value: str) -> str:
    """A header as it is where its key is a `$NAME` of the environment, hidden otherwise.

    >>> _reference("Bearer $SHOP_KEY"), _reference("Bearer 5f3c"), _reference("$A 5f3c")
    ('Bearer $SHOP_KEY', '***', '***')
    """
    return value if re.fullmatch(r"(?:(?:Bearer|Basic|Token|token) )?\$(?:\w+|\{\w+\})", value) else HIDDEN


def _masked(value: Any) -> Any:
    """A config with every text in it masked."""
    if isinstance(value, str) and type(value) is str:
        return masked(value)
    if isinstance(value, dict):
        return {key: _masked(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            object.__setattr__(value, field.name, _masked(getattr(value, field.name)))
    return value
