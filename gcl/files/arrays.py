"""Arrays that may be larger than memory: mapped from scratch files, or kept in a folder that forgets the least used.

An `ArrayCache` is a folder of .npy files, each named by a digest of everything its content depends on. An entry appears
under its name when it is whole, and ends with a seal, the SHA-256 of its bytes, which the first use in a process
compares: an entry is never wrong, only missing. Beyond the limit, what was used longest ago goes first.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gcl.files.atomic import PARTIAL, replacing
from gcl.files.digest import add_file

IN_MEMORY = 1 << 30
"""Bytes. A larger array is a mapped file."""

Allocate = Callable[[tuple[int, ...]], np.ndarray]
"""shape -> zeros, float32"""

_SEAL = b"\ngcl-sha256\n"  # begins what follows an array in its file; numpy reads no further than the array
_SEAL_BYTES = len(_SEAL) + hashlib.sha256().digest_size
_SEALED: set[tuple[str, int, int, int]] = set()
"""Path, inode, size and time of writing of the entries that this process has compared; a new file may get the inode of
one that was removed."""

_ABANDONED = 86_400  # seconds after which an unfinished file belongs to nobody

_OWN = re.compile(r"(.*-)?[0-9a-f]{24,64}")  # a digest, which is what entries are called

logger = logging.getLogger("gcl")


def blank(shape: tuple[int, ...], *, folder: str | Path | None = None, in_memory: int = IN_MEMORY) -> np.ndarray:
    """Zeros, float32. Beyond `in_memory` bytes they are mapped from a nameless file in `folder` (None: the system's
    folder for temporary files), which disappears with the array.

    Raises OSError, saying how much is missing, where the disk cannot hold it.

    >>> blank((2, 2)).tolist(), isinstance(blank((2, 2), in_memory=0), np.memmap)
    ([[0.0, 0.0], [0.0, 0.0]], True)
    """
    size = 4 * math.prod(shape)
    if size <= in_memory or not size:
        return np.zeros(shape, dtype=np.float32)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file, size, folder or tempfile.gettempdir())
        return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A new .npy file of zeros, mapped."""
    with open(path, "w+b") as file:
        header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start, size = file.tell(), 4 * math.prod(shape)
        if not size:
            return np.zeros(shape, dtype=np.float32)
        _reserve(file, start + size, path.parent)
        return np.memmap(file, dtype=np.float32, mode="r+", shape=shape, offset=start)


def _reserve(file: BinaryIO, size: int, place: str | Path) -> None:
    """Allocates `size` bytes of disk to the file: a mapped file that outgrows the disk kills the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            os.truncate(file.fileno(), size)
    except OSError as error:
        raise OSError(
            f"{place} cannot hold an array of {size / 1e9:.1f} GB ({error.strerror}): free space there, or set "
            "another folder as cache_dir (TMPDIR for arrays that are not cached)."
        ) from error


def _seal(path: Path) -> None:
    with open(path, "r+b") as file:
        digest = hashlib.sha256()
        add_file(digest, file)
        file.write(_SEAL + digest.digest())


def _is_sealed(path: Path) -> bool:
    """Whether a file's bytes are those that were sealed; read once in a process."""
    with open(path, "rb") as file:
        about = os.fstat(file.fileno())
        known = (str(path), about.st_ino, about.st_size, about.st_mtime_ns)
        if known in _SEALED:
            return True
        content = about.st_size - _SEAL_BYTES
        file.seek(max(content, 0))
        seal = file.read()
        if not seal.startswith(_SEAL):
            return False
        file.seek(0)
        digest = hashlib.sha256()
        add_file(digest, file, content)
        if seal[len(_SEAL) :] == digest.digest():
            _SEALED.add(known)
    return known in _SEALED


@dataclass(frozen=True)
class ArrayCache:
    """A folder of arrays and the bytes it may hold."""

    folder: Path
    limit: int = 20 << 30

    def load(self, name: str, rows: int) -> np.ndarray | None:
        """The entry, memory-mapped (changes to it are not written), or None if it is not there as it was written."""
        path = self._path(name)
        try:
            if not _is_sealed(path):
                logger.warning(f"note: {path} is damaged, or of an earlier version: it is made again.")
                return None
            array = np.load(path, mmap_mode="c")
            with suppress(OSError):  # of a folder that may only be read
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # used now, written as before
        except (OSError, ValueError, EOFError):
            return None
        return array if len(array) == rows else None

    def make(
        self, name: str, make: Callable[[Allocate], np.ndarray], *, in_memory: int = IN_MEMORY, required: bool = False
    ) -> np.ndarray:
        """What `make(allocate)` returns, put into the folder under `name`; `make` fills the array it has allocated.

        An array of more than `in_memory` bytes is written into the folder's file while it is made. One larger than the
        limit is not kept, and a folder that cannot be written is a warning: both cost time, not the result.
        required: the entry is kept in any case, or OSError is raised; `prune` is left to the caller.
        """
        written = kept = False
        array = None

        def allocate(shape: tuple[int, ...]) -> np.ndarray:
            nonlocal written, kept
            size = 4 * math.prod(shape)
            kept = required or size <= self.limit
            written = kept and size > in_memory
            if not written:
                return blank(shape, folder=self.folder, in_memory=in_memory)
            temporary = stack.enter_context(replacing(self._path(name)))
            stack.callback(_seal, temporary)
            return _mapped(temporary, shape)

        try:
            with ExitStack() as stack:  # at whose end the file that was written takes its name
                array = make(allocate)
                if isinstance(array, np.memmap):
                    array.flush()
            if kept and not written:
                self.put(name, array)
            if kept and not required:
                self.prune({name})
        except OSError as problem:
            if required or array is None:
                raise
            logger.warning(f"note: embeddings could not be kept in {self.folder} ({problem.strerror or problem}).")
        return array

    def prune(self, used: Collection[str] = ()) -> int:
        """Removes what was used longest ago until the folder is within its limit, never the entries `used` (by name).
        Returns the number of bytes removed."""
        now, entries, removed = time.time(), [], 0
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            try:
                about = path.stat()
            except FileNotFoundError:  # another process prunes, too
                continue
            if path.suffix == PARTIAL and now - about.st_mtime > _ABANDONED:
                path.unlink(missing_ok=True)
            elif path.suffix == ".npy" and _OWN.fullmatch(path.stem):  # whatever else somebody's folder holds stays
                entries.append((about.st_atime, about.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total - removed <= self.limit:
                break
            if path.stem not in used:
                path.unlink(missing_ok=True)  # a process that has it mapped keeps it
                removed += size
        return removed

    def put(self, name: str, array: np.ndarray) -> None:
        """Keeps an array of any type, whatever the limit. Raises OSError where it cannot be written."""
        with replacing(self._path(name)) as path:
            with open(path, "wb") as file:
                np.save(file, array)
            _seal(path)

    def holds(self, name: str) -> bool:
        """Whether there is an entry, which only `load` compares with its digest."""
        return self._path(name).is_file()

    def remove(self, name: str) -> None:
        """Removes an entry, if there is one."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"
