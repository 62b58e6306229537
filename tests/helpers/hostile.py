"""Texts that a catalog may hold to act on whoever reads them, for every writer to be tested with."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

TERMINAL = [
    "red\x1b[2Jshoe",
    "\x1b]0;owned\x07shoe",
    "a\rb",
    "\x9b2J",
    "left\u202etfel",
    "right\u200fmark\u061c",
    "a\x00b",
    "a\u2028b",
    "\x08\x08x",
    "two\nlines",
    "half\ud800pair",
]
MARKDOWN = [
    "[x](javascript:alert(1))", "a | b | c", "![x](http://evil.example/x.png)", "`rm`", "```sh", "**bold**", "# head",
    "> said", "- item", "1. item", "---", "~~gone~~",
]  # fmt: skip
HTML = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "&lt;b&gt;"]
SHEETS = ["=cmd|' /C calc'!A0", "+1+1", "@SUM(1)", "-2+3", "\t=1", "\r=1", "\uff1d1+1"]
LONG = ["long" * 800]
EVERYTHING = [*TERMINAL, *MARKDOWN, *HTML, *SHEETS, *LONG]
SETTINGS = [
    "${oc.env:HOME}", "\\${x}", "\\\\${x", "a: b # c", "- x", "{x: 1}", "*x", "!!python/object:os.system", "%TAG",
    "null", "'", "\x85products: /etc/passwd",
]  # fmt: skip

ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
RUNS = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def cells_of(path: Path) -> list[list[str]]:
    """A CSV's cells, none of which a spreadsheet takes for a formula."""
    with open(path, newline="", encoding="utf-8") as source:
        rows = list(csv.reader(source))
    for cell in (cell for row in rows for cell in row):
        assert not RUNS.match(cell) or re.fullmatch(r"[-+][\d.e]+", cell), f"{path.name}: {cell!r}"
    return rows


class Shown(HTMLParser):
    """What a page shows, and what of it may act: tags, handlers, addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses = "", set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}>"
            if name in ("href", "src", "action"):
                self.addresses.append(value)

    def handle_data(self, data):
        self.text += data
