"""Prepared folders in an object store: put there, and read from there.

`cache_dir: s3://shop/prepared` has the shards there; the tables (pairs, tasks, indices), which are small, are also on
each machine that reads them, next to its cache of shards and of embeddings (`local_folder`). index.json is written last
there, as it is here: what has none is not prepared.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gcl.data.store.remote_shards import (
    PLACE,
    STORES,
    ShardCache,
    file_system,
    leads_inside,
    shards_of,
    unreachable,
)
from gcl.files.atomic import PARTIAL, synchronize, write_text
from gcl.files.digest import text_sha256
from gcl.files.progress import counted

T = TypeVar("T")
_INDEX = "index.json"


def is_away(folder: str | Path) -> bool:
    """Whether a folder is named by a URL."""
    return "://" in str(folder)


def local_folder(folder: str | Path) -> Path:
    """A cache_dir on this machine: itself, or for one in an object store the folder that stands for it here, below
    $XDG_CACHE_HOME (~/.cache). Raises ValueError for a URL of another kind."""
    if not is_away(folder):
        return Path(folder).expanduser()
    url = str(folder).rstrip("/")
    if url.partition("://")[0].lower() not in STORES:
        raise ValueError(f"cache_dir={url}: expected a folder, or a URL of {', '.join(STORES)}.")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", url.partition("://")[2])[-60:]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gcl" / f"{name}-{text_sha256(url)[:8]}"


def put_away(folder: Path, url: str, shards: list[dict], cache: ShardCache) -> None:
    """Copies a prepared folder to a URL, index.json last; the folder's own shards then lie there only, and in the cache
    as far as it has room. What is there already is written again: it is the same."""
    system, path = file_system(url)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files.sort(key=lambda file: file.name == _INDEX)
    for file in counted(files, f"{folder.name}: writing to {url}", unit="file"):
        if file.name != PLACE:
            try:
                system.put_file(str(file), f"{path}/{file.relative_to(folder).as_posix()}")
            except Exception as error:  # each store's client has kinds of its own
                raise unreachable("cache_dir", url, error, "written") from error
    write_text(folder / PLACE, f"{url}\n")
    cache.folder.mkdir(parents=True, exist_ok=True)
    free = None if cache.most is None else cache.most - sum(size for _, size, _ in cache.held())
    for shard in shards_of(folder, shards, cache):
        here = None if shard is None else folder / shard.url.removeprefix(f"{url}/")
        if shard is None or here is None or not here.is_file():
            continue
        if free is None or shard.size <= free:
            os.replace(here, shard.path)
            free = None if free is None else free - shard.size
        else:
            here.unlink()


def _asked(url: str, ask: Callable[..., T], *given: str) -> T:
    """The answer of a store, about a URL. Raises ValueError, in a sentence, for what its client raises."""
    try:
        return ask(*given)
    except Exception as error:  # each store's client has kinds of its own
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise unreachable("cache_dir", url, error) from error


def copy_here(url: str, folder: Path) -> bool:
    """Copies the tables of a prepared folder at a URL; False where there is none."""
    system, path = _asked(url, file_system, url)
    if not _asked(url, system.exists, f"{path}/{_INDEX}"):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}{PARTIAL}")
    try:
        for name in _asked(url, system.find, path):
            own = name[len(path.rstrip("/")) + 1 :]
            if not own.endswith(".tar") and leads_inside(own):
                (unfinished / own).parent.mkdir(parents=True, exist_ok=True)
                _asked(f"{url}/{own}", system.get_file, name, str(unfinished / own))
        write_text(unfinished / PLACE, f"{url}\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(unfinished, folder)
        synchronize(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True
