"""One process of a machine at a time; the lock falls with its process, however that ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows: what is written under a lock is renamed into place, so a race costs time only
    fcntl = None

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, waiting_for: str) -> Iterator[None]:
    """Holds the lock file `path`; `waiting_for` completes the sentence of those who have to wait."""
    if fcntl is None:
        yield
        return
    with _opened_and_locked(path, waiting_for):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _opened_and_locked(path: Path, waiting_for: str) -> TextIO:
    while True:
        file = open(path, "w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another process is at work: waiting for %s.", waiting_for)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            logger.warning("%s cannot be locked (%s).", path, error)
            return file
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        # its holder removed it while we waited, and somebody may hold the next one
        file.close()
