"""Where foreign tars keep a schema's fields: `key.field.ext`, `key.ext`, or a value of `key.json`.

The suffix is matched from the end of a member's name, so keys may have dots in them.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.store.tar import TarDamage, members
from gcl.schema import SIDES, Field, Modality, Schema

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "bin")
TEXT_EXTENSIONS = ("txt", "text")
JSON = "json"
Target = tuple[str, str]  # side, field


class Layout(NamedTuple):
    """Where a sample's values are: the targets of each known suffix, and the JSON keys of texts that have none."""

    suffixes: dict[str, list[Target]]
    json_keys: dict[Target, str]
    score: str | None
    document_id: str | None

    @property
    def reads_json(self) -> bool:
        return bool(self.json_keys) or self.score is not None or self.document_id is not None


def find_layout(paths: Sequence[Path], schema: Schema, *, score: str | None, document_id: str | None) -> Layout:
    """Where the schema's fields are in these shards.

    A field named `title` is the member `key.title.<ext>`; `column` may say otherwise (an extension such as `jpg` or
    `txt`, or a JSON key). The only image field also owns plain image members. A text of which the first readable
    shard has no member is read from the JSON.
    """
    suffixes: dict[str, list[Target]] = {}
    columns: dict[Target, str] = {}
    images = [name for side in SIDES for name, spec in schema.side(side).items() if is_image(spec)]
    for side in SIDES:
        for name, spec in schema.side(side).items():
            column, extensions = spec.column or name, IMAGE_EXTENSIONS if is_image(spec) else TEXT_EXTENSIONS
            columns[side, name] = column
            plain = column in extensions or (is_image(spec) and len(images) == 1)
            found = {f"{label}.{extension}".lower() for label in (name, column) for extension in extensions}
            for suffix in found | set(extensions if plain else ()):
                suffixes.setdefault(suffix, []).append((side, name))
    seen = next(filter(None, (_suffixes_in(path, suffixes) for path in paths)), set())
    json_keys = {
        (side, name): columns[side, name]
        for side in SIDES
        for name, spec in schema.side(side).items()
        if not is_image(spec) and not any((side, name) in suffixes.get(suffix, ()) for suffix in seen)
    }
    return Layout(suffixes, json_keys, score, document_id)


def split_name(name: str, known: set[str]) -> tuple[str, str | None]:
    """A member's name -> its sample's key and its suffix, the longest known one; None for a name that ends in none.

    >>> split_name("a/sku.123.title.txt", {"title.txt", "txt"}), split_name("a/1.pkl", {"txt"})
    (('a/sku.123', 'title.txt'), ('a/1.pkl', None))
    """
    folder, slash, base = name.rpartition("/")
    pieces = base.split(".")
    for start in range(max(1, len(pieces) - 2), len(pieces)):  # a suffix is `ext` or `field.ext`
        suffix, key = ".".join(pieces[start:]).lower(), ".".join(pieces[:start])
        if suffix in known and key:
            return folder + slash + key, suffix
    return name, None


def is_image(spec: Field) -> bool:
    return spec.modality is Modality.image


def _suffixes_in(path: Path, known: dict[str, Any]) -> set[str]:
    """Known suffixes of a shard's members, up to where it is readable; empty for none."""
    found: set[str] = set()
    try:
        for member in members(map_file(path)):
            suffix = split_name(member.name, {*known, JSON})[1]
            if suffix is not None:
                found.add(suffix)
    except (TarDamage, OSError):
        pass
    return found - {JSON} or ({""} if found else set())


def map_file(path: Path) -> bytes | mmap.mmap:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""
