"""A folder that is one table -> its files: Parquet files, partitions (dt=2024-01-01/…), a data set that Hugging Face's
library saved, a Lance data set or an Iceberg table. A folder with a log of what counts is never read without it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TypeVar
from urllib.parse import unquote

AnyPath = TypeVar("AnyPath", bound=PurePath)
_PARTITION = re.compile(r"([^=]+)=(.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_SPLIT = re.compile(r"(.+?)-\d+-of-\d+")
LOGS = {
    "_delta_log": ("a Delta table", "deltalake"),
    ".hoodie": ("a Hudi table", "hudi"),
}


def kind_of(folder: Path) -> str | None:
    """The name of the format of a folder that is read as one thing; None for a folder of files."""
    if (folder / "_versions").is_dir():
        return "lance"
    return "iceberg" if any((folder / "metadata").glob("*.metadata.json")) else None


def is_one_table(folder: Path) -> bool:
    """Whether a folder says by its form that it is one table, not by its files' names alone."""
    marks = ("dataset_dict.json", "state.json", *LOGS)
    return (
        kind_of(folder) is not None or any((folder / mark).exists() for mark in marks) or bool(_partitions_in(folder))
    )


def partitions_of(file: Path) -> dict[str, str | None]:
    """What the folders directly above a file say of all of its rows: {column: value}.

    >>> partitions_of(Path("/shop/dt=2024-01-01/country=C%C3%B4te/part-0.parquet"))
    {'dt': '2024-01-01', 'country': 'Côte'}
    """
    said: dict[str, str | None] = {}
    for folder in file.parents:
        if (match := _PARTITION.fullmatch(folder.name)) is None:
            break
        said[unquote(match[1])] = None if match[2] == _NO_VALUE else unquote(match[2])
    return dict(reversed(said.items()))


def files_of(folder: Path, suffixes: Iterable[str], setting: str) -> list[Path]:
    """The files of the table that a folder is, in the order in which they are read; of a Lance data set or an Iceberg
    table the folder itself. suffixes: of the formats that partitions may have.

    Raises FileNotFoundError or ValueError, in a sentence that names `setting`, for a folder that is no one table.
    """
    if kind_of(folder) is not None:
        return [folder]
    for log, (what, library) in LOGS.items():
        if (folder / log).exists():
            raise ValueError(
                f"{setting}: {folder} is {what}, and gcl does not read {log}, which says which of its Parquet files "
                f"count. Write its newest version as Parquet (for example with Python's {library}), and name that."
            )
    if (splits := folder / "dataset_dict.json").is_file():
        names = json.loads(splits.read_text(encoding="utf-8"))["splits"]
        raise ValueError(f"{setting}: {folder} holds {', '.join(names)}: name one of them, {folder / names[0]}.")
    if (state := folder / "state.json").is_file():
        return [folder / name for name in _listed_in(state, setting)]
    if partitions := _partitions_in(folder):
        found = [file for one in partitions for file in _below(one, tuple(suffixes))]
        if loose := [entry.name for entry in _entries(folder) if entry.is_file() and entry.suffix in suffixes]:
            raise ValueError(f"{setting}: {folder} holds partitions ({partitions[0].name}) and {loose[0]}: move it.")
    else:
        found = _plain_files(folder, setting)
    if not found:
        raise FileNotFoundError(
            f"{setting}: {folder} is a folder, without Parquet files; name its files, for example {folder}/*.csv."
        )
    return found


def _listed_in(state: Path, setting: str) -> list[str]:
    try:
        names = [str(file["filename"]) for file in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{setting}: {state} does not list the files of a data set, as save_to_disk does.") from error
    if odd := next((name for name in names if Path(name).name != name), None):
        raise ValueError(f"{setting}: {state} lists {odd!r}, which is no file of its own folder.")
    return names


def check_whole(files: Iterable[Path], setting: str) -> None:
    """Raises ValueError for files that are parts of a table of which a log says which of them count."""
    for folder in {file.parent: None for file in files}:
        for owner in owners_of(folder):
            if kind_of(owner) == "iceberg" or any((owner / log).exists() for log in LOGS):
                raise ValueError(not_whole(str(folder), str(owner), setting))


def owners_of(folder: AnyPath) -> list[AnyPath]:
    """Folders that may be the table which the files in a folder are parts of."""
    while _PARTITION.fullmatch(folder.name):
        folder = folder.parent
    return [folder, folder.parent] if folder.name == "data" else [folder]


def not_whole(folder: str, owner: str, setting: str) -> str:
    """Why files in a folder are not read that belong to the table `owner`."""
    return (
        f"{setting}: the files in {folder} belong to the table {owner}, and some of them may be deleted or replaced: "
        f"name {owner}."
    )


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))


def _partitions_in(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir() and _PARTITION.fullmatch(entry.name)]


def _below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for entry in _entries(folder):
        if entry.is_dir():
            found += _below(entry, suffixes)
        elif entry.name.lower().removesuffix(".gz").endswith(suffixes):
            found.append(entry)
    return found


def _plain_files(folder: Path, setting: str) -> list[Path]:
    entries = _entries(folder)
    files = [entry for entry in entries if entry.is_file() and entry.suffix.lower() == ".parquet"]
    folders = [entry for entry in entries if entry.is_dir() and any(entry.rglob("*.parquet"))]
    if folders and files:
        raise ValueError(
            f"{setting}: {folder} holds Parquet files, and so does its folder {folders[0].name}: name those of the "
            f"table, for example {folder}/*.parquet."
        )
    if len(folders) > 1:
        names = ", ".join(entry.name for entry in folders[:8])
        raise ValueError(f"{setting}: {folder} holds Parquet files in {names}: name one of them, {folders[0]}.")
    if folders:  # as data sets of the Hugging Face hub have them: data/train-00000-of-00002.parquet
        return files_of(folders[0], (), setting)
    splits = {match[1]: None for file in files if (match := _SPLIT.fullmatch(file.stem))}
    if len(splits) > 1:
        raise ValueError(
            f"{setting}: {folder} holds {', '.join(splits)}: name one of them, {folder}/{next(iter(splits))}-*.parquet."
        )
    return files
