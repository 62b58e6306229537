"""Files that are whole or not there: written under another name in the same folder, synchronised, renamed.

Whoever finds a file under its name finds all of it, whatever was killed or ran out of space while it was written; a
file that is replaced stays valid until the new one takes its place.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gcl.table import readable_json

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_IN_WORDS = ("No space left on device", "os error 28", "[Errno 28]", "File too large", "os error 27")
PARTIAL = ".partial"  # the suffix of a file that is being written


class NotWritten(OSError):
    """A sentence about what could not be written, and what to do."""


class DiskFull(NotWritten):
    """One of those, because no space is left."""


@contextmanager
def names_full_disk(path: str | Path) -> Iterator[None]:
    """Raises DiskFull, which names `path`, in the place of what a library raises when no space is left.

    The operating system's own error names no file, and libraries wrap it in errors of many kinds.
    """
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        if not _says_full(error):
            raise
        raise DiskFull(
            f"No space is left to write {path}: free some, or name another place, and run the same command again."
        ) from error


def _says_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error) for words in _FULL_IN_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


class Replacement:
    """A file that is being written: `commit` puts it in the place of `path`, `discard` removes it.

    The temporary name is new for every object, so several processes may write the same file: the last one wins. Makes
    the folder if there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.temporary = self.path.with_name(f".{self.path.name[:40]}.{secrets.token_hex(6)}{PARTIAL}")

    def commit(self) -> None:
        synchronize(self.temporary)  # before the rename: a name must never be on the disk before the content is
        os.replace(self.temporary, self.path)
        synchronize(self.path.parent)

    def discard(self) -> None:
        self.temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes the files of a folder that processes were killed while writing."""
    for left in folder.glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a path to write to, which replaces `path` when the block ends and is removed if it raises.

    The block writes the file and closes it; see Replacement.
    """
    replacement = Replacement(path)
    try:
        with names_full_disk(path):
            yield replacement.temporary
            replacement.commit()
    finally:
        replacement.discard()


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Writes or replaces a file; returns its path."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Writes or replaces a file in UTF-8, with the text's own line ends; returns its path.

    A lone surrogate, which is in no valid text but in some tables, becomes a question mark.
    """
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_json(path: str | Path, content: Any, *, ascii: bool = True) -> Path:
    """Writes or replaces a JSON file, indented by two spaces; returns its path. ascii: escape all other characters."""
    return write_text(path, (json.dumps(content, indent=2) if ascii else readable_json(content, indent=2)) + "\n")


def link(source: Path, target: Path) -> None:
    """A second name of a file; a copy where the file system knows no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def synchronize(path: Path) -> None:
    """Waits until a file, or a folder's list of names, has reached the disk."""
    if os.name == "nt":
        if path.is_dir():  # Windows opens no folders, and keeps their names by itself
            return
        descriptor = os.open(path, os.O_RDWR)  # nor does it synchronise a file opened for reading
    else:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
