"""What a caller holds, texts, dicts or a DataFrame, as the records of one side: cells are read by the rules of tables.

1. `items` finds the column of each field, and reads the cells as preparing a catalog does (words for a missing value,
   HTML, lists of images); images behind URLs are fetched
2. `Items` reads and checks a row's images when a block of rows is asked for, and keeps that block alone
3. an image that cannot be used is absent, as it is by default in a catalog; `Items.warn` says so afterwards
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.catalog import Catalog
from gcl.data.prepare.bad_images import Checked, Lost
from gcl.data.prepare.distinct import RecordCheck
from gcl.data.prepare.rows import Line, columns_of, image_columns
from gcl.data.store.away import local_folder
from gcl.data.store.records import Record, Value, images_of
from gcl.data.store.shard_writer import content_hash
from gcl.data.tables.block import Reading, listed
from gcl.data.tables.download import Downloads
from gcl.data.tables.frame import FrameRows, arrow_table, cell_of, collected, is_frame
from gcl.data.tables.images import Cells, image_cells, is_one_url
from gcl.errors import nearest
from gcl.retrieval.tasks.task import value_hash
from gcl.schema import Field, Modality, SideName, fields_of

_WHAT: dict[SideName, str] = {"query": "queries", "document": "documents"}


class Items:
    """Records in memory whose images are read block by block. cells: by field, one mapping per record."""

    def __init__(
        self, cells: Sequence[Cells], side: dict[str, Field], check: RecordCheck, *, ids: Sequence[str]
    ) -> None:
        self.side, self.ids, self._cells, self._check = side, ids, cells, check
        self.lost: dict[int, tuple[Lost, ...]] = {}  # by row: images that cannot be used
        self._present: dict[int, list[bool]] = {}
        self._block: dict[int, Record] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Record:
        return self._records([row])[0]

    @property
    def rows(self) -> np.ndarray:
        return np.arange(len(self))

    def _records(self, rows: Iterable[int]) -> list[Record]:
        """The records of some rows, which are kept until others are asked for."""
        rows = list(rows)
        if new := [row for row in dict.fromkeys(rows) if row not in self._block]:
            if len(new) == 1 or not self._check.has_image:
                checked = [self._checked(row) for row in new]
            else:
                with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                    checked = list(pool.map(self._checked, new))
            self._block = {row: self._block[row] for row in rows if row in self._block}
            for row, one in zip(new, checked, strict=True):
                self._block[row] = one.record
                self._present[row] = [bool(one.record[name]) for name in self.side]
                if one.lost:
                    self.lost[row] = one.lost
        return [self._block[row] for row in rows]

    def _checked(self, row: int) -> Checked:
        return self._check(self._cells[row], Path.cwd())

    def present(self, rows: np.ndarray) -> np.ndarray:
        new = [row for row in rows.tolist() if row not in self._present]
        for start in range(0, len(new), 64):
            self._records(new[start : start + 64])
        return np.array([self._present[row] for row in rows.tolist()], dtype=bool).reshape(len(rows), len(self.side))

    def column(self, field: str, rows: np.ndarray) -> list[Value]:
        return [record[field] for record in self._records(rows.tolist())]

    def hashes(self, field: str) -> list[bytes | None]:
        """Front half of SHA-256 of each value, as a store keeps it."""
        return [value_hash(self[row][field]) for row in range(len(self))]

    def image_hashes(self, field: str) -> list[list[bytes]]:
        """Those of each image."""
        return [[content_hash(image) for image in images_of(self[row][field])] for row in range(len(self))]

    def place(self, row: int) -> str:
        return f"row {row} ({self.ids[row]!r})" if str(self.ids[row]) != str(row) else f"row {row}"

    def subset(self, rows: np.ndarray) -> Items:
        return Items([self._cells[row] for row in rows], self.side, self._check, ids=[self.ids[row] for row in rows])

    def check_something(self) -> None:
        """Raises ValueError for records that have no field at all, once all are read."""
        empty = [row for row, present in self._present.items() if not any(present)]
        if empty:
            lost = self.lost.get(empty[0])
            why = f" ({lost[0].bad})" if lost else ""
            raise ValueError(
                f"{len(empty):,} of {len(self):,} rows have nothing to embed, the first is "
                f"{self.place(empty[0])}{why}: each needs one of {', '.join(self.side)}."
            )

    def warn(self) -> None:
        """A Python warning that counts the images that could not be used."""
        if self.lost:
            row, lost = next(iter(self.lost.items()))
            warnings.warn(
                f"{len(self.lost):,} of {len(self):,} rows have an image that cannot be used and go without it; the "
                f"first is {self.place(row)}: {lost[0].bad}.",
                stacklevel=4,
            )


def items(
    rows: Any, catalog: Catalog, side: SideName, *, cache_dir: str | Path, id: str | None = None, progress: bool = False
) -> Items:
    """Records of one side of a catalog. rows: a DataFrame, an Arrow table, or a list (or Series) of dicts or of the
    values of the side's only text (or image) field: texts, or PIL images, bytes and paths. id: the column of their ids;
    None: their numbers. cache_dir: below it images behind URLs are kept.

    Raises ValueError, in a sentence, for rows without any column of the side.
    """
    fields, rows = catalog.schema.side(side), collected(rows)
    if is_frame(rows) or (_is_list(rows) and any(isinstance(row, Mapping) for row in rows)):
        cells, ids, fields = _of_table(arrow_table(rows), catalog, side, id)
    elif _is_list(rows):
        cells, ids = [_one_value(row, fields, side) for row in rows], list(map(str, range(len(rows))))
    else:
        raise ValueError(
            f"{_WHAT[side].capitalize()} are a list (of texts, dicts or images), a DataFrame or an Arrow table; given "
            f"a value of the type {type(rows).__name__}. Read a file first, with pandas.read_csv for example."
        )
    downloads = Downloads(catalog.download, local_folder(cache_dir) / "downloads")
    images = fields_of(fields, Modality.image)
    texts = [cell for row in cells for name in images for cell in (row[name] or ()) if isinstance(cell, str)]
    downloads.fetch_shown(lambda: filter(is_one_url, texts), "downloading images", shown=progress)
    check = RecordCheck(
        fields, catalog.max_image_pixels, catalog.store.image_side, downloads.read, where=side
    )  # as images of the catalog are stored  # fmt: skip
    return Items(cells, fields, check, ids=ids)


def _is_list(rows: Any) -> bool:
    return isinstance(rows, Sequence) and not isinstance(rows, str | bytes)


def _one_value(value: Any, fields: Mapping[str, Field], side: SideName) -> Cells:
    """A text, or an image, as the value of the only field that takes it."""
    if value is None or (isinstance(value, float) and value != value):  # as a Series has what is missing
        return dict.fromkeys(fields)
    text = isinstance(value, str)
    takes = fields_of(fields, Modality.text if text else Modality.image)
    if len(takes) != 1:
        kind = "text" if text else "image"
        there = (
            f"{len(takes)} {kind} fields ({', '.join(takes)})" if takes else f"no {kind} field ({', '.join(fields)})"
        )
        raise ValueError(
            f"{_WHAT[side].capitalize()} have {there}: write each as a dict, for example "
            f"{{{', '.join(f'{name!r}: …' for name in fields)}}}."
        )
    cell: Any = value if text else tuple(image_cells([cell_of(value, takes[0])], fields[takes[0]]))
    return {name: cell if name == takes[0] else None for name in fields}


def _of_table(
    table: Any, catalog: Catalog, side: SideName, identifier: str | None
) -> tuple[list[Cells], list[str], dict[str, Field]]:
    names = list(table.column_names)
    fields = fitted(catalog.schema.side(side), names)
    known = {name: spec for name, spec in fields.items() if any(one in names for one in columns_of(name, spec))}
    if not known:
        wanted = [one for name, spec in fields.items() for one in columns_of(name, spec)]
        if not names:
            raise ValueError(f"A row of the {_WHAT[side]} has no field: the model reads {listed(wanted)}.")
        meant = next((one for one in wanted if difflib.get_close_matches(one, names, 1)), wanted[0])
        raise ValueError(
            f"These {_WHAT[side]} have none of the columns that the model reads ({listed(wanted)})."
            f"{nearest(meant, names)} Name a column so, or say where the model is loaded which column a field is: "
            f"{side}={{'{next(iter(fields))}': {{'column': '…'}}}}."
        )
    if identifier is not None and identifier not in names:
        raise ValueError(f"id={identifier!r}: there is no such column.{nearest(identifier, names)}")
    reading = replace(Reading.of(catalog), html=frozenset(
        spec.column or name for name, spec in known.items() if spec.text == "html"))  # fmt: skip
    texts = [one for name, spec in known.items() if spec.modality is Modality.text for one in columns_of(name, spec)]
    rows = FrameRows(table, _WHAT[side], reading)
    cells: list[Cells] = []
    ids: list[str | None] = []
    absent = dict.fromkeys(fields)
    for block in rows.blocks([*texts, *([identifier] if identifier else [])], image_columns(known)):
        for line in Line.of(block):
            cells.append({**absent, **line.record(known)})
            ids.append(line.identifier(identifier) if identifier else str(len(ids)))
    if identifier:
        _check_ids(ids, identifier)
    return cells, [str(one) for one in ids], fields


def _check_ids(ids: Sequence[str | None], column: str) -> None:
    if None in ids:
        raise ValueError(f"id={column!r}: row {ids.index(None)} has no value there, and each row needs its own.")
    if len(set(ids)) < len(ids):
        twice, _ = Counter(ids).most_common(1)[0]
        raise ValueError(f"id={column!r}: {twice!r} is there more than once, and each row needs its own.")


def fitted(side: Mapping[str, Field], columns: Sequence[str]) -> dict[str, Field]:
    """The fields with the columns of a table: the one that the catalog names, or the one called like the field.

    >>> fitted({"title": Field(column="product_title")}, ["id", "title"])["title"].column is None
    True
    """
    there = set(columns)
    return {
        name: replace(spec, column=None, columns=[])
        if not there.intersection(columns_of(name, spec)) and name in there
        else replace(spec, columns=[one for one in spec.columns if one in there])
        for name, spec in side.items()
    }
