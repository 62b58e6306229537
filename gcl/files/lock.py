"""One process at a time; the lock falls with its process, however that ends.

1. The lock file is locked by the operating system (flock on Unix, LockFileEx on Windows) and removed by its holder
   before the lock is given back. Those who wait open it anew for every attempt.
2. A file system without such locks gets a soft lock: a second file that exists while the lock is held and names its
   holder. One that a killed process of this machine left is taken over; one of another machine has to be removed by
   hand, so those who wait for it are told its name.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

logger = logging.getLogger(__name__)
_SECONDS = 0.2  # between two attempts
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def locked(path: Path, *, waiting_for: str) -> Iterator[None]:
    """Holds the lock file `path`; `waiting_for` completes the sentence of those who have to wait.

    Raises OSError where the lock file cannot be made, for example in a folder that only others may write.
    """
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        _acquire(lock, f"{waiting_for}.")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        with suppress(OSError):
            path.unlink()  # the attempt made it
        held = path.with_name(f"{path.name}.held")
        lock = SoftFileLock(held)
        _acquire(lock, f"{waiting_for} (should that one be killed on another machine, remove {held}).")
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            path.unlink()
        lock.release()


def _acquire(lock: BaseFileLock, sentence: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another process is at work: waiting for %s", sentence)
        lock.acquire(poll_interval=_SECONDS)
