"""HTML from values: whatever is not Markup already is escaped, so a catalog's text can never become a tag."""

from __future__ import annotations

from html import escape
from typing import Any

_VOID = {"meta", "br", "img", "hr", "rect", "line", "circle", "path", "polyline"}


class Markup(str):
    """HTML that is safe as it is."""

    def __html__(self) -> str:
        return self


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element. `class_` is class, `data_value` is data-value; an attribute of None or False is left out.

    >>> tag("p", "1 < 2", tag("b", "!"), class_="note", hidden=True, title=None)
    '<p class="note" hidden>1 &lt; 2<b>!</b></p>'
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(str(value))}"')
    opened = f"<{' '.join(words)}>"
    if name in _VOID:
        return Markup(opened + (f"</{name}>" if name not in ("meta", "br", "img", "hr") else ""))
    return Markup(opened + join(*children) + f"</{name}>")


def join(*children: Any) -> Markup:
    """Children one after another; None is nothing."""
    return Markup("".join(str(c) if isinstance(c, Markup) else escape(str(c)) for c in children if c is not None))


def untrusted(text: str, name: str = "span", **attributes: Any) -> Markup:
    """Text out of a catalog: escaped, and kept from turning the direction of what surrounds it."""
    return tag(name, text, dir="auto", **attributes)
