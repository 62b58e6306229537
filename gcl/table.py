"""One table, rendered for every reader: terminal, Markdown, CSV, JSON, HTML.

Cells may come from a catalog, so each rendering keeps them what they are, text: a terminal shows control characters
instead of obeying them, Markdown shows markup, HTML shows tags, and a spreadsheet that opens the CSV runs no formula.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, TypeVar

Value = str | int | float | None

# Control characters, line separators and everything that turns the direction of the text around it.
_HIGH = "\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_INVISIBLE = re.compile(f"[\x00-\x1f{_HIGH}]")
_INVISIBLE_IN_JSON = re.compile(f"[{_HIGH}]")  # it escapes the others itself
# `_` inside a word, `<` before a space and `&` without an entity mean nothing in Markdown and stay readable.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_BLOCK = re.compile(r"(?=#{1,6}(?:\s|$)|>|[+-](?:\s|$)|-{3}|={3})")  # what begins a heading, quote, list or rule
_NUMBERED = re.compile(r"(\d{1,9})(?=[.)](?:\s|$))")
_ENTITY = re.compile(r"&(?=#?\w+;)")
# https://owasp.org/www-community/attacks/CSV_Injection, with the full-width forms
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NOTHING = re.compile(r"[+-]0\.0*")  # rounded to 0, with a sign
_NUMBER = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s?%?")


@dataclass(frozen=True)
class Table:
    """A title, a header, rows of cells and notes.

    Text, Markdown and HTML show cells as people read them; CSV, `records` and JSON hold the values themselves.

    align: a letter per column, "l" for text and "r" for figures; columns beyond the last letter hold figures.
    formats: {column: format of its numbers}; other floats have four decimals, None is an empty cell.
    grouped: on a terminal, an empty line wherever the first column changes.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Value]]
    title: str = ""
    align: str = "l"
    formats: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    grouped: bool = False

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.header):
                raise ValueError(
                    f"Row {number} of the table {self.title!r} has {len(row)} cells, its header {len(self.header)}."
                )

    @staticmethod
    def of_records(records: Iterable[Mapping[str, Value]], title: str = "", **options: Any) -> Table:
        """A row per mapping. The header holds every key, in the order of appearance; what a record lacks is None."""
        records = list(records)
        header = list(dict.fromkeys(key for record in records for key in record))
        return Table(header, [[record.get(key) for key in header] for record in records], title, **options)

    def renamed(self, name: Callable[[str], str]) -> Table:
        """The same table with other names for its columns."""
        formats = {name(column): spec for column, spec in self.formats.items()}
        return replace(self, header=[name(column) for column in self.header], formats=formats)

    def mapped(self, column: str, shown: Callable[[str], str]) -> Table:
        """The same table with other texts in one column, where it has that."""
        if column not in self.header:
            return self
        at = list(self.header).index(column)
        cells = ((row, row[at]) for row in self.rows)
        return replace(
            self, rows=[[*row[:at], shown(old) if isinstance(old, str) else old, *row[at + 1 :]] for row, old in cells]
        )

    def text(self, width: int | None = None) -> str:
        """For a terminal: columns of equal width. width: where a grouped table is wider than this, its first column
        becomes a line above each group.

        >>> print(Table(["metric", "n"], [["map", 20]]).text())
        metric   n
        ------  --
        map     20
        """
        header = [visible(name) for name in self.header]
        body = [[visible(cell) for cell in row] for row in self._shown()]
        widths = [max(_width(line[column]) for line in [header, *body]) for column in range(len(header))]
        apart = self.grouped and width is not None and sum(widths) + 2 * (len(widths) - 1) > width
        first = int(apart)  # of the columns

        def line(cells: Sequence[str]) -> str:
            padded = []
            for column, cell in list(enumerate(cells))[first:]:
                space = " " * (widths[column] - _width(cell))
                padded.append(space + cell if self._is_figure(column) else cell + space)
            return "  ".join(padded).rstrip()

        lines = [f"{visible(self.title)}:"] if self.title else []
        lines += [line(header), "  ".join("-" * width for width in widths[first:])]
        for number, cells in enumerate(body):
            begins = self.grouped and (not number or cells[0] != body[number - 1][0])
            lines += [""] if begins and (number or apart) else []
            lines += [cells[0]] if begins and apart else []
            lines.append(line(cells))
        return "\n".join([*lines, *(f"note: {visible(note)}" for note in self.notes)])

    def markdown(self) -> str:
        """A heading of the second level if there is a title, the table, and a list of the notes.

        >>> print(Table(["query", "n"], [["a|*b*", 20]]).markdown())
        | query | n |
        | --- | ---: |
        | a\\|\\*b\\* | 20 |
        """
        rule = ["---:" if self._is_figure(column) else "---" for column in range(len(self.header))]
        body = [[plain_markdown(cell) for cell in row] for row in (self.header, *self._shown())]
        lines = [f"| {' | '.join(cells)} |" for cells in (body[0], rule, *body[1:])]
        head = [f"## {plain_markdown(self.title)}", ""] if self.title else []
        notes = ["", *(f"- {plain_markdown(note)}" for note in self.notes)] if self.notes else []
        return "\n".join([*head, *lines, *notes])

    def csv(self) -> str:
        """Numbers in full precision. A cell that a spreadsheet would run as a formula begins with an apostrophe."""
        lines = []
        for row in (self.header, *self.rows) if self.header else ():
            out = io.StringIO()
            csv.writer(out, lineterminator="\r\n").writerow(map(plain_csv, row))  # so that it quotes both characters
            lines.append(out.getvalue().removesuffix("\r\n") + "\n")
        return "".join(lines)

    def records(self) -> list[dict[str, Value]]:
        """[{column: value}]"""
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]

    def json(self) -> str:
        """`records` as JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
        return readable_json(self.records(), indent=2, allow_nan=False) + "\n"

    def html(self) -> str:
        """A table with the title as its caption, in a box that scrolls sideways; the page's script sorts by
        `data-value`, and where there is no room a row becomes a card that names its cells by `data-label`. A cell with
        the method `__html__` is a whole <td> or <th> and is taken as it is."""
        heads = "".join(
            f'<th scope="col"{_FIGURE if self._is_figure(column) else ""}>{escape(name)}</th>'
            for column, name in enumerate(self.header)
        )
        body = "".join(
            f"<tr>{''.join(self._html_cell(*cell) for cell in enumerate(zip(row, shown, strict=True)))}</tr>"
            for row, shown in zip(self.rows, self._shown(), strict=True)
        )
        title = escape(self.title)
        caption = f"<caption><span>{title}</span></caption>" if title else ""
        notes = f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in self.notes)}</ul>'
        return (
            f'<div class="scroll" role="region" aria-label="{title}" tabindex="0"><table class="sortable">{caption}'
            f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>{notes if self.notes else ''}"
        )

    def _html_cell(self, column: int, cell: tuple[Value, str]) -> str:
        value, shown = cell
        label = f' data-label="{escape(self.header[column])}"'
        if (ready := getattr(value, "__html__", None)) is not None:
            return _CELL.sub(lambda match: match[0] + label, ready(), count=1)
        if self._is_figure(column):
            minus = _HYPHEN.sub("\u2212", shown)
            return f'<td{_FIGURE}{label} data-value="{escape(_sorting(shown))}">{escape(minus)}</td>'
        kind, scope = ("td", "") if column else ("th", ' scope="row"')
        return f'<{kind}{scope}{label}><span dir="auto">{escape(shown)}</span></{kind}>'

    def _shown(self) -> list[list[str]]:
        formats = [self.formats.get(name) for name in self.header]
        return [[_shown(*cell) for cell in zip(row, formats, strict=True)] for row in self.rows]

    def _is_figure(self, column: int) -> bool:
        return column >= len(self.align) or self.align[column] == "r"


_FIGURE = ' class="number"'
_CELL = re.compile(r"<t[dh]")
_HYPHEN = re.compile(r"(?<![\w.])-(?=[\d.])")  # of a negative number


def _shown(value: Value, spec: str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return shown_number(value, (".4f" if isinstance(value, float) else "") if spec is None else spec)


def shown_number(value: float, spec: str) -> str:
    """A number by its format, without a sign where it is rounded to 0.

    >>> shown_number(-0.00001, "+.4f"), shown_number(-0.1, "+.1f")
    ('0.0000', '-0.1')
    """
    text = format(value, spec)
    return text[1:] if _NOTHING.fullmatch(text) else text


def visible(text: str) -> str:
    r"""Text for a terminal on one line: control characters are shown, not obeyed.

    >>> visible("red\x1b[2J\nshoe")
    'red\\x1b[2J\\nshoe'
    """
    return _INVISIBLE.sub(lambda match: ascii(match[0])[1:-1], text)


def visible_lines(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def plain_markdown(text: str) -> str:
    r"""Markdown, inside a line or a table cell, that reads as this text.

    >>> print(plain_markdown("zero_shot | <b>_x_</b> [a](b)"))
    zero_shot \| &lt;b>\_x\_&lt;/b> \[a\](b)
    """
    text = _ENTITY.sub("&amp;", _MARKUP.sub(r"\\\g<0>", visible(text).strip()))
    text = _NUMBERED.sub(r"\1\\", text, count=1) if _NUMBERED.match(text) else text
    return _TAG.sub("&lt;", f"\\{text}" if _BLOCK.match(text) else text)


def code_span(text: str) -> str:
    """Markdown that shows a text as code, whatever marks it holds.

    >>> print(code_span("out"), code_span("a`b"))
    `out` `` a`b ``
    """
    text = visible(text)
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if len(marks) > 1 else ""
    return f"{marks}{space}{text}{space}{marks}"


def readable_json(content: Any, **options: Any) -> str:
    r"""JSON with letters of every language as they are, and whatever a terminal would obey escaped.

    >>> print(readable_json("Schuh für 鞋\x9b2J\u202e\n"))
    "Schuh für 鞋\u009b2J\u202e\n"
    """
    text = json.dumps(content, ensure_ascii=False, **options)
    return _INVISIBLE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cut(text: str, most: int) -> str:
    """A text for a message: its first `most` characters.

    >>> cut("red shoes", 3), cut("red", 3)
    ('red…', 'red')
    """
    return text if len(text) <= most else f"{text[:most]}…"


def plain_csv(value: Value) -> Value:
    """A CSV cell that no spreadsheet takes for a formula; numbers, negative ones too, stay numbers.

    >>> plain_csv("=1+1"), plain_csv("-0.5"), plain_csv("-cmd"), plain_csv(-0.5)
    ("'=1+1", '-0.5', "'-cmd", -0.5)
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def listed_row(cells: Iterable[Value]) -> list[Value]:
    r"""A line of a CSV that lists for people what was refused: neither a spreadsheet nor a terminal obeys it.

    >>> listed_row(["=1", "a\x1b[2J\nb", 3])
    ["'=1", 'a\\x1b[2J\\nb', 3]
    """
    return [visible(shown) if isinstance(shown := plain_csv(cell), str) else shown for cell in cells]


_List = TypeVar("_List", bound="ListFile")


class ListFile:
    """A CSV file of such lines, below a header; a context manager."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self._columns = path, columns

    def __enter__(self: _List) -> _List:
        self._file = open(self.path, "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self._columns)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, *cells: Value) -> None:
        """One line."""
        self._writer.writerow(listed_row(cells))


def _sorting(cell: str) -> str:
    """What a column of figures is sorted by: the first number of a cell.

    >>> _sorting("+0.0100 … +0.0200"), _sorting("1,024"), _sorting("kept")
    ('0.0100', '1024', 'kept')
    """
    match = re.match(r"[+-]?[\d,]*\.?\d+", cell)
    return match[0].replace(",", "").lstrip("+") if match else cell


def _width(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
