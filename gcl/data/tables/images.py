"""The images that a table names: a row's cells -> paths, URLs or bytes, read from wherever they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gcl.data.catalog import MISSING_WORDS
from gcl.data.tables.quarantine import Bad
from gcl.schema import Field

ImageCell = str | bytes
"""A path, a URL, or the bytes themselves."""

Cells = Mapping[str, str | bytes | tuple[ImageCell, ...] | None]
"""One side of a table's row by field name: a text, or the images of an image field."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WITHOUT_SCHEME = re.compile(r"//[A-Za-z0-9.-]+(:[0-9]+)?/")  # //cdn.shop.example/1.jpg, as pages name images


def image_cells(cells: Iterable[Any], spec: Field) -> list[ImageCell]:
    """All images that an image field's cells in one row name, in order: `cells` are those of its column or columns.
    A cell is a path, a URL, bytes, or several of them: a list, a list written in JSON, or, with `separator`, a text.

    >>> image_cells(["a.jpg, b.jpg", None, '["//cdn.example/c.jpg"]'], Field(separator=","))
    ['a.jpg', 'b.jpg', 'https://cdn.example/c.jpg']
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
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return [str(name).strip() for name in json.loads(cell)]
        except ValueError:  # a file may be called so
            pass
    return [name.strip() for name in cell.split(separator)] if separator else [cell]


def _with_scheme(name: str) -> str:
    return f"https:{name}" if _WITHOUT_SCHEME.match(name) else name


def is_url(cell: str) -> bool:
    """
    >>> is_url("https://shop.example/1.jpg"), is_url("images/1.jpg")
    (True, False)
    """
    return _URL.match(cell) is not None


def image_path(cell: str, folder: Path) -> Path:
    """Where a table's image cell points: absolute, or relative to `folder`."""
    return folder / cell.strip()


def read_image(cell: ImageCell, folder: Path, download: Callable[[str], bytes | Bad] | None = None) -> bytes | Bad:
    """The bytes of an image cell: its own, or those of the file or URL it names. `download`: reads a URL."""
    if isinstance(cell, bytes):
        return cell
    if is_url(cell):
        return download(cell) if download else Bad("URL was not downloaded", cell)
    try:
        return image_path(cell, folder).read_bytes()
    except FileNotFoundError:
        return Bad("no such image", str(image_path(cell, folder)))
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return Bad("image file cannot be opened", f"{cell}: {error}")
