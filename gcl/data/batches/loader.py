"""A loader that knows which batch it is waiting for, and a thread that says so when that takes too long."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch.utils.data import DataLoader

from gcl.data.batches.read_ahead import ReadAhead
from gcl.errors import WorkerLost

logger = logging.getLogger(__name__)
PATIENCE = 60.0  # seconds without a batch


class WatchedLoader(DataLoader):
    """A DataLoader that knows what it is waiting for: (index, since when), and how long it has waited in all."""

    waiting: tuple[int, float] | None = None
    waited: float = 0.0
    ahead: ReadAhead | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares its private iterator class
        batches = super().__iter__()  # forks the workers before there is a thread whose locks they inherit
        with self.ahead.running(self.sampler) if self.ahead else nullcontext():
            yield from self._watched(batches)

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        for index in self.sampler:
            if self.ahead:
                self.ahead.at(index)
            begun = time.monotonic()
            self.waiting = (index, begun)
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                raise _in_a_sentence(error) from None
            finally:
                self.waiting = None
                self.waited += time.monotonic() - begun
            yield batch


_KILLED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


def _in_a_sentence(error: Exception) -> Exception:
    """An error that torch brings from a worker without the worker's traceback, which it puts into the message."""
    text = str(error)
    if (killed := _KILLED.search(text)) or isinstance(error, ConnectionError | EOFError):  # its pipe broke first
        pid = f" (pid {killed[1]})" if killed else ""
        return WorkerLost(
            f"A process that reads data{pid} was killed, most often because memory ran out: lower "
            "train.workers, or set data.store.image_side so that smaller images are read. Continue with "
            "train.resume=auto and the same run_dir."
        )
    if text.startswith("Caught ") and "Original Traceback" in text and isinstance(error, ValueError | OSError):
        kind, _, sentence = text.rstrip().rpartition("\n")[2].partition(": ")
        return type(error)(sentence or kind)
    return error


@contextmanager
def lost_workers_in_sentences() -> Iterator[None]:
    """Around whatever a loader reads for: that a worker was killed is raised anywhere in the main thread, by the
    handler of the signal that says so."""
    try:
        yield
    except RuntimeError as error:
        raise _in_a_sentence(error) from error


class Watch:
    """While the block runs: for every `seconds` in which the loader gives no batch, one sentence about what it reads.

    place: `(index) -> str`, where the batch of that index begins. what: the name of such a batch ("Step").
    """

    def __init__(
        self, loader: WatchedLoader, place: Callable[[int], str], *, what: str, rank: int = 0, seconds: float = PATIENCE
    ) -> None:
        self.loader, self.place, self.what, self.rank, self.seconds = loader, place, what, rank, seconds
        self._stop = threading.Event()

    def __enter__(self) -> Watch:
        threading.Thread(target=self._run, name="loader watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        told: tuple[int, int] | None = None
        while not self._stop.wait(min(1.0, self.seconds / 4)):
            if (waiting := self.loader.waiting) is None:
                continue
            index, since = waiting
            periods = int((time.monotonic() - since) / self.seconds)
            if periods and (index, periods) != told:
                told = (index, periods)
                # Every rank may say this: rank 1's loader can hang while rank 0 waits in a collective.
                logger.error(
                    "Rank %d: the data loader has given no batch for %.0f s. %s %d begins at %s. Can that file be "
                    "read, and do the loader's workers (train.workers) still run?",
                    self.rank, periods * self.seconds, self.what, index, self.place(index),
                )  # fmt: skip
