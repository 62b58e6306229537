"""How far a long job is, and how much time is left: on a terminal one line, which is gone at the end; in a log a line
now and then. Short jobs show nothing.

`counted` and `Count` are for what can be counted, `doing` for what cannot, `Stages` for a job of several parts. They
are silent in threads other than the main one, and where the logger does not speak (on ranks other than the first).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Total = int | Callable[[], int | None] | None
logger = logging.getLogger(__name__)
TERMINAL_DELAY, TERMINAL_SECONDS = 1.0, 0.2  # until a job is first shown; between two of its displays
LOG_DELAY, LOG_SECONDS = 10.0, 30.0
_RARER = 0.05  # of a job's time so far: the least between two lines of a log


class _Line(tqdm):
    """A line of the terminal. Several at once are below each other; what is written meanwhile appears above them."""

    monitor_interval = 0  # no thread of tqdm's own: worker processes are forked while a line is shown

    def __init__(self, text: str, *, label: str = "", total: int | None = None, form: str = "{text}") -> None:
        self.text = text
        super().__init__(desc=label, total=total, leave=False, dynamic_ncols=True, bar_format=form, file=sys.stderr)

    def show(self, text: str) -> None:
        self.text = text
        self.refresh()

    @property
    def format_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().format_dict
        room = (state["ncols"] or 100) - len(self.desc) - (32 if self.total else 3)  # beside the bar
        return {**state, "text": self.text[: max(room, 0)]}


def above_progress() -> AbstractContextManager[None]:
    """What is written in its block appears above the lines that are shown."""
    return tqdm.external_write_mode(file=sys.stderr)


class Count:
    """A job whose parts are counted. A context manager.

    total: how many there will be, or a function that says how many that will be about, asked whenever it is shown;
    None: nobody knows. unit: what is counted, in the singular. done: how many there were before, of a job that goes on.
    """

    def __init__(
        self, label: str, *, total: Total = None, unit: str = "row", done: int = 0, shown: bool = True
    ) -> None:
        self.label, self.unit, self.done = label, unit, done
        self._expected: Callable[[], int | None] | None = total if callable(total) else None
        self.total: int | None = None if callable(total) else total
        self._before, self._begun = done, time.monotonic()
        self._line: _Line | None = None
        self._logged = False
        self._next = float("inf")  # when it is shown again
        if shown and _speaks():
            self._next = self._begun + (TERMINAL_DELAY if sys.stderr.isatty() else LOG_DELAY)

    def __enter__(self) -> Count:
        return self

    def __exit__(self, *_: object) -> None:
        self._next = float("inf")
        if self._line is not None:
            self._line.close()
        elif self._logged:
            took = duration(time.monotonic() - self._begun)
            logger.info(f"{self.label}: {self.done:,} {several(self.unit, self.done)} in {took}")

    def add(self, number: int = 1, note: Callable[[], str] | None = None) -> None:
        """So many more are done. note: gives what else is shown."""
        self.done += number
        now = time.monotonic()
        if now < self._next:
            return
        if self._expected is not None:
            self.total = self._expected()
        text = ", ".join(filter(None, [self._so_far(), self._pace(now - self._begun), note and note()]))
        if sys.stderr.isatty():
            self._display(text)
            self._next = now + TERMINAL_SECONDS
        else:
            logger.info(f"{self.label}: {text}")
            self._logged = True
            self._next = now + max(LOG_SECONDS, _RARER * (now - self._begun))

    def _display(self, text: str) -> None:
        if self._line is None:
            form = "{desc}: {percentage:3.0f}% |{bar:20}| {text}" if self.total else "{desc}: {text}"
            self._line = _Line(text, label=self.label, total=self.total, form=form)
        self._line.total, self._line.n = self.total, self.done
        self._line.show(text)

    def _so_far(self) -> str:
        if self.total is None or self._expected is not None:
            return f"{self.done:,} {several(self.unit, self.done)}"
        return f"{self.done:,} of {self.total:,} {several(self.unit, self.total)}"

    def _pace(self, seconds: float) -> str:
        mine = self.done - self._before
        if self.total is None or mine <= 0:
            return f"{mine / seconds:,.0f} per second" if seconds > 0 else ""
        return f"{duration(seconds / mine * (self.total - self.done))} left" if self.done < self.total else ""


def counted(
    items: Iterable[Item],
    label: str,
    *,
    shown: bool = True,
    total: Total = None,
    unit: str = "row",
    size: Callable[[Item], int] | None = None,
) -> Iterator[Item]:
    """Passes `items` on and shows how many there were, and how long the others will take.

    total: as of a Count, by default the length of `items` where it has one. unit: what is counted, in the singular.
    size: how many units one item is; 1 by default.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Count(label, total=total, unit=unit, shown=shown) as count:
        for item in items:
            yield item
            count.add(1 if size is None else size(item))


class Stages:
    """Says what a job is doing. A context manager.

    In a log the first stage has a line, and later ones where the last line is LOG_SECONDS old.
    """

    def __init__(self, label: str, *, shown: bool = True) -> None:
        self.label, self.shown = label, shown
        self._line: _Line | None = None
        self._logged = float("-inf")

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.close()

    def begin(self, stage: str) -> None:
        """The job has come to this stage."""
        if not self.shown or not _speaks():
            return
        text = f"{self.label}: {stage} …"
        if sys.stderr.isatty():
            if self._line is None:
                self._line = _Line(text)
            self._line.show(text)
        elif (now := time.monotonic()) >= self._logged + LOG_SECONDS:
            logger.info(text)
            self._logged = now


class doing:
    """A block that takes its time and cannot be counted: a line of the terminal while it runs, and one of a log after
    it where it took LOG_DELAY seconds or more."""

    def __init__(self, what: str, *, shown: bool = True) -> None:
        self.what, self.shown = what, shown
        self._line: _Line | None = None

    def __enter__(self) -> None:
        self._begun = time.monotonic()
        if self.shown and _speaks() and sys.stderr.isatty():
            self._line = _Line(f"{self.what} …")

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        seconds = time.monotonic() - self._begun
        if self._line is not None:
            self._line.close()
        elif error is None and seconds >= LOG_DELAY and self.shown and _speaks():
            logger.info(f"{self.what}: {duration(seconds)}")


def duration(seconds: float) -> str:
    """
    >>> duration(1.84), duration(42.3), duration(600), duration(36_000)
    ('1.8 s', '42 s', '10 min', '10.0 h')
    """
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def several(unit: str, number: int) -> str:
    """The plural unless it is one.

    >>> several("batch", 1), several("batch", 2), several("query", 2)
    ('batch', 'batches', 'queries')
    """
    if number == 1:
        return unit
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}es" if unit.endswith("ch") else f"{unit}s"


def _speaks() -> bool:
    return threading.current_thread() is threading.main_thread() and logger.isEnabledFor(logging.WARNING)
