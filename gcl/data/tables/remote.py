"""`data.shards` and tables that are URLs -> files on this machine: braces, wildcards, and URLs copied once."""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from gcl.data.masked import masked
from gcl.data.store.remote_shards import STORES, RemoteShard, ShardCache, file_system, unreachable, with_plain_scheme
from gcl.files.atomic import replacing
from gcl.files.digest import text_sha256

REMOTE = (*STORES, "http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000
_ASKED_AT_ONCE = 32


def locate_shards(
    shards: str, *, root: Path, copies: Path, most: int | None = None, cache: ShardCache | None = None
) -> list[Path | RemoteShard]:
    """Files that `shards` names: "part-{000..127}.tar", "*.tar", "s3://bucket/{0..9}.tar".

    root: what relative paths start from. copies: folder in which remote shards are kept, by URL; one that is there is
    not fetched again. most: take at most this many, evenly spread. cache: with one, those of an object store stay
    there, and are read through it.

    Raises ValueError for a scheme that is not in REMOTE (`pipe:` would run a shell), a wildcard
    that matches nothing, or a file that is missing or listed twice.
    """
    paths: list[Path | RemoteShard] = []
    stay: list[str] = []
    for name in map(with_plain_scheme, _spread(list(expand_braces(shards)), most)):
        scheme = _SCHEME.match(name)
        if scheme is None or scheme[1].lower() == "file":
            paths += _local(name.removeprefix("file://"), root)
        elif cache is not None and scheme[1].lower() in STORES and "::" not in name:
            stay.append(name)
        elif scheme[1].lower() in REMOTE and "::" not in name:
            paths.append(copied(name, copies))
        else:
            raise ValueError(
                f"data.shards: {masked(name)!r} is not read: a shard is a local path or a URL of {', '.join(REMOTE)}. "
                "Nothing that runs a command or chains file systems is accepted."
            )
    if cache is not None and stay:
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            paths += pool.map(partial(_found, cache=cache), stay)
    if len(set(paths)) < len(paths):
        twice = next(path for number, path in enumerate(paths) if path in paths[:number])
        raise ValueError(f"data.shards lists {twice} twice.")
    return _spread(paths, most)


def _found(url: str, cache: ShardCache) -> RemoteShard:
    try:
        system, path = file_system(url)
        about = system.info(path)
    except FileNotFoundError:
        raise ValueError(f"data.shards: there is nothing at {masked(url)}.") from None
    except Exception as error:  # each store's client has kinds of its own
        raise unreachable("data.shards", url, error) from error
    return RemoteShard(url, about["size"], text_sha256(f"{url} {system.ukey(path)}"), cache, known=False)


def _spread(items: list, most: int | None) -> list:
    if most is None or len(items) <= most:
        return items
    return [items[place * (len(items) - 1) // max(most - 1, 1)] for place in range(most)]


def expand_braces(pattern: str) -> Iterator[str]:
    """Every name a pattern with {first..last} or {one,other} means, in order.

    >>> list(expand_braces("a{08..10}.{tar,bin}"))[:3]
    ['a08.tar', 'a08.bin', 'a09.tar']
    """
    if pattern.count("{") != pattern.count("}"):
        raise ValueError(f"data.shards: in {pattern!r} a brace is not closed: write {{000..127}} or {{one,other}}.")
    pieces = _BRACES.split(pattern)
    choices = [[piece] if place % 2 == 0 else _choices(piece, pattern) for place, piece in enumerate(pieces)]
    count = math.prod(map(len, choices))
    if count > _MOST:
        raise ValueError(f"data.shards: {pattern!r} means {count:,} names, more than {_MOST:,}.")
    return ("".join(names) for names in itertools.product(*choices))


def _choices(braces: str, pattern: str) -> list[str]:
    if span := _RANGE.fullmatch(braces):
        first, last = int(span[1]), int(span[2])
        if first > last or last - first >= _MOST:
            raise ValueError(f"data.shards: {{{braces}}} in {pattern!r} is not a range of at most {_MOST:,} numbers.")
        width = len(span[1]) if span[1].startswith("0") else 0
        return [f"{number:0{width}d}" for number in range(first, last + 1)]
    return braces.split(",")


def _local(name: str, root: Path) -> list[Path]:
    name = os.path.expanduser(name)
    if not any(character in name for character in "*?["):
        if not (root / name).is_file():
            raise ValueError(f"data.shards: {root / name} is not a file.")
        return [root / name]
    matches = sorted(root / match for match in glob.glob(name, root_dir=root, recursive=True))
    if not (files := [path for path in matches if path.is_file()]):
        raise ValueError(f"data.shards: nothing matches {root / name}.")
    return files


def is_remote(name: str) -> bool:
    """Whether a path is a URL of a file system this reads from."""
    scheme = _SCHEME.match(name)
    return scheme is not None and scheme[1].lower() in REMOTE and "::" not in name


def copy_table(url: str, copies: Path) -> list[Path]:
    """Local copies of the files that a URL names, anew when their state changed."""
    system, names = named_by(url)
    return [copied(system.unstrip_protocol(name), copies, state=_state(system, name)) for name in names]


def _state(system: Any, name: str) -> str:
    """What changes with a file, as far as its store or server says."""
    if not name.startswith("http"):
        return system.ukey(name)
    about = system.info(name)
    return "".join(f"{about[key]}" for key in ("ETag", "Last-Modified", "size") if about.get(key))


def named_by(url: str) -> tuple[Any, list[str]]:
    """The file system of a URL, and what it names there: with wildcards several, sorted."""
    import fsspec  # here and below: what lies on this machine needs none

    system, path = fsspec.core.url_to_fs(url)
    if any(character in path for character in "*?[") and not url.lower().startswith("http"):
        return system, sorted(system.glob(path))
    return system, [path] if path.startswith("http") or system.exists(path) else []


def copied(url: str, copies: Path, state: str = "") -> Path:
    """The local copy of a remote file; it gets its name only when it is complete."""
    import fsspec

    digest = text_sha256(url + state)[:16]
    name = f"{digest}-{re.sub(r'[^A-Za-z0-9._-]', '_', masked(url).split('?')[0])[-80:]}"
    target = copies / name
    if not target.exists():
        with replacing(target) as partial:
            with fsspec.open(url, "rb") as source, partial.open("wb") as copy:
                expected = getattr(source, "size", None)
                shutil.copyfileobj(source, copy, 1 << 20)
            if expected is not None and partial.stat().st_size != expected:
                raise ValueError(f"{masked(url)} has {expected:,} bytes, {partial.stat().st_size:,} arrived.")
    return target
