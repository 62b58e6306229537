"""Tables as the user has them: the files that a path, pattern or URL names, their columns, and their rows in blocks."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from gcl.data.masked import HIDDEN, masked
from gcl.data.store.remote_shards import unreachable, with_plain_scheme
from gcl.data.tables.block import Block, Reading, check_once, listed
from gcl.data.tables.folder import check_whole, files_of, kind_of, partitions_of
from gcl.data.tables.formats import SUFFIXES, errors_in_sentences, format_of
from gcl.data.tables.parquet_file import ParquetFile
from gcl.data.tables.remote import copy_table, is_remote
from gcl.data.tables.remote_folder import NotOneTable, check_whole_away, copy_folder, is_folder
from gcl.data.tables.signature import check_signature
from gcl.data.tables.source import open_text, suffix_of

_PLAIN = Reading()
_MOST_COMPARED = 2000  # names of columns that a misspelled one is compared with
_MOST_ABOVE = 20  # lines that may stand above a header
_UNPACK = "unpack it, or compress it with gzip"
_OTHER_SUFFIXES = {
    **dict.fromkeys((".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), "save it as .xlsx or as CSV, UTF-8"),
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".7z", ".rar"), _UNPACK),
    ".xml": "gcl init reads product feeds; other XML has to be exported as CSV",
}


class Table:
    """One table in one or more files of the same columns. `name` is what messages and the quarantine call it."""

    def __init__(self, name: str, files: Sequence[Path], reading: Reading = _PLAIN):
        self.name, self.files, self.reading = name, list(files), reading
        self._columns: list[str] | None = None
        self._rows, self._share = 0, 0.0  # read in the last pass so far, and of the files' bytes

    def expected_rows(self) -> int | None:
        """About how many rows there are, as the pass over them so far suggests."""
        return round(self._rows / self._share) if self._share else None

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order. JSON has no header: all keys of all rows."""
        if self._columns is None:
            columns = self._columns_of(self.files[0])
            for file in self.files[1:]:
                other = self._columns_of(file)
                if not format_of(file).has_header:
                    columns = list(dict.fromkeys(columns + other))
                elif set(other) != set(columns):
                    raise ValueError(
                        f"{file} has the columns {listed(other)}, {self.files[0]} has {listed(columns)}: "
                        f"the files of one table ({self.name}) must have the same columns."
                    )
            self._columns = columns
        return self._columns

    def has_paths(self, images: Sequence[str]) -> bool:
        """Whether cells of these columns of images may be paths or URLs; not where a file's columns hold bytes."""
        for file in self.files:
            with errors_in_sentences(file, self.reading):
                opened = format_of(file).open(file, self.reading)
                if not isinstance(opened, ParquetFile) or not all(map(opened.is_bytes, images)):
                    return True
        return False

    @property
    def feed_files(self) -> dict[Path, str]:
        """Those of the files, the last ones, that are a change feed's, with its name."""
        return {}

    def deletes(self, identifier: str) -> bool:
        """Whether a change feed says that there is no such row any more."""
        return False

    def said(self) -> list[str]:
        """What showed when it was read, in lines for people."""
        return []

    def _columns_of(self, file: Path) -> list[str]:
        with errors_in_sentences(file, self.reading):
            check_signature(file, self.reading.encoding)
            columns = format_of(file).open(file, self.reading).columns()
            return list(dict.fromkeys([*columns, *partitions_of(file)]))

    def check_columns(self, wanted: Iterable[tuple[str, str]]) -> None:
        """`wanted`: (column, the setting that names it). Raises KeyError, in sentences, for what is not there."""
        wanted, columns = list(wanted), set(self.columns)
        missing = [(column, setting) for column, setting in wanted if column not in columns]
        if missing:
            raise KeyError(" ".join(_missing_column(self, column, setting) for column, setting in missing))
        check_once(self.name, self.columns, [column for column, _ in wanted])

    def blocks(self, text: Iterable[str], image: Iterable[str] = ()) -> Iterator[Block]:
        """Rows in order. Cells of `text` columns are str or None; of `image` columns see Cell."""
        text, image = list(dict.fromkeys(text)), list(dict.fromkeys(image))
        sizes, before = [file.stat().st_size for file in self.files], 0
        self._rows, self._share = 0, 0.0
        for file, size in zip(self.files, sizes, strict=True):
            with errors_in_sentences(file, self.reading):
                check_signature(file, self.reading.encoding)
                for block in self._blocks_of(file, text, image):
                    self._rows += len(block.number) + len(block.bad)
                    if block.place is not None:
                        self._share = (before + min(block.place, size)) / max(sum(sizes), 1)
                    yield block
            before += size
            self._share = before / max(sum(sizes), 1)

    def _blocks_of(self, file: Path, text: list[str], image: list[str]) -> Iterator[Block]:
        opened = format_of(file).open(file, self.reading)
        said = partitions_of(file)
        if not said:
            yield from opened.blocks(text, image)
            return
        own = opened.columns()
        added = {name: said[name] for name in [*text, *image] if name in said and name not in own}
        inside, images = [name for name in text if name not in added], [name for name in image if name not in added]
        for block in opened.blocks(inside if inside or images else own[:1], images):
            for name, value in added.items():
                block.add_texts(name, pa.array([value] * len(block.number), pa.string()), self.reading)
            yield block


def open_table(path: str, *, root: Path, setting: str, copies: Path | None = None, reading: Reading = _PLAIN) -> Table:
    """The table at `path` (relative to `root`; `*` and `?` name several files of one table, read in sorted order).

    A URL (s3://, gs://, hf://datasets/…, https://) is copied into `copies` first. reading: how it is written.

    Raises FileNotFoundError or ValueError in a sentence that names `setting`.
    """
    return Table(
        masked(path), readable(locate_table(path, root=root, setting=setting, copies=copies), setting), reading
    )


def locate_table(path: str, *, root: Path, setting: str, copies: Path | None = None) -> list[Path]:
    """The files that `open_table` reads, whatever their format."""
    if copies is not None and is_remote(path):
        return _copies(with_plain_scheme(path), copies, setting)
    place = root / Path(path).expanduser()
    if place.is_dir():
        files = files_of(place, SUFFIXES, setting)
        check_whole(files, setting)
        return files
    files = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
    check_whole(files, setting)
    if not files:
        raise FileNotFoundError(
            f"{setting}: there is no table {place} (paths are relative to {root}, set data.root to change that)."
            f"{_nearest_file(place)}"
        )
    return files


def readable(files: list[Path], setting: str) -> list[Path]:
    """The files, if all have a suffix of a format. Raises ValueError."""
    for file in files:
        if not (file.is_dir() and kind_of(file)) and suffix_of(file) not in SUFFIXES:
            advice = _OTHER_SUFFIXES.get(file.suffix.lower())
            raise ValueError(
                f"{setting}: {file.name} is not a table gcl reads{f' ({advice})' if advice else ''}; expected one of "
                f"{', '.join(SUFFIXES)}, also with .gz."
            )
    return files


def _copies(url: str, copies: Path, setting: str) -> list[Path]:
    if HIDDEN in url:  # of a run's config.yaml
        raise ValueError(
            f"{setting}: {url} has {HIDDEN} where a password or key was, which no file of a run keeps. Name the "
            "catalog again, with its own YAML (data=…); there, ${oc.env:NAME} stands for a password."
        )
    try:
        whole = is_folder(url)
        check_whole_away(url, setting, is_folder=whole)
        files = copy_folder(url, copies, SUFFIXES, setting) if whole else copy_table(url, copies)
    except NotOneTable:
        raise
    except Exception as error:  # each store's client has kinds of its own
        raise unreachable(setting, url, error) from error
    if not files:
        login = ", or it needs a login (HF_TOKEN), or HF_HUB_OFFLINE is set" if url.startswith("hf://") else ""
        raise FileNotFoundError(f"{setting}: there is nothing at {masked(url)}{login}.")
    return files


def _nearest_file(place: Path) -> str:
    if not place.parent.is_dir():
        return f" The folder {place.parent} does not exist."
    near = difflib.get_close_matches(place.name, [entry.name for entry in place.parent.iterdir()], 1)
    return f" Did you mean {near[0]}?" if near else ""


def _header_below(file: Path, reading: Reading, column: str) -> int | None:
    """The line of a text that names the column, if there is one among the first."""
    if suffix_of(file) not in (".csv", ".tsv", ".txt"):
        return None
    with open_text(file, reading.encoding) as lines:
        for number, line in enumerate(islice(lines, _MOST_ABOVE), start=1):
            if number > 1 and column in [cell.strip(' "\r\n') for cell in re.split(r"[,;\t|]", line)]:
                return number
    return None


def _missing_column(table: Table, column: str, setting: str) -> str:
    near = difflib.get_close_matches(column, table.columns[:_MOST_COMPARED], 1, 0.5)
    lower = [name for name in table.columns if name.strip().lower() == column.strip().lower()]
    hint = f" Did you mean {(lower or near)[0]!r}?" if lower or near else ""
    if line := _header_below(table.files[0], table.reading, column):
        hint = f" Line {line} seems to be the header: delete the lines above it."
    return f"{table.name} has no column {column!r} ({setting}). Its columns: {listed(table.columns)}.{hint}"
