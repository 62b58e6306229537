"""What people write more briefly than the settings hold it: one text for a list, numbers as the names of a mapping."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from typing import Any

from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.options import Option, options_of


def shaped(content: Any, key: str = "", settings: type = RunConfig) -> Any:
    """Plain content of this key as the settings hold it: a text where a list of texts belongs is a list of one, and the
    names of a mapping with named entries are texts.

    >>> shaped({"split": {"group": "parent"}, "grades": {1: 4}}, "data")
    {'split': {'group': ['parent']}, 'grades': {'1': 4}}
    """
    option = option_at(settings, key)
    if isinstance(content, dict):
        named = option is not None and option.entries is not None
        texts = {_name(name) if named else name: below for name, below in content.items()}
        return {name: shaped(below, f"{key}.{name}" if key else str(name), settings) for name, below in texts.items()}
    if option is None or not option.is_texts:
        return content
    if (isinstance(content, list) and None in content) or (content is None and option.default is not None):
        raise ConfigError(f"{key} has a null where a text belongs: YAML reads null, NULL and ~ so; write 'NULL'.")
    return [content] if isinstance(content, str) and "${" not in content else content


def _name(name: Any) -> str:
    return str(name).lower() if isinstance(name, bool) else "null" if name is None else str(name)


@cache
def known_options(settings: type) -> list[tuple[re.Pattern[str], Option]]:
    """Every option with a pattern of its keys, entries of mappings of plain values included."""
    known = []
    for option in options_of(settings):
        pattern = re.escape(option.key).replace("<name>", r"[^.]+")
        known.append((re.compile(pattern), option))
        if option.entries is not None and option.below is None:
            known.append((re.compile(rf"{pattern}\..+"), dataclasses.replace(option, type=option.entries)))
    return known


def option_at(settings: type, key: str) -> Option | None:
    """The option of a dotted key, in which entries have their own names."""
    return next((option for pattern, option in known_options(settings) if pattern.fullmatch(key)), None)
