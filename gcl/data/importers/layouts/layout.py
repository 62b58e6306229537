"""What a shop system's export is made of, and what it becomes: one product for each thing that can be bought."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Columns of the translated table. image holds all images, the product's own first; the others hold one text.
COLUMNS = (
    "product_id", "parent", "sku", "title", "option", "description", "image", "brand", "category", "tags",
    "color", "size", "price", "url",
)  # fmt: skip
Product = dict[str, "str | list[str] | None"]
COLOR = ("color", "colour", "farbe", "couleur", "kleur", "colore")
_SIZE = ("size", "größe", "groesse", "taille", "maat", "taglia", "talla")


@dataclass
class Row:
    """A row of an export: its cells that are not empty, stripped, by the layout's names of the columns."""

    cells: dict[str, str]
    file: Path
    number: int

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "")

    def first(self, *names: str) -> str:
        """The first of these cells that is not empty."""
        return next((self.cells[name] for name in names if name in self.cells), "")


@dataclass
class Export:
    """An opened export. rows: reads it from its beginning. refuse: (row, id, reason, detail) of a row that cannot be
    used. notes: what a person should know of the translation, one sentence each."""

    rows: Callable[[], Iterator[Row]]
    refuse: Callable[[Row, str, str, str], None]
    notes: list[str] = field(default_factory=list)


class Layout(NamedTuple):
    """A shop system's export.

    known_by: sets of columns, each of which tells it. reads: the columns that `translate` looks at. aliases: other
    names of columns. normal: makes a header's name the layout's. roots: names of an XML document's root. translate:
    yields the products. more: the columns that an export adds to COLUMNS. html: columns that are HTML. images: where
    the system keeps the files that paths name.
    """

    name: str
    description: str
    known_by: tuple[frozenset[str], ...]
    reads: frozenset[str]
    translate: Callable[[Export], Iterator[tuple[Product, Row]]]
    aliases: Mapping[str, str] = {}
    normal: Callable[[str], str] = str.strip
    roots: tuple[str, ...] = ()
    more: Callable[[Export], Sequence[str]] = lambda _: ()
    html: tuple[str, ...] = ("description",)
    images: tuple[str, ...] = ()

    def columns(self, header: Iterable[str]) -> dict[str, str]:
        """{the export's column: the layout's name of it}; the first of two that mean the same counts."""
        named: dict[str, str] = {}  # by the layout's name
        for column in header:
            name = self.normal(column)
            named.setdefault(self.aliases.get(name, name), column)
        return {column: name for name, column in named.items()}

    def knows(self, header: Iterable[str]) -> bool:
        """Whether columns are those of such an export."""
        names = set(self.columns(header).values())
        return any(known <= names for known in self.known_by)


def separate(cell: str, separator: str = ",") -> list[str]:
    """The paths or URLs of a cell. A comma inside a URL is not one between two.

    >>> separate("https://a.b/1,2.jpg, https://a.b/3.jpg"), separate("1.jpg,2.jpg")
    (['https://a.b/1,2.jpg', 'https://a.b/3.jpg'], ['1.jpg', '2.jpg'])
    """
    sign = re.escape(separator)
    pattern = rf"\s*{sign}\s*(?=(?:https?:)?//)" if "//" in cell else rf"\s*{sign}\s*"
    return [part for part in re.split(pattern, cell.strip()) if part]


def with_options(title: str, options: Sequence[str]) -> str:
    """The title with those option values that it does not say already.

    >>> with_options("Hoodie - Black", ["Black", "M"])
    'Hoodie - Black, M'
    """
    said = title.lower()
    return ", ".join([title, *(option for option in options if not _says(said, option.lower()))])


def _says(title: str, option: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(option)}(?!\w)", title) is not None


def options_of(pairs: Iterable[tuple[str, str]]) -> Product:
    """The columns option, color and size of (name, value) of a variant's options."""
    pairs = [(name, value) for name, value in pairs if value]
    named = {name.strip().lower(): value for name, value in reversed(pairs)}
    return {
        "option": " / ".join(value for _, value in pairs),
        "color": next((named[name] for name in COLOR if name in named), None),
        "size": next((named[name] for name in _SIZE if name in named), None),
    }
