"""SHA-256 of files and texts, in hexadecimal digits."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import BinaryIO, Protocol

_BLOCK = 1 << 20


class Digest(Protocol):
    """An object of hashlib."""

    def update(self, data: bytes, /) -> None: ...


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        add_file(digest, file)
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8.

    >>> text_sha256("")[:16]
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(text.encode()).hexdigest()


def add_file(digest: Digest, file: BinaryIO, size: int = sys.maxsize) -> None:
    """Adds the rest of an open file, or its next `size` bytes, to a hash, a block at a time."""
    while block := file.read(min(_BLOCK, size)):
        digest.update(block)
        size -= len(block)
