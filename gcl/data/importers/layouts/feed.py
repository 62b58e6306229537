"""The items of an XML feed (RSS 2.0 or Atom), one at a time, as cells by name.

Expat reads the file a piece at a time and nothing but the item at hand is kept. A document type declaration is refused
where it begins, and with it every entity that a file could define: none is expanded, no other file or address is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from gcl.data.tables.source import open_raw

_PIECE = 1 << 16
_MOST = 8 << 20  # characters of one item
_ITEMS = ("item", "entry")
_ROOTS = ("rss", "feed", "RDF")
_BEFORE = b"\xef\xbb\xbf \t\r\n"  # a mark, and blank lines, which programs leave before the declaration


def root_of(file: Path) -> str | None:
    """The name of the root of an XML file; None for what is not XML."""
    if file.is_dir():
        return None
    with open_raw(file) as source:
        start = source.read(_PIECE).lstrip(_BEFORE)
    if start.lstrip(b"\0")[:1] != b"<" and start[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return None
    names: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _: names.append(_local(name))
    try:
        parser.Parse(start, False)
    except expat.ExpatError:
        pass  # what was wrong is said by who reads it
    return names[0] if names else None


def read_items(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(number, cells) of each item. The values of an element that is repeated are separated by line ends; what is
    nested deeper is left out. Raises ValueError for what is not a feed."""
    reader = _Items(file)
    parser = expat.ParserCreate()  # without namespaces: a prefix that no feed declares is a prefix all the same
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    number = fed = 0  # items, and bytes before those at hand
    with open_raw(file) as source:
        try:
            data = source.read(_PIECE).lstrip(_BEFORE)
            while data:
                parser.Parse(data, False)
                fed += len(data)
                for item in reader.take():
                    number += 1
                    yield number, item
                data = source.read(_PIECE)
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            place = max(parser.ErrorByteIndex - fed, 0)
            where = f"line {error.lineno}, column {error.offset + 1}"
            raise ValueError(f"{file} is not XML, or is cut off: {_fault(error, data, place)} ({where}).") from error
    if not number:
        raise ValueError(f"{file} has no <item> (RSS) and no <entry> (Atom): a feed has one for each product.")


def _fault(error: expat.ExpatError, data: bytes, place: int) -> str:
    """What is wrong at a place, and what to do."""
    message = expat.errors.messages[error.code]
    if not data:
        return "it ends within an element"
    near = repr(data[max(place - 20, 0) : place + 20].decode(errors="replace"))
    if data[place : place + 1] >= b"\x80" and message == expat.errors.XML_ERROR_INVALID_TOKEN:
        return f'{near} is not in its encoding: name the true one in its first line, say encoding="windows-1252"'
    if message == expat.errors.XML_ERROR_UNDEFINED_ENTITY:
        return f"in {near} is an entity that XML does not have: write the letter itself"
    return f"{message} at {near}" + (": & is written &amp;" if b"&" in data[max(place - 2, 0) : place + 1] else "")


class _Items:
    """What the parser's handlers gather."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.depth = 0
        self._item: dict[str, list[str]] | None = None
        self._at = 0  # depth of the item
        self._name = ""
        self._parts: list[str] = []
        self._size = 0
        self._done: list[dict[str, str]] = []

    def take(self) -> list[dict[str, str]]:
        done, self._done = self._done, []
        return done

    def refuse_doctype(self, *_: object) -> None:
        raise ValueError(
            f"{self.file} declares a document type (<!DOCTYPE …>), which can define entities: a feed needs none, so it "
            "is not read. Remove the declaration."
        )

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        local = _local(name)
        if self.depth == 1 and local not in _ROOTS:
            raise ValueError(f"{self.file} begins with <{local}>: a feed begins with <rss> or <feed> (Atom).")
        if self._item is None:
            if local in _ITEMS:
                self._item, self._at, self._size = {}, self.depth, 0
        elif self.depth == self._at + 1:
            self._name, self._parts = local, []
            if local == "link" and attributes.get("rel", "alternate") == "alternate" and "href" in attributes:
                self._parts = [attributes["href"]]

    def text(self, data: str) -> None:
        if self._item is not None and self.depth == self._at + 1:
            self._size += len(data)
            if self._size > _MOST:
                raise ValueError(f"{self.file}: an item has more than {_MOST:,} characters.")
            self._parts.append(data)

    def end(self, _: str) -> None:
        if self._item is not None:
            if self.depth == self._at + 1 and (value := "".join(self._parts).strip()):
                values = self._item.setdefault(self._name, [])
                if value not in values:  # <title> and <g:title>
                    values.append(value)
            elif self.depth == self._at:
                self._done.append({name: "\n".join(values) for name, values in self._item.items()})
                self._item = None
        self.depth -= 1


def _local(name: str) -> str:
    return name.rpartition(":")[2]
