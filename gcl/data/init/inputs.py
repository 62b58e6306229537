"""What was named on the command line -> the files it means, and which of them are tables, shards, or judgments."""

from __future__ import annotations

import glob
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from gcl.data.importers.layouts.feed import root_of
from gcl.data.masked import masked
from gcl.data.tables.folder import check_whole, files_of, is_one_table
from gcl.data.tables.formats import SUFFIXES
from gcl.data.tables.json_file import json_entries
from gcl.data.tables.remote import expand_braces, is_remote
from gcl.data.tables.source import suffix_of
from gcl.data.tables.table import locate_table
from gcl.data.tables.trec import is_trec

_TREC = (".trec", ".qrels", ".qrel")
MARQTUNE = frozenset({"leftKeys", "rightKeys", "schema", "training"})


class Kind(Enum):
    """What a file is for."""

    table = "table"
    shards = "shards"
    trec = "trec"  # judgments
    truth = "truth"  # judgments: one JSON object of {query: {document id: relevance}}
    marqtune = "marqtune"  # settings


class Input(NamedTuple):
    """path: of one file or a pattern, as a YAML may name it."""

    path: str
    files: list[Path]
    kind: Kind


def find_inputs(names: Sequence[str], copies: Path) -> list[Input]:
    """Raises FileNotFoundError or ValueError, in sentences, for what is not there or nothing that gcl reads."""
    found: list[Input] = []
    for name in names:
        if is_remote(name):
            if name.split("?")[0].endswith(".tar") or ".tar" in name:
                raise ValueError(
                    f"{masked(name)}: shards are looked at on this machine; copy one of them here, or write the YAML."
                )
            found.append(_input(name, locate_table(name, root=Path.cwd(), setting="gcl init", copies=copies)))
            continue
        place = Path(name).expanduser()
        if place.is_dir():
            found += [_one_table(place)] if is_one_table(place) else _in_folder(place)
        else:
            files = [place] if place.is_file() else _matching(name)
            if not files:
                raise FileNotFoundError(f"There is no file or folder {name}.{_near(place)}")
            found.append(_input(str(place.absolute()), [file.absolute() for file in files]))
    return list({str(item.files): item for item in found}.values())


def _matching(pattern: str) -> list[Path]:
    names = itertools.islice(expand_braces(str(Path(pattern).expanduser())), 10_000)
    return [Path(file) for name in names for file in sorted(glob.glob(name)) if Path(file).is_file()]


def _near(place: Path) -> str:
    if not place.parent.is_dir():
        return f" The folder {place.parent} does not exist."
    tables = sorted(entry.name for entry in place.parent.iterdir() if suffix_of(entry) in SUFFIXES)
    where = "Here is" if place.parent == Path() else f"In {place.parent} is"
    return f" {where}: {', '.join(tables[:8])}." if tables else ""


def _in_folder(folder: Path) -> list[Input]:
    """The tables and shards that lie in a folder; files that differ in numbers alone are one table."""
    files = [entry.absolute() for entry in sorted(folder.iterdir())
             if entry.is_file() and not entry.name.startswith((".", "~", "_")) and _is_input(entry)]  # fmt: skip
    if not files and next(folder.rglob("*.parquet"), None):
        return [_one_table(folder)]
    if not files:
        raise FileNotFoundError(f"{folder} has no table in it: {', '.join([*SUFFIXES, '.xml', '.tar'])}.")
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.sub(r"\d+", "*", file.name), []).append(file)
    found = []
    for pattern, members in groups.items():
        if len(members) > 1 and pattern.startswith(("*", "part", "train-", "data-", "shard")):
            found.append(_input(str(members[0].with_name(re.sub(r"\*+", "*", pattern))), members))
        else:
            found += [_input(str(file), [file]) for file in members]
    return found


def _one_table(folder: Path) -> Input:
    return Input(str(folder.resolve()), files_of(folder.resolve(), SUFFIXES, "gcl init"), Kind.table)


def _is_input(file: Path) -> bool:
    return suffix_of(file) in (*SUFFIXES, ".xml", ".tar", *_TREC)


def _input(path: str, files: list[Path]) -> Input:
    check_whole(files, "gcl init")
    first, suffix = files[0], suffix_of(files[0])
    if first.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        return Input(path, files, Kind.shards)
    if suffix in _TREC or (suffix in (".txt", ".tsv") and is_trec(first)):
        return Input(path, files, Kind.trec)
    if suffix == ".json" and (kind := _kind_of_object(first)):
        return Input(path, files, kind)
    if suffix not in SUFFIXES and root_of(first) is None:
        raise ValueError(
            f"{first.name} is nothing gcl reads: expected a table ({', '.join(SUFFIXES)}), an XML feed, shards (.tar) "
            "or judgments (.trec)."
        )
    return Input(path, files, Kind.table)


def _kind_of_object(file: Path) -> Kind | None:
    """Of a .json file that is one object; None: it is a table."""
    try:
        entries = dict(itertools.islice(_entries(file), 12))
    except ValueError:
        return None
    if len(MARQTUNE & entries.keys()) >= 2:
        return Kind.marqtune
    values = list(entries.values())
    grades = [grade for value in values if isinstance(value, dict) for grade in value.values()]
    are_grades = all(isinstance(grade, int | float) for grade in grades)
    return Kind.truth if values and grades and are_grades and all(isinstance(value, dict) for value in values) else None


def _entries(file: Path) -> Iterator[tuple[str, object]]:
    """Of one object; JSON Lines are several."""
    with open(file, encoding="utf-8-sig") as source:
        start = source.readline(1 << 20)
        more = source.readline().strip()
    try:
        json.loads(start)
        if more:
            return iter(())
    except ValueError:
        pass
    return json_entries(file)
