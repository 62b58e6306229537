"""Arrays that may be larger than memory: small ones lie in it, large ones in a file on disk that is mapped."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

IN_MEMORY = 1 << 30  # bytes; an array larger than that is a mapped file


def blank(shape: tuple[int, ...], *, folder: str | Path | None = None, in_memory: int = IN_MEMORY) -> np.ndarray:
    """Zeros, float32. Beyond `in_memory` bytes they lie in a file of `folder` (the system's own for temporary files if
    None) that has no name and is gone with the array.

    Raises OSError, with what is missing, where the disk cannot hold it.

    >>> blank((2, 2)).tolist(), isinstance(blank((2, 2), in_memory=0), np.memmap)
    ([[0.0, 0.0], [0.0, 0.0]], True)
    """
    size = 4 * math.prod(shape)
    if size <= in_memory or not size:
        return np.zeros(shape, dtype=np.float32)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, size, folder or tempfile.gettempdir())
        return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)


def reserve(file: BinaryIO, size: int, place: str | Path) -> None:
    """Makes the file `size` bytes long and sure to be there: a mapped file that outgrows the disk kills the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            os.truncate(file.fileno(), size)
    except OSError as error:
        raise OSError(
            f"{place} cannot hold {size / 1e9:.1f} GB of embeddings ({error.strerror}): free space there, or name "
            "another place with cache_dir (TMPDIR for what is not kept)."
        ) from error
