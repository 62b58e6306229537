"""Shards that stay in an object store, read through a bounded folder of this machine.

One folder (`<cache_dir>/shards`) serves all ranks, loader workers and runs of a machine; nobody administers it:

1. Who needs a shard and does not find it fetches it, under a lock of its own, so that nobody fetches it twice at once.
2. It arrives under another name, is compared with its SHA-256, and is renamed: what has its name is whole, whatever was
   killed. Bytes that differ are fetched again, and then refused by name.
3. Who reads a shard, or will soon (gcl/data/batches/read_ahead.py), touches its file at least once a second. One that
   nobody has touched for `_IDLE` seconds may go, whatever became of the process that wanted it.
4. Before a shard is fetched room is made for it: those go whose last touch is the longest ago. A file that is still
   mapped somewhere stays readable there until it is unmapped.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from gcl.data.masked import masked
from gcl.data.network import cause_of
from gcl.errors import install
from gcl.files.atomic import Replacement, names_full_disk
from gcl.files.digest import file_sha256
from gcl.files.lock import locked

logger = logging.getLogger(__name__)
STORES = ("s3", "gs", "gcs", "abfs", "abfss", "az", "hf")  # of objects
PLACE = "shards_at"  # of a prepared folder whose shards lie elsewhere: the URL of the folder that they lie in
_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
_ATTEMPTS = 3
_IDLE = 5.0  # seconds after which a shard that nobody has touched is nobody's
_PATIENCE = 60.0  # seconds for others to give up room
_NAME = re.compile(r"\.?[0-9a-f]{16}-(\d+)-")  # of a shard, whole or arriving


@dataclass(frozen=True)
class ShardCache:
    """Shards of object stores on this machine. most: bytes of all of them together; None: nothing is ever dropped."""

    folder: Path
    most: int | None = None

    @classmethod
    def below(cls, cache_dir: Path, gigabytes: float | None = None) -> ShardCache:
        return cls(cache_dir / "shards", None if gigabytes is None else int(gigabytes * 1e9))

    def held(self) -> list[tuple[float, int, Path]]:
        """(last touch, bytes, path) of each shard that is here or arriving; one that arrives counts whole."""
        files = []
        with suppress(FileNotFoundError):
            for entry in os.scandir(self.folder):
                if found := _NAME.match(entry.name):
                    with suppress(FileNotFoundError):
                        files.append((entry.stat().st_mtime, int(found[1]), Path(entry.path)))
        return [file for file in files if file[2].suffix != ".lock"]

    def limit(self) -> int:
        """Bytes that shards may take here: the setting, or what the disk can hold where that is less."""
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = shutil.disk_usage(self.folder).free + sum(size for _, size, _ in self.held())
        return disk if self.most is None else min(self.most, disk)

    def arriving(self, path: Path, size: int) -> Replacement:
        """Makes room for a shard that will be `path`."""
        target = Replacement(path)
        with locked(self.folder / ".room.lock", waiting_for=f"room in {self.folder}"):
            self._make_room(size)
            target.temporary.touch()  # its name counts from now on
        return target

    def _make_room(self, size: int) -> None:
        if self.most is None:
            return
        if size > self.most:
            raise ValueError(f"A shard of {gigabytes(size)} is more than data.cache_gb={self.most / 1e9:g} holds.")
        patience = time.monotonic() + _PATIENCE
        while True:
            files = sorted(self.held())
            over = sum(bytes_ for _, bytes_, _ in files) + size - self.most
            for touched, bytes_, path in files:
                if over <= 0 or (time.time() - touched < _IDLE and time.monotonic() < patience):
                    break
                with suppress(OSError):  # Windows deletes nothing that is mapped
                    path.unlink(missing_ok=True)
                    over -= bytes_
            if over <= 0:
                return
            time.sleep(0.2)


@dataclass(frozen=True)
class RemoteShard:
    """digest: 64 hexadecimal digits, the SHA-256 of its bytes; of one that was never read (`known` False) any others
    that tell it apart."""

    url: str
    size: int
    digest: str
    cache: ShardCache
    known: bool = True

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where it lies on this machine, if it does."""
        return self.cache.folder / f"{self.digest[:16]}-{self.size}-{self.name[-80:]}"

    def touch(self) -> bool:
        """Says that somebody needs it; False where it is not here."""
        try:
            os.utime(self.path)
        except OSError:
            return False
        return True

    def read_once(self, sha256: str) -> None:
        """Gives it the name that its digest is known by now; until it is read again it is the first to go."""
        with suppress(OSError):
            os.utime(self.path, (0, 0))
            os.replace(self.path, replace(self, digest=sha256).path)

    def open(self) -> BinaryIO:
        """The shard's bytes, fetched where they are not here."""
        while True:
            try:
                file = self.path.open("rb")
            except FileNotFoundError:
                self.fetch()
                continue
            if os.fstat(file.fileno()).st_size == self.size:
                self.touch()
                return file
            file.close()
            logger.warning("%s is damaged, so %s is fetched again.", self.path, self.url)
            self.path.unlink(missing_ok=True)

    def fetch(self) -> None:
        """Brings it here, unless it is. Raises ValueError where what lies there, or arrives, is not what was written,
        and OSError where it cannot be read."""
        self.cache.folder.mkdir(parents=True, exist_ok=True)
        lock = self.cache.folder / f".{self.path.name}.lock"
        with locked(lock, waiting_for=f"{self.url} to arrive"), names_full_disk(self.cache.folder):
            for attempt in itertools.count(1):
                if self.touch():
                    return
                target = self.cache.arriving(self.path, self.size)
                try:
                    error = self._copy(target.temporary)
                    if error is None:
                        target.commit()
                        return
                finally:
                    target.discard()
                if attempt == _ATTEMPTS:
                    raise error
                logger.warning("%s It is fetched again.", error)
                time.sleep(0.2 * 2**attempt)

    def _copy(self, target: Path) -> Exception | None:
        """Why what arrived is not the shard, in a sentence."""
        try:
            download(self.url, target)
        except Exception as error:  # every store's client raises its own kinds
            return OSError(f"{self.url} cannot be read ({type(error).__name__}: {error}).")
        size = target.stat().st_size
        if size != self.size:
            return ValueError(f"{self.url} has {size:,} bytes, {self.size:,} were written.")
        if self.known and (digest := file_sha256(target)) != self.digest:
            return ValueError(
                f"{self.url} arrived with SHA-256 {digest[:16]}…, its index says {self.digest[:16]}…: its bytes "
                "changed after it was indexed. Put back what was written, or prepare the catalog again."
            )
        return None


def shards_of(folder: Path, shards: Iterable[dict[str, Any]], cache: ShardCache | None) -> list[RemoteShard | None]:
    """Of the shards that an index of a prepared folder lists: those that lie elsewhere, None for the others."""
    cache, place = cache or ShardCache.below(folder.parent), place_of(folder)
    urls = [url_of(shard["name"], place) for shard in shards]
    return [
        RemoteShard(url, shard["size"], shard["sha256"], cache) if url else None
        for url, shard in zip(urls, shards, strict=True)
    ]


def url_of(name: str, place: str | None) -> str | None:
    """Of a shard that an index names; None: it lies on this machine. place: as `place_of` says."""
    if "://" in name:
        return name
    return f"{place}/{name}" if place and not Path(name).is_absolute() else None


def place_of(folder: Path) -> str | None:
    """The URL of the folder that a prepared folder's shards lie in; None: they lie in it, or are somebody else's."""
    path = folder / PLACE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises ImportError, in a sentence, where its client is missing."""
    url = with_plain_scheme(url)
    store = "/".join(url.split("/")[:3])
    system = _file_system(store, os.getpid())
    return system, system._strip_protocol(url)


@lru_cache(maxsize=64)
def _file_system(store: str, _process: int) -> Any:
    """One for all threads of a process: making a client costs more than fetching a shard."""
    import fsspec  # what lies on this machine needs none

    try:
        return fsspec.core.url_to_fs(store)[0]
    except ImportError as error:
        raise ImportError(_needs_package(store, error)) from error


def with_plain_scheme(url: str) -> str:
    """A URL whose scheme is in small letters, as file systems are registered; of other names no more.

    >>> with_plain_scheme("S3://Shop/A.csv"), with_plain_scheme("Shop/A.csv")
    ('s3://Shop/A.csv', 'Shop/A.csv')
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}://{rest}" if separator else url


def _needs_package(url: str, error: BaseException) -> str:
    scheme = url.partition("://")[0]
    command = install("s3") if scheme == "s3" else f"pip install {_PACKAGES.get(scheme, 'huggingface_hub')}"
    return f"{masked(url)} needs another package ({error}): {command}."


def unreachable(setting: str, url: str, error: Exception, done: str = "read") -> ValueError:
    """What a store's client raised for a URL, as a sentence."""
    if isinstance(error, ImportError):
        return ValueError(f"{setting}: {_needs_package(url, error.__cause__ or error)}")
    why = cause_of(error) or f"{type(error).__name__}: {masked(str(error))}"
    return ValueError(f"{setting}: {masked(url)} cannot be {done} ({why}).")


def download(url: str, target: Path) -> None:
    system, path = file_system(url)
    system.get_file(path, str(target))


def leads_inside(name: str) -> bool:
    """Whether a name, as a store gives it, is that of a file below the folder it is put into.

    >>> [leads_inside(name) for name in ("a/b.parquet", "/etc/passwd", "a//b", "../b")]
    [True, False, False, False]
    """
    return {"", ".", ".."}.isdisjoint(re.split(r"[/\\]", name))


def gigabytes(size: float) -> str:
    """
    >>> gigabytes(1_240_000_000), gigabytes(52_000)
    ('1.24 GB', '5.2e-05 GB')
    """
    return f"{size / 1e9:.3g} GB"
