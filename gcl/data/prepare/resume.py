"""Shrunk pictures, kept while a catalog is being prepared: an interrupted `prepare` goes on with them.

What is kept has the form of a finished piece (see parts.py), so the next run finds it there; it is removed when the
catalog is prepared. Until then such pictures are on the disk twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gcl.data.prepare.distinct import Checked
from gcl.data.prepare.parts import finish_piece
from gcl.data.store.shard_writer import ShardWriter
from gcl.schema import Field

_SECONDS = 30.0  # of work that a kill may cost ...
_SHARE = 0.05  # ... or this share of all work so far: days of it must not end in thousands of open files
_SHARD_BYTES = 512 << 20


class KeptWork:
    """A context manager; called with a row's raw key and its checked record, it keeps them."""

    def __init__(self, folder: Path, prefix: str, side: Mapping[str, Field]) -> None:
        self.folder, self.prefix, self.side = folder, prefix, side
        self._writer: ShardWriter | None = None
        self._start = time.monotonic()

    def __enter__(self) -> KeptWork:
        return self

    def __call__(self, raw: bytes, checked: Checked) -> None:
        if self._writer is None:
            self._place = self.folder / f"kept-{self.prefix}-{time.time_ns()}"
            self._place.mkdir(parents=True)
            self._writer = ShardWriter(self._place, self.prefix, side=self.side, shard_bytes=_SHARD_BYTES).__enter__()
            self._begun, self._seen = time.monotonic(), set()
        if raw not in self._seen:
            self._seen.add(raw)
            self._writer.write(raw.hex() + checked.key.hex(), checked.record)
        now = time.monotonic()
        if now - self._begun >= max(_SECONDS, _SHARE * (now - self._start)):
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.__exit__(None, None, None)
            finish_piece(self._place, {})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        else:
            with suppress(OSError):  # the disk is full, say: what interrupts is told, and older pieces are whole
                self._finish()
