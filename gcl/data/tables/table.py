"""Tables as the user has them: the files that a path, pattern or URL names, their columns, and their rows in blocks."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gcl.data.tables.formats import SUFFIXES, Block, Format, errors_in_sentences, suffix_of
from gcl.data.tables.remote import copy_table, is_remote


class Table:
    """One table in one or more files of the same columns. `name` is what messages and the quarantine call it."""

    def __init__(self, name: str, files: Sequence[Path]):
        self.name = name
        self.files = list(files)
        self._columns: list[str] | None = None

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order. JSON Lines have no header: all keys of all rows."""
        if self._columns is None:
            self._columns = _columns(self.files[0])
            for file in self.files[1:]:
                other = _columns(file)
                if not _format(file).has_header:
                    self._columns += [name for name in other if name not in self._columns]
                elif set(other) != set(self._columns):
                    raise ValueError(
                        f"{file} has the columns {', '.join(other)}, {self.files[0]} has {', '.join(self._columns)}: "
                        f"the files of one table ({self.name}) must have the same columns."
                    )
        return self._columns

    def check_columns(self, wanted: Iterable[tuple[str, str]]) -> None:
        """`wanted`: (column, the setting that names it). Raises KeyError, in sentences, for what is not there."""
        missing = [(column, setting) for column, setting in wanted if column not in self.columns]
        if missing:
            raise KeyError(" ".join(_missing_column(self, column, setting) for column, setting in missing))

    def blocks(self, text: Iterable[str], image: Iterable[str] = ()) -> Iterator[Block]:
        """Rows in order. Cells of `text` columns are str or None, of `image` columns str (a path), bytes or None."""
        text, image = list(dict.fromkeys(text)), list(dict.fromkeys(image))
        for file in self.files:
            with errors_in_sentences(file):
                yield from _format(file).open(file).blocks(text, image)


def open_table(path: str, *, root: Path, setting: str, copies: Path | None = None) -> Table:
    """The table at `path` (relative to `root`; `*` and `?` name several files of one table, read in sorted order).

    A URL (s3://, gs://, hf://datasets/…, https://) is copied into `copies` first.

    Raises FileNotFoundError or ValueError in a sentence that names `setting`.
    """
    if copies is not None and is_remote(path):
        return Table(path, _readable(_copies(path, copies, setting), setting))
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
    return Table(path, _readable(files, setting))


def _readable(files: list[Path], setting: str) -> list[Path]:
    for file in files:
        if suffix_of(file) not in SUFFIXES:
            raise ValueError(
                f"{setting}: {file.name} is not a table gcl reads; expected one of {', '.join(SUFFIXES)}, also with "
                ".gz."
            )
    return files


def _copies(url: str, copies: Path, setting: str) -> list[Path]:
    try:
        files = copy_table(url, copies)
    except ImportError as error:
        raise ValueError(
            f"{setting}: {url} needs another package ({error}): pip install 'gcl-trainer[s3]' for s3://."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{setting}: {url} cannot be read ({type(error).__name__}: {error}).") from error
    if not files:
        raise FileNotFoundError(f"{setting}: there is nothing at {url}.")
    return files


def _columns(file: Path) -> list[str]:
    with errors_in_sentences(file):
        return _format(file).open(file).columns()


def _format(file: Path) -> Format:
    return SUFFIXES[suffix_of(file)]


def _nearest_file(place: Path) -> str:
    if not place.parent.is_dir():
        return f" The folder {place.parent} does not exist."
    near = difflib.get_close_matches(place.name, [entry.name for entry in place.parent.iterdir()], 1)
    return f" Did you mean {near[0]}?" if near else ""


def _missing_column(table: Table, column: str, setting: str) -> str:
    near = difflib.get_close_matches(column, table.columns, 1, 0.5)
    lower = [name for name in table.columns if name.strip().lower() == column.strip().lower()]
    hint = f" Did you mean {(lower or near)[0]!r}?" if lower or near else ""
    return f"{table.name} has no column {column!r} ({setting}). Its columns: {', '.join(table.columns)}.{hint}"
