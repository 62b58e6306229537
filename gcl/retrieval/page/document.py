"""The shell of a page that is one file: its style sheets and scripts inside, and nothing that may be loaded."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from gcl.retrieval.page.markup import Markup, join, tag


def document(
    title: str, body: Markup, *, styles: Sequence[str], scripts: Sequence[str], data: str | None = None
) -> str:
    """The whole file. styles, scripts: names of `asset`s; data: JSON that the scripts read."""
    style, script = ("\n".join(map(asset, names)) for names in (styles, scripts))
    policy = "; ".join([
        "default-src 'none'", "img-src data:", f"style-src {_hash(style)}", f"script-src {_hash(script)}",
        "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
    ])  # fmt: skip
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    given = None if data is None else tag("script", Markup(data), type="application/json", id="data")
    return "<!doctype html>\n" + tag(
        "html", tag("head", head), tag("body", body, given, tag("script", Markup(script))), lang="en"
    ) + "\n"  # fmt: skip


def page_body(
    title: str, parts: Sequence[tuple[str, str, str, Any]], *, skip: tuple[str, str] | None = None, above: Any = None
) -> Markup:
    """A header with links to the parts, and the parts: (key, short name, name, content). skip: the key that the first
    link of the page leads to, and its words. above: shown above all parts."""
    links = [tag("li", tag("a", short, href=f"#{key}")) for key, short, _, _ in parts]
    return join(
        tag("a", skip[1], href=f"#{skip[0]}", class_="skip") if skip else None,
        tag("header", tag("h1", title), tag("nav", tag("ul", *links), aria_label="Parts of this page")),
        above,
        tag("main", *(_part(key, name, content) for key, _, name, content in parts)),
    )


def _part(key: str, name: str, content: Markup) -> Markup:
    title = f"{key}-title"
    return tag("section", tag("h2", name, id=title), content, id=key, aria_labelledby=title)


def asset(name: str) -> str:
    """A style sheet or script of the pages."""
    return (files("gcl.retrieval.page") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
