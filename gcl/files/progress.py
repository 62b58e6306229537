"""One line that says how far a long job is: rewritten in place on a terminal, logged now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
logger = logging.getLogger(__name__)


def counted(items: Iterable[Item], label: str, *, shown: bool) -> Iterator[Item]:
    """Passes `items` on and shows how many there were and how fast: every half second, or every 30 s in a log."""
    if not shown:
        yield from items
        return
    terminal = sys.stderr.isatty()
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= (0.5 if terminal else 30):
            last, line = now, f"{label}: {count:,}, {count / (now - start):,.0f} a second"
            if terminal:
                print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
            else:
                logger.info(line)
    if terminal and last != start:
        print(f"\r{label}: {count:,} in {time.monotonic() - start:.1f} s\x1b[K", file=sys.stderr, flush=True)
