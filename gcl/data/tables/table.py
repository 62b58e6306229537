"""Tables as the user has them: the files that a path, pattern or URL names, their columns, and their rows in blocks."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gcl.data.tables.block import Block, Reading, check_once, listed
from gcl.data.tables.formats import SUFFIXES, Format, errors_in_sentences
from gcl.data.tables.masked import HIDDEN, masked
from gcl.data.tables.remote import copy_table, is_remote
from gcl.data.tables.signature import check_signature
from gcl.data.tables.source import suffix_of

_PLAIN = Reading()
_MOST_COMPARED = 2000  # names of columns that a misspelled one is compared with


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
                if not _format(file).has_header:
                    columns = list(dict.fromkeys(columns + other))
                elif set(other) != set(columns):
                    raise ValueError(
                        f"{file} has the columns {listed(other)}, {self.files[0]} has {listed(columns)}: "
                        f"the files of one table ({self.name}) must have the same columns."
                    )
            self._columns = columns
        return self._columns

    def _columns_of(self, file: Path) -> list[str]:
        with errors_in_sentences(file, self.reading):
            check_signature(file, self.reading.encoding)
            return _format(file).open(file, self.reading).columns()

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
                for block in _format(file).open(file, self.reading).blocks(text, image):
                    self._rows += len(block.number) + len(block.bad)
                    if block.place is not None:
                        self._share = (before + min(block.place, size)) / max(sum(sizes), 1)
                    yield block
            before += size
            self._share = before / max(sum(sizes), 1)


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
        return _copies(path, copies, setting)
    place = root / Path(path).expanduser()
    if place.is_dir():
        raise FileNotFoundError(
            f"{setting}: {place} is a folder; name its files, for example {path.rstrip('/')}/*.parquet."
        )
    files = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(str(place)))]
    if not files:
        raise FileNotFoundError(
            f"{setting}: there is no table {place} (paths are relative to {root}, set data.root to change that)."
            f"{_nearest_file(place)}"
        )
    return files


def readable(files: list[Path], setting: str) -> list[Path]:
    """The files, if all have a suffix of a format. Raises ValueError."""
    for file in files:
        if suffix_of(file) not in SUFFIXES:
            raise ValueError(
                f"{setting}: {file.name} is not a table gcl reads; expected one of {', '.join(SUFFIXES)}, also with "
                ".gz."
            )
    return files


def _copies(url: str, copies: Path, setting: str) -> list[Path]:
    if HIDDEN in url:  # of a run's config.yaml
        raise ValueError(
            f"{setting}: {url} has {HIDDEN} where a password or key was, which no file of a run keeps. Name the "
            "catalog again, with its own YAML (data=…); there, ${oc.env:NAME} stands for a password."
        )
    try:
        files = copy_table(url, copies)
    except ImportError as error:
        raise ValueError(
            f"{setting}: {masked(url)} needs another package ({error}): pip install 'gcl-trainer[s3]' for s3://."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{setting}: {masked(url)} cannot be read ({type(error).__name__}: {masked(str(error))})."
        ) from error
    if not files:
        raise FileNotFoundError(f"{setting}: there is nothing at {masked(url)}.")
    return files


def _format(file: Path) -> Format:
    return SUFFIXES[suffix_of(file)]


def _nearest_file(place: Path) -> str:
    if not place.parent.is_dir():
        return f" The folder {place.parent} does not exist."
    near = difflib.get_close_matches(place.name, [entry.name for entry in place.parent.iterdir()], 1)
    return f" Did you mean {near[0]}?" if near else ""


def _missing_column(table: Table, column: str, setting: str) -> str:
    near = difflib.get_close_matches(column, table.columns[:_MOST_COMPARED], 1, 0.5)
    lower = [name for name in table.columns if name.strip().lower() == column.strip().lower()]
    hint = f" Did you mean {(lower or near)[0]!r}?" if lower or near else ""
    return f"{table.name} has no column {column!r} ({setting}). Its columns: {listed(table.columns)}.{hint}"
