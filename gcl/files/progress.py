"""How far a long job is: a bar on a terminal, a line every 30 seconds in a log."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
logger = logging.getLogger(__name__)
LOG_SECONDS = 30.0  # between two lines of a log; a job that is shorter writes none


class _Bar(tqdm):
    monitor_interval = 0  # no thread of tqdm's own: worker processes are forked while a bar is shown


class _LogLines(_Bar):
    """A bar whose every display is a line of the log."""

    def display(self, *_: Any, **__: Any) -> None:
        state = self.format_dict
        total = f" of {state['total']:,}" if state["total"] is not None else ""
        rate = state["n"] / state["elapsed"] if state["elapsed"] else 0.0
        logger.info(f"{self.desc}: {state['n']:,}{total}, {rate:,.0f} {state['unit']}s per second")


def counted(
    items: Iterable[Item],
    label: str,
    *,
    shown: bool = True,
    total: int | None = None,
    unit: str = "row",
    size: Callable[[Item], int] | None = None,
) -> Iterator[Item]:
    """Passes `items` on and shows how many there were and how fast.

    total: how many there will be, by default the length of `items` where it has one. unit: what is counted, in the
    singular. size: how many units one item is; 1 by default.
    """
    if not shown:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    options: dict[str, Any] = {"desc": label, "total": total, "unit": unit, "miniters": 1}
    if sys.stderr.isatty():
        bar = _Bar(**options, unit_scale=total is None or total >= 10_000, mininterval=0.2)
    else:
        bar = _LogLines(**options, mininterval=LOG_SECONDS, delay=LOG_SECONDS, file=io.StringIO())  # displays elsewhere
    with bar:
        for item in items:
            yield item
            bar.update(1 if size is None else size(item))


class Stages:
    """Says on stderr what a job is doing, so that it is never silent: on a terminal in one line, which is written anew
    and is gone at the end; elsewhere in one line per stage. A context manager."""

    def __init__(self, label: str, *, shown: bool = True) -> None:
        self.label, self.shown = label, shown
        self._length = 0

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def begin(self, stage: str) -> None:
        """The job has come to this stage."""
        self._write(f"{self.label}: {stage} …")

    def _write(self, line: str) -> None:
        if not self.shown:
            return
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{line:<{self._length}}\r{line}")
            self._length = len(line)
        elif line:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
