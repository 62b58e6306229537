"""The images that a table names: a row's cells -> paths, URLs or bytes, read from wherever they are."""

from __future__ import annotations

import json
import os
import re
from ast import literal_eval
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from gcl.data.catalog import MISSING_WORDS
from gcl.data.tables.cells import BLANK
from gcl.data.tables.image_paths import image_as_text, several_in, spellings, why_missing
from gcl.data.tables.quarantine import Bad
from gcl.schema import Field

_MOST_SHOWN = 200  # characters of a cell in a message

ImageCell = str | bytes
"""A path, a URL, or the bytes themselves."""

Cells = Mapping[str, str | bytes | tuple[ImageCell, ...] | None]
"""One side of a table's row by field name: a text, or the images of an image field."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# //cdn.shop.example/1.jpg, as pages name images; not //server/share, a folder of Windows
_WITHOUT_SCHEME = re.compile(r"//[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?/")


def image_cells(cells: Iterable[Any], spec: Field) -> list[ImageCell]:
    """All images that an image field's cells in one row name, in order: `cells` are those of its column or columns.
    A cell is a path, a URL, bytes, or several of them: a list, one written in JSON or by Python (as pandas does), or,
    with `separator`, a text.

    >>> image_cells(["a.jpg, b.jpg", None, '["//cdn.example/c.jpg"]', "['d.jpg']"], Field(separator=","))
    ['a.jpg', 'b.jpg', 'https://cdn.example/c.jpg', 'd.jpg']
    >>> image_cells(['[{"src": "e.jpg"}]'], Field())
    ['e.jpg']
    """
    images: list[ImageCell] = []
    for cell in cells:
        if isinstance(cell, bytes):
            images.append(cell)
        elif isinstance(cell, str):
            images += [_with_scheme(name) for name in _split(cell, spec.separator) if name not in MISSING_WORDS]
        elif cell is not None:
            images += image_cells(cell, spec)
    return images


def taken(images: Sequence[ImageCell], spec: Field) -> Sequence[ImageCell]:
    """Those of a row's images that its field uses."""
    return images if spec.is_set else images[:1]


def _split(cell: str, separator: str | None) -> list[str]:
    cell = cell.strip(BLANK)
    if cell.startswith("[") and cell.endswith("]"):
        for read in (json.loads, literal_eval):
            try:
                return [_named(part).strip(BLANK) for part in read(cell)]
            except (ValueError, SyntaxError, RecursionError, MemoryError):  # a file may be called so
                pass
    return [name.strip(BLANK) for name in cell.split(separator)] if separator else [cell]


def _named(part: Any) -> str:
    """What a member of a list names: shops' programs write {"src": …, "alt": …}."""
    if isinstance(part, dict):
        part = next((part[key] for key in ("src", "url", "link", "path") if part.get(key)), part)
    return str(part)


def _with_scheme(name: str) -> str:
    return f"https:{name}" if _WITHOUT_SCHEME.match(name) else name


def is_url(cell: str) -> bool:
    """
    >>> is_url("https://shop.example/1.jpg"), is_url("images/1.jpg")
    (True, False)
    """
    return _URL.match(cell) is not None


def is_one_url(cell: ImageCell) -> TypeGuard[str]:
    """Whether a cell is a URL to fetch, not several that nothing says how to separate."""
    return isinstance(cell, str) and is_url(cell) and several_in(cell, urls=True) is None


def read_image(
    cell: ImageCell, folder: Path, download: Callable[[str], bytes | Bad] | None = None, setting: str = ""
) -> bytes | Bad:
    """The bytes of an image cell: its own, or those of the file or URL it names. `folder`: what relative paths start
    from. `download`: reads a URL. `setting`: the field's, for example data.document.image."""
    if isinstance(cell, bytes):
        return cell
    if is_url(cell):
        if separator := several_in(cell, urls=True):
            return _several(cell, separator, "URLs", setting)
        return download(cell) if download else Bad("URL was not downloaded", cell)
    cell = cell.strip()
    for path in spellings(cell, folder):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            if separator := several_in(cell, urls=False):
                return _several(cell, separator, "paths", setting)
            if said := image_as_text(cell):
                return Bad("no such image", f"{folder / _short(cell)} ({said})")
            why = error.strerror if isinstance(error, OSError) else error
            return Bad("image file cannot be opened", f"{_short(cell)}: {why}")
    if separator := several_in(cell, urls=False):
        return _several(cell, separator, "paths", setting)
    plain = Path(os.path.normpath(folder))
    folder = plain if os.path.realpath(plain) == os.path.realpath(folder) else folder  # a link may be on the way
    hint = why_missing(cell, folder)
    return Bad("no such image", f"{folder / _short(cell)}{hint and f' ({hint})'}")


def _several(cell: str, separator: str, what: str, setting: str) -> Bad:
    count = sum(1 for part in cell.split(separator) if part.strip())
    said = f"the cell has {count} {what}: {setting}.separator={separator!r} ({_short(cell)})"
    return Bad("cell names several images", said)


def _short(cell: str) -> str:
    """A cell for a message: it may hold a whole image as text."""
    return cell if len(cell) <= _MOST_SHOWN else f"{cell[: _MOST_SHOWN - 1]}…"
