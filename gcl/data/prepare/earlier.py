"""What an earlier prepared folder of the same catalog spares a new one, and what changed between the two.

A record is recognised by its row's cells and the state of the image files that they name (size and time of last change;
of URLs, of the files that cache them): one that is the same is taken from the earlier shards, its images neither read
nor decoded nor shrunk again. What is written is byte for byte what it is without.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from gcl.data.catalog import Catalog, Verify
from gcl.data.prepare.bad_images import Checked
from gcl.data.store.key_table import KEY_BYTES, KeyTable, Packed, text_key
from gcl.data.store.prepared import INDEX, PREFIX, open_prepared, read_index, schema_from_dict
from gcl.data.store.remote_shards import place_of
from gcl.data.store.store import RecordStore
from gcl.data.tables.download import Downloads
from gcl.data.tables.image_paths import spellings
from gcl.data.tables.images import Cells, ImageCell, is_url, taken
from gcl.files.digest import add_file
from gcl.schema import SIDES, Modality, Schema, SideName, fields_of

_VERSION = 1  # raised when the same image would be checked or shrunk into something else
_DIGEST = 32  # bytes of a SHA-256
_AT_ONCE = 256  # records that are read before the shards' pages are let go of
_SAID = np.dtype([("state", f"V{KEY_BYTES}"), ("key", f"V{KEY_BYTES}")])
_UNKNOWN = bytes(KEY_BYTES)
MISSING = "missing"


def earlier_folder(folder: Path, catalog: Catalog) -> Path | None:
    """The newest folder below `folder` that was prepared of a catalog of this name and these fields, and whose shards
    lie on this machine; None: there is none."""
    found = [path.parent for path in folder.glob(f"{catalog.name}-*/{INDEX}") if place_of(path.parent) is None]
    for place in sorted(found, key=lambda place: (place / INDEX).stat().st_mtime_ns, reverse=True):
        with suppress(OSError, ValueError):
            index = read_index(place)
            if index["name"] == catalog.name and _kinds(schema_from_dict(index["schema"])) == _kinds(catalog.schema):
                return place
    return None


def _kinds(schema: Schema) -> list[tuple[str, str, str]]:
    return [(side, name, spec.kind) for side in SIDES for name, spec in schema.side(side).items()]


def state_of(path: str | Path) -> str:
    """Size and time of last change of a file."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return MISSING
    return f"{about.st_size} {about.st_mtime_ns}"


def image_state(cell: str, folder: Path) -> str:
    """That of the file that an image's path names."""
    if cell.isascii():  # nearly all
        return state_of(os.path.join(folder, cell))
    return next((state for path in spellings(cell, folder) if (state := state_of(path)) != MISSING), MISSING)


class EarlierRecords:
    """The records of one side that an earlier folder has, if it was prepared by the same rules, by the state of their
    rows. A context manager that writes `<prefix>.checked` into `target`, if there is one: SHA-256 of the rules and of
    what follows, then for each record the state of its row and its key (16 bytes each), zeros where its images have to
    be looked at again."""

    def __init__(
        self, catalog: Catalog, side: SideName, *, downloads: Downloads, earlier: Path | None, target: Path | None
    ) -> None:
        self._fields, self._downloads = catalog.schema.side(side), downloads
        fields = [[name, spec.kind, spec.images] for name, spec in self._fields.items()]
        rules = [_VERSION, catalog.max_image_pixels, catalog.store.image_side, fields]
        self._rules = hashlib.sha256(json.dumps(rules).encode()).digest()
        self._state = lru_cache(maxsize=1 << 12)(image_state)
        self._row, self._read = KeyTable(), 0
        self._target: BinaryIO = open(target / f"{PREFIX[side]}.checked", "wb+") if target else BytesIO()
        self._target.write(bytes(2 * _DIGEST))
        self._content = hashlib.sha256()
        with suppress(OSError, ValueError):
            if earlier is not None:
                self._open(catalog, earlier, PREFIX[side])

    def _open(self, catalog: Catalog, earlier: Path, prefix: str) -> None:
        file = earlier / f"{prefix}.checked"
        with open(file, "rb") as source:
            rules, digest, content = source.read(_DIGEST), source.read(_DIGEST), hashlib.sha256()
            add_file(content, source)
            if rules != self._rules or digest != content.digest():
                return
        open_prepared(earlier, verify=Verify.changed)
        images = {name: self._fields[name] for name in fields_of(self._fields, Modality.image)}
        store = RecordStore(earlier, prefix, images)
        said = np.asarray(np.memmap(file, _SAID, "r", 2 * _DIGEST))  # a plain array: its rows are read much faster
        if len(said) != len(store):
            return
        hashes = {name: store.image_hashes(name) for name in images}
        for number, one in enumerate(said["state"]):
            if (state := one.tobytes()) != _UNKNOWN:
                self._row.add(state, number)
        self._store, self._hashes = store, hashes
        self._key, self._present = said["key"], store.present(store.rows)

    def state(self, key: bytes, cells: Cells, folder: Path) -> bytes:
        """16 bytes for a row: of its cells, whose key is given, and of the images that they name."""
        digest = hashlib.blake2b(key, digest_size=KEY_BYTES)
        for name, spec in self._fields.items():
            images = cells.get(name)
            if spec.modality is Modality.image and isinstance(images, tuple):
                for cell in taken(images, spec):
                    digest.update(self._state_of(cell, folder).encode() + b"\0")
        return digest.digest()

    def _state_of(self, cell: ImageCell, folder: Path) -> str:
        if isinstance(cell, bytes):
            return ""
        return state_of(self._downloads.place(cell)) if is_url(cell) else self._state(cell.strip(), folder)

    def find(self, state: bytes, cells: Cells) -> int | None:
        """The record of a row, by its number; None where it is not known whole. Reads no image."""
        row = self._row.get(state)
        if row is None:
            return None
        present = self._present[row].tolist()
        if any(bool(cells.get(name)) != there for name, there in zip(self._store.side, present, strict=True)):
            return None  # a placeholder, which only all records together tell
        return row

    def known(self, state: bytes, cells: Cells) -> Checked | None:
        """The record of a row; None where it is not known whole."""
        row = self.find(state, cells)
        if row is None:
            return None
        self._read += 1
        if self._read % _AT_ONCE == 0:
            self._store.release()
        images = self._store[row]
        record = {
            name: images[name] if name in images else cast("str", cells.get(name)) or None for name in self._fields
        }
        hashes = {name: column[row] for name, column in self._hashes.items()}
        return Checked(record, self._key[row].tobytes(), hashes=hashes)

    def note(self, state: bytes, checked: Checked) -> None:
        """The next record that is written."""
        said = 2 * _UNKNOWN if checked.lost else state + checked.key
        self._content.update(said)
        self._target.write(said)

    def __enter__(self) -> EarlierRecords:
        return self

    def __exit__(self, *_: object) -> None:
        with self._target as file:
            file.seek(0)
            file.write(self._rules + self._content.digest())


def changes(earlier: Path, folder: Path, schema: Schema) -> list[str]:
    """How many products and queries are new, changed, gone and the same as in an earlier folder, in lines for
    people."""
    lines = []
    sides: dict[SideName, str] = {"document": "products", "query": "queries"}
    for side, what in sides.items():
        stores = [RecordStore(place, PREFIX[side], schema.side(side)) for place in (earlier, folder)]
        counts = compared(*(zip(store.each_id(), store.content_keys(), strict=True) for store in stores))
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        lines.append(f"{what} since {earlier.name}: {said}")
    return lines


def compared(old: Iterable[tuple[str, bytes]], new: Iterable[tuple[str, bytes]]) -> dict[str, int]:
    """How many records are new and so on. old, new: each one's id and 16 bytes that stand for its content."""
    row, before = KeyTable(), Packed()
    for number, (identifier, key) in enumerate(old):
        row.add(text_key(identifier), number)
        before.append(key)
    count = matched = kept = 0
    for identifier, key in new:
        count += 1
        number_before = row.get(text_key(identifier))
        if number_before is not None:
            matched += 1
            kept += before[number_before] == key
    return {"new": count - matched, "changed": matched - kept, "gone": len(before) - matched, "kept": kept}
