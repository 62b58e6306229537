"""The processes of one run: they find each other within a time limit, and none outlives one that failed.

1. `started`: each rank writes into the launcher's key-value store that it is here, and waits for the others; those that
   are missing when the time is over are named
2. The process group is made at once, before anything heavy, with a time limit for every collective
3. A thread of each rank writes a heartbeat. Rank 0 reads all of them, the others rank 0's and whether a rank failed
4. A rank that fails leaves its sentence in the store; the others end with it, also those inside a collective, which
   nothing can interrupt but the end of the process. A rank that was killed says nothing: its heartbeat stops, and who
   notices tells the others. Rank 0, which may serve the store, ends when all have read why
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as distributed

from gcl.errors import ProcessLost, WorkerLost, interruption, sentence_of
from gcl.table import visible_lines

_BEAT = 1.0  # seconds between heartbeats
_SILENT = 30.0  # without a heartbeat, a rank is taken for lost
_DOUBT = 4.0  # the same where a collective has just broken off
_GRACE = 5.0  # in which a rank that learns of a failure may end by itself before its process is ended
_FAILED = "failed"
_LEFT = b"left"  # the last heartbeat of a rank that is done


class Place(NamedTuple):
    """This process among those of a run, and where rank 0 can be reached."""

    rank: int
    world: int
    address: str
    port: int


@contextmanager
def started(
    place: Place,
    *,
    backend: str,
    start_timeout: float,
    timeout: float,
    look: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """A process group over all ranks for the time of the context; where there is one already, that one.

    start_timeout: seconds for all ranks to begin. timeout: seconds for one collective. look: called while waiting for
    the others; may raise.
    Raises ProcessLost for ranks that do not begin, and in the place of an error that another rank's failure caused.
    """
    if distributed.is_initialized():
        yield
        return
    store = _meet(place, start_timeout, look)
    watch = _Watch(place, _connect(place, start_timeout))
    watch.start()
    try:
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world,
            timeout=timedelta(seconds=timeout),
        )
        yield
    except Exception as error:
        if isinstance(error, ProcessLost) and not isinstance(error, WorkerLost):
            raise
        if _broke_off(error) and (cause := watch.cause()):
            watch.tell(cause)
            raise ProcessLost(cause) from error
        watch.tell(f"Rank {place.rank} failed: {sentence_of(error)}")
        raise
    except BaseException as error:
        if interruption(error) is not None:
            watch.tell(f"Rank {place.rank} was interrupted.")
        raise
    finally:
        watch.leave()


def _broke_off(error: Exception) -> bool:
    """Whether an exchange with other ranks failed, which may be their fault; gloo's errors are known by their text."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _connect(place: Place, timeout: float) -> distributed.Store:
    """A connection of its own to the store, which torchrun's agent serves, or else rank 0."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = distributed.TCPStore(
            place.address,
            place.port,
            place.world,
            is_master=place.rank == 0 and not agent,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (distributed.DistError, RuntimeError) as error:
        raise ProcessLost(
            f"Rank {place.rank}: rank 0 does not answer at {place.address}:{place.port} after {timeout:g} s "
            "(trainer.start_timeout). Look at its output, and whether this machine can reach that address and port."
        ) from error
    return distributed.PrefixStore(f"gcl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _meet(place: Place, timeout: float, look: Callable[[], None]) -> distributed.Store:
    deadline = time.monotonic() + timeout
    store = _connect(place, timeout)
    store.set(_here(place.rank), json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
    store.set(_beat(place.rank), "0")
    missing = [rank for rank in range(place.world) if rank != place.rank]
    while missing:
        with suppress(distributed.DistError, RuntimeError):  # rank 0, which serves the store, has waited long enough
            missing = [rank for rank in missing if not store.check([_here(rank)])]
        look()
        if missing and time.monotonic() > deadline:
            ranks = f"rank {missing[0]}" if len(missing) == 1 else f"ranks {', '.join(map(str, missing[:20]))}"
            raise ProcessLost(
                f"Rank {place.rank}: {ranks} of {place.world} did not begin within {timeout:g} s "
                "(trainer.start_timeout): look at the output of those processes, and start all of them again."
            )
        time.sleep(0.1)
    return store


def _here(rank: int) -> str:
    return f"here/{rank}"


def _beat(rank: int) -> str:
    return f"beat/{rank}"


class _Watch(threading.Thread):
    """Steps 3 and 4, over a connection to the store that nothing else uses."""

    def __init__(self, place: Place, store: distributed.Store) -> None:
        super().__init__(daemon=True, name="gcl-ranks")
        self.place, self.store = place, store
        self._left = threading.Event()
        self._known: str | None = None  # why the run ends, once this thread has read it
        self._watched = [rank for rank in range(place.world) if rank != place.rank and 0 in (place.rank, rank)]
        self._seen = {rank: (b"", time.monotonic()) for rank in self._watched}
        self._count = 0
        self._turn = threading.Lock()  # the connection answers one thread at a time

    def run(self) -> None:
        while not self._left.wait(_BEAT):
            self._known = self._look(_SILENT)
            if self._known is None:
                continue
            self.tell(self._known)
            self._say_left()
            if not self._left.wait(_GRACE):
                print(f"\ngcl: {visible_lines(self._known)}", file=sys.stderr, flush=True)
                os._exit(1)  # the main thread is inside a collective, which never ends

    def _look(self, silent: float) -> str | None:
        """What has gone wrong elsewhere, in a sentence; this rank's own heartbeat on the way."""
        with self._turn:
            try:
                self._count += 1
                self.store.set(_beat(self.place.rank), str(self._count))
                if self.store.check([_FAILED]):
                    told = json.loads(self.store.get(_FAILED))
                    return told["sentence"] if told["rank"] != self.place.rank else None
                return self._silent(silent)
            except (distributed.DistError, RuntimeError):  # the process that serves the store has ended
                return self._lost(0) if self.place.rank and self._seen[0][0] != _LEFT else None

    def _silent(self, seconds: float) -> str | None:
        now = time.monotonic()
        for rank in self._watched:
            beat = self.store.get(_beat(rank))
            if beat != self._seen[rank][0]:
                self._seen[rank] = (beat, now)
            elif beat != _LEFT and now - self._seen[rank][1] > seconds:
                return self._lost(rank)
        return None

    def _lost(self, rank: int) -> str:
        where = ""
        with suppress(distributed.DistError, RuntimeError):
            place = json.loads(self.store.get(_here(rank)))
            where = f" (process {place['pid']} on {place['host']})"
        return (
            f"Rank {rank}{where} was lost: it no longer answers, so it was killed (most often for memory) or its "
            "machine is gone. Continue with train.resume=auto and the same run_dir."
        )

    def cause(self) -> str | None:
        """Called where a collective has broken off: what another rank said, or which one no longer answers."""
        deadline = time.monotonic() + 2 * _DOUBT
        while time.monotonic() < deadline:
            if cause := self._known or self._look(_DOUBT):
                return cause
            time.sleep(0.2)
        return None

    def tell(self, sentence: str) -> None:
        """Leaves for the others why the run ends; the first one counts."""
        told = json.dumps({"rank": self.place.rank, "sentence": " ".join(sentence.split())[:2000]})
        with self._turn, suppress(distributed.DistError, RuntimeError):
            self.store.compare_set(_FAILED, "", told)

    def _say_left(self) -> None:
        with self._turn, suppress(distributed.DistError, RuntimeError):
            self.store.set(_beat(self.place.rank), _LEFT.decode())

    def leave(self) -> None:
        """This rank is done: its silence means nothing from now on. Rank 0, which may be serving the store, waits until
        the others are done or have had the time to read why it ends."""
        self._left.set()
        deadline = time.monotonic() + 2 * _GRACE
        self._say_left()
        with self._turn, suppress(distributed.DistError, RuntimeError):
            while self.place.rank == 0 and time.monotonic() < deadline and not all(map(self._is_gone, self._watched)):
                time.sleep(0.1)

    def _is_gone(self, rank: int) -> bool:
        """Whether a rank is done, or its heartbeat has stopped."""
        now, beat = time.monotonic(), self.store.get(_beat(rank))
        if beat != self._seen[rank][0]:
            self._seen[rank] = (beat, now)
        return beat == _LEFT or now - self._seen[rank][1] > 2 * _DOUBT
