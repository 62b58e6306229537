"""Where an image's path leads, and where it leads to nothing, what was probably meant.

A catalog may name a million files that are not there, so a hint costs a few look-ups: folders are listed once, and
huge ones in part.
"""

from __future__ import annotations

import os
import re
import unicodedata
from functools import lru_cache
from html import unescape
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
IMAGE_NAME = re.compile(r"\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|jp2|heic|svg)$", re.IGNORECASE)
_TAG = re.compile(r"\s*<\s*(img|a)\b", re.IGNORECASE)
_NEARLY_URL = re.compile(r"(?i)^www\.|https?:[/\\]")  # what is a URL has not come here
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(:\d+)?/")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=*\s*")
_LONGEST_NAME = 255  # characters of a file's name, on nearly all systems
_SEPARATORS = (",", "|", ";", "\n", " ")
_MOST_LISTED = 50_000  # entries of a folder that are looked at for names that differ in case
_MOST_FOLDERS, _DEPTH = 500, 3  # below the folder that paths start from, searched for a file's name


def spellings(cell: str, folder: Path) -> list[Path]:
    """The path of a cell, absolute or relative to `folder`, and where its Unicode form may differ from the file's (Macs
    write é as two characters), the others."""
    forms = [cell] if cell.isascii() else [cell, *(unicodedata.normalize(form, cell) for form in ("NFC", "NFD"))]
    return [folder / name for name in dict.fromkeys(forms)]


def several_in(cell: str, *, urls: bool) -> str | None:
    """The separator of a cell that is several URLs, or several paths of images; None for one that is not.

    >>> several_in("https://a.example/1.jpg, https://a.example/2.jpg", urls=True), several_in("a, b.jpg", urls=False)
    (',', None)
    """
    for separator in _SEPARATORS:
        parts = [part.strip() for part in cell.split(separator) if part.strip()]
        if len(parts) > 1 and all("://" in part[:9] or part.startswith("//") if urls else IMAGE_NAME.search(part)
                                  for part in parts):  # fmt: skip
            return separator
    return None


def why_missing(cell: str, folder: Path) -> str:
    """What is recognisable of a path that leads to nothing, as a sentence; "" for nothing."""
    return _written_otherwise(cell, folder) or _spelled_otherwise(folder / cell) or _elsewhere(cell, folder)


def image_as_text(cell: str) -> str:
    """What is said of a cell that is an image itself, written as text; "" for others."""
    if cell.startswith("data:"):
        return "a data: URI is not read: write the image into a file"
    if len(cell) > _LONGEST_NAME and (_BASE64.fullmatch(cell) or cell.startswith(("b'", 'b"'))):
        return "it is an image's bytes as text: write them into a file, or as bytes into a Parquet column"
    return ""


def _written_otherwise(cell: str, folder: Path) -> str:
    slashed = cell.replace("\\", "/")
    if said := image_as_text(cell):
        return said
    if _NEARLY_URL.search(cell):
        return "a URL begins with https:// or http://, and nothing else is in the cell"
    if _TAG.match(cell):
        return "it is HTML: write the address that stands in src alone"
    for other, said in (
        (slashed, "write / for \\"),
        (slashed.lstrip("/"), "leave out the / at its beginning"),
        (unquote(cell), "the name in the table is percent-encoded"),
        (unescape(cell), "the name in the table is written as HTML"),
        (cell.strip("'\"<>"), "leave out the signs around it"),
        (cell.partition("?")[0], "leave out what follows the ?"),
    ):
        if other not in (cell, "") and _is_file(folder / other):
            return f"{other} exists: {said}"
    return ""


def _spelled_otherwise(path: Path) -> str:
    """A name on the way that exists in another case, Unicode form or with another suffix."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    names = _names_in(parent)
    near = names.get(_folded(path.name)) or names.get(_folded(path.stem))
    if near is None:
        return ""
    if _folded(near) != _folded(path.name):
        return f"{near} exists: the suffix differs"
    how = "in other case" if near.casefold() == path.name.casefold() else "in another Unicode form"
    what = "folder" if (parent / near).is_dir() else "file"
    return f"a {what} of that name {how} exists: {near}"


def _elsewhere(cell: str, folder: Path) -> str:
    parts = re.split(r"[\\/]", cell)
    place = _below(folder).get(_folded(parts[-1]))
    if place is None:
        if _WINDOWS.match(cell):
            return "it is a path of a Windows machine"
        missing = (folder / cell).parent
        if _HOST.match(cell) and not (folder / parts[0]).exists():
            return f"if {parts[0]} is a host, begin with https://"
        return "" if missing.is_dir() or len(cell) > _LONGEST_NAME else f"there is no folder {missing}"
    folders = tuple(parts[:-1])
    if place.parts[len(place.parts) - len(folders) :] != folders:
        return f"a file of that name is in {place}"
    return f"set data.image_root={Path(*place.parts[: len(place.parts) - len(folders)])}: it is there"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=32)
def _names_in(folder: Path) -> dict[str, str]:
    """The names in a folder, by how they are folded, with and without their suffix; of a huge folder none."""
    try:
        names = sorted(entry.name for entry in islice(os.scandir(folder), _MOST_LISTED + 1))
    except OSError:
        return {}
    if len(names) > _MOST_LISTED:
        return {}
    return {_folded(Path(name).stem): name for name in names} | {_folded(name): name for name in names}


@lru_cache(maxsize=8)
def _below(folder: Path) -> dict[str, Path]:
    """The folder of each image below this one and in those beside it, by its folded name; the first that has it."""
    found: dict[str, Path] = {}
    waiting, searched = [(folder, _DEPTH)], 0
    if len(folder.parts) > 2:
        waiting += [(path, 1) for path in _folders_in(folder.parent) if path != folder]
    while waiting and searched < _MOST_FOLDERS and len(found) < 4 * _MOST_LISTED:
        (place, depth), searched = waiting.pop(0), searched + 1
        for folded, name in _names_in.__wrapped__(place).items():
            if IMAGE_NAME.search(name):
                found.setdefault(folded, place)
        if depth:
            waiting += [(path, depth - 1) for path in _folders_in(place)]
    return found


def _folders_in(folder: Path) -> list[Path]:
    try:
        folders = [Path(entry) for entry in islice(os.scandir(folder), _MOST_LISTED) if entry.is_dir()]
    except OSError:
        return []
    return sorted(path for path in folders if not path.name.startswith("."))
