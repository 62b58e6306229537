"""A YAML with a comment on every line that says why it is there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcl.table import readable_json, visible

_WIDE = 118
_COMMENT_AT = 44
_PLAIN = re.compile(r"(?:[A-Za-z_]|\.{1,2}/|/|~/)[\w ./@+*~-]*")
_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n", "~")


NULL = object()  # a value that is written as null


class Reference(str):
    """A value that stays a reference in the config, such as ${oc.env:NAME}."""


@dataclass
class Draft:
    """text: of the YAML. told: what the files and columns were taken for. notes: what a person should look at."""

    text: str
    told: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trainable: bool = True


class Page:
    """Lines of a YAML."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def remark(self, text: str, indent: int = 0) -> None:
        """A comment on lines of its own."""
        begin = " " * indent + "# "
        self._lines += textwrap.wrap(visible(text), _WIDE, initial_indent=begin, subsequent_indent=begin,
                                     break_on_hyphens=False, break_long_words=False)  # fmt: skip

    def line(self, key: str, value: Any, comment: str = "", *, indent: int = 0) -> None:
        """`key: value`, with a comment behind it, or above it where it is too long."""
        comment = visible(comment)
        text = f"{' ' * indent}{_text(key)}:" + (
            "" if value is None else " null" if value is NULL else f" {flow(value)}"
        )
        behind = f"{text:<{_COMMENT_AT}}  # {comment}"
        if comment and len(behind) > _WIDE:
            self.remark(comment, indent)
            comment = ""
        self._lines.append(behind if comment else text)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def flow(value: Any) -> str:
    """A value in YAML's one-line form.

    >>> flow({"columns": ["a b", "c:d"], "weight": 0.9, "separator": ","})
    '{columns: [a b, "c:d"], weight: 0.9, separator: ","}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(flow, value))}]"
    return scalar(value)


def scalar(value: Any) -> str:
    r"""A plain value; what would be a reference in a config, ${…}, is text.

    >>> [scalar(value) for value in ("image", "Body (HTML)", "no", "007", 2.0, None, "a, b")]
    ['image', '"Body (HTML)"', '"no"', '"007"', '2', 'null', '"a, b"']
    >>> print(scalar("${oc.env:HOME}"))
    "\\${oc.env:HOME}"
    """
    if isinstance(value, Reference):
        return readable_json(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:g}"
    return _text(re.sub(r"(\\*)\$\{", r"\1\1\\${", value))


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and value == value.strip():
        return value
    return readable_json(value)
