"""One process at a time; the lock falls with its process, however that ends.

`locked` waits for its turn; `owned` is for what a process has for hours: others are refused, and told who has it.

1. The lock file is locked by the operating system (flock on Unix, LockFileEx on Windows) and removed by its holder
   before the lock is given back. Those who wait open it anew for every attempt.
2. A file system without such locks gets a soft lock: a second file that exists while the lock is held and names its
   holder. One that a killed process of this machine left is taken over; one of another machine has to be removed by
   hand, so those who wait for it are told its name.
3. The owner of something writes its host, process and a beat that it counts up into a file. It is dead when its process
   is gone from this host, or when another host's beat stands still.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from gcl.files.atomic import write_json

logger = logging.getLogger(__name__)
_SECONDS = 0.2  # between two attempts
_BEAT = 10.0  # seconds between two signs of life of an owner
_SILENCE = 45.0  # after which it is dead
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


@dataclass(frozen=True)
class Owner:
    """A process that has something. began: what tells it from an earlier process of the same number."""

    host: str
    pid: int
    began: str
    since: str
    beat: int = 0

    @staticmethod
    def this_process() -> Owner:
        return Owner(_host(), os.getpid(), _began(os.getpid()), time.strftime("%Y-%m-%d %H:%M:%S"))

    @staticmethod
    def read(path: Path) -> Owner | None:
        """The owner that a file names; None where there is none, or nothing that this wrote."""
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            return Owner(str(said["host"]), int(said["pid"]), str(said["began"]), str(said["since"]), int(said["beat"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def is_alive(self, path: Path) -> bool:
        if self.host == _host() and os.name != "nt":
            return _began(self.pid) == self.began != ""
        logger.info("%s may belong to %s: waiting up to %d seconds for a sign of life.", path.parent, self, _SILENCE)
        end = time.monotonic() + _SILENCE
        while time.monotonic() < end:
            time.sleep(_SECONDS)
            if (now := Owner.read(path)) is None:
                return False
            if now.beat != self.beat or now.began != self.began:
                return True
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}, since {self.since}"


@contextmanager
def owned(path: Path, *, what: str) -> Iterator[None]:
    """Has what the file `path` stands for until the block ends; the file names the owner meanwhile.

    Raises ValueError, naming the owner, where another process has it. What a dead owner left is taken over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.taking"), waiting_for=what):
        if before := Owner.read(path):
            if before.is_alive(path):
                raise ValueError(f"{what} is in use by {before}: wait until it has ended, or choose another one.")
            logger.warning(f"Taking over {what} from {before}, which has ended without giving it back.")
        me = Owner.this_process()
        write_json(path, asdict(me))
    ended = threading.Event()

    def live(owner: Owner = me) -> None:
        while not ended.wait(_BEAT):
            owner = replace(owner, beat=owner.beat + 1)
            with suppress(OSError):  # a full disk is told by those who write what counts
                write_json(path, asdict(owner))

    beating = threading.Thread(target=live, daemon=True, name="gcl-owner")
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(OSError):
            path.unlink()


def shows_life(path: Path) -> bool:
    """Whether the owner that the file `path` names has given a sign of life lately; nothing is waited for."""
    try:
        return time.time() - path.stat().st_mtime < _SILENCE
    except OSError:
        return False


def _host() -> str:
    """This machine, and on Linux the space in which its process numbers count: a container has one of its own."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _began(pid: int) -> str:
    """What tells a running process of this machine from an earlier one of its number; "" where none is running."""
    if Path("/proc/self/stat").exists():
        try:
            state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else facts[18]  # when it began; a zombie has ended
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
