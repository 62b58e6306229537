"""Judging with several people: who gets which pair, what they said, and what it comes to.

1. A judge gets the first pair of the pool that nobody has graded; of a share of the pairs, chosen by a hash, one that
   another judge has graded, too: from those follows how far judges agree.
2. What a judge says is appended to a file and synchronised before it is answered, so that whatever is killed loses
   nothing that was answered; an undone judgment is a line as well.
3. The grades of a pair become one, their median, when they are exported.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gcl.files.atomic import names_full_disk, synchronize
from gcl.files.digest import text_sha256
from gcl.retrieval.metrics.agreement import krippendorff_alpha, median_grade
from gcl.retrieval.tasks.judgments import GRADES, write_judgments


class Pair(NamedTuple):
    """A search of a task and a product, by their ids."""

    task: str
    query_id: str
    product_id: str


Grade = int | None
"""From 0 to 4; None: skipped."""


class Ledger:
    """The file of what judges said, a line of JSON for each time. of: {judge: {pair: grade}}, the latest last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.of: dict[str, dict[Pair, Grade]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            self._read(number, line)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.ftruncate(self._file, len(whole))  # of a line that was being written when the process was killed
        synchronize(path.parent)

    def close(self) -> None:
        os.close(self._file)

    def add(self, judge: str, pair: Pair, grade: Grade) -> None:
        """Raises OSError, and has nothing written, where the disk is full."""
        self._append({"judge": judge, **pair._asdict(), "grade": grade})
        self._take(judge, pair, grade)

    def undo(self, judge: str) -> Pair | None:
        """Takes a judge's last word back; None: there is none."""
        pair = next(reversed(self.of.get(judge, {})), None)
        if pair is not None:
            self._append({"judge": judge, **pair._asdict(), "undone": True})
            self.of[judge].pop(pair)
        return pair

    def _take(self, judge: str, pair: Pair, grade: Grade) -> None:
        own = self.of.setdefault(judge, {})
        own.pop(pair, None)
        own[pair] = grade

    def _read(self, number: int, line: bytes) -> None:
        try:
            said = json.loads(line)
            pair = Pair(*(str(said[name]) for name in Pair._fields))
            if said.get("undone"):
                self.of.get(str(said["judge"]), {}).pop(pair, None)
            elif said["grade"] is None or said["grade"] in range(len(GRADES)):
                self._take(str(said["judge"]), pair, said["grade"])
            else:
                raise ValueError(f"the grade is {said['grade']!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}, line {number}: not a judgment ({type(error).__name__}: {error}). Remove that line, or "
                "give another folder with out=…."
            ) from None

    def _append(self, said: dict) -> None:
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **said}).encode() + b"\n"
        end = os.fstat(self._file).st_size
        with names_full_disk(self.path):
            try:
                if os.write(self._file, line) < len(line):
                    raise OSError(28, "No space left on device")
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, end)
                raise


class Judging:
    """The pool's pairs, handed out to judges. twice: the share of them that a second judge gets. Thread-safe."""

    def __init__(self, pairs: Sequence[Pair], ledger: Ledger, *, twice: float = 0.2) -> None:
        self.pairs, self.ledger = pairs, ledger
        self._number = {pair: number for number, pair in enumerate(pairs)}
        self._wanted = [1 + (int(text_sha256("\n".join(pair))[:8], 16) < twice * 2**32) for pair in pairs]
        self._held: dict[str, Pair] = {}  # what each judge is looking at
        self._count = Counter(pair for own in ledger.of.values() for pair, grade in own.items() if grade is not None)
        self._lock = threading.Lock()

    def current(self, judge: str) -> int | None:
        """The number of the pair that a judge looks at, or gets now; None: nothing is left for this judge."""
        with self._lock:
            held = self._held.get(judge)
            if held is None or held in self.ledger.of.get(judge, {}):
                held = self._next(judge)
            if held is None:
                self._held.pop(judge, None)
                return None
            self._held[judge] = held
            return self._number[held]

    def say(self, judge: str, pair: Pair, grade: Grade) -> None:
        """Raises KeyError for a pair that is not of the pool."""
        number = self._number[pair]
        with self._lock:
            before = self.ledger.of.get(judge, {}).get(pair)
            self.ledger.add(judge, self.pairs[number], grade)
            self._count[pair] += (grade is not None) - (before is not None)

    def undo(self, judge: str) -> bool:
        """Takes a judge's last word back, and shows the pair again. False: there is none."""
        with self._lock:
            own = dict(self.ledger.of.get(judge, {}))
            pair = self.ledger.undo(judge)
            if pair is None:
                return False
            self._count[pair] -= own[pair] is not None
            if pair in self._number:
                self._held[judge] = pair
            return True

    def _next(self, judge: str) -> Pair | None:
        mine = self.ledger.of.get(judge, {})
        held = {pair for other, pair in self._held.items() if other != judge}
        waiting = None  # a pair that another judge looks at, and may have left
        for pair, wanted in zip(self.pairs, self._wanted, strict=True):
            if pair not in mine and self._count[pair] < wanted:
                if self._count[pair] or pair not in held:
                    return pair
                waiting = waiting or pair
        return waiting

    def progress(self, judge: str) -> dict:
        """How far the pool and this judge are, and how far judges agree."""
        with self._lock:
            counted = {name: sum(grade is not None for grade in own.values()) for name, own in self.ledger.of.items()}
            by_judge = {name: count for name, count in counted.items() if count}
            several = [pair for pair, count in self._count.items() if count > 1]
            alpha = krippendorff_alpha(self._grades(several)) if several else float("nan")
            return {
                "pool": len(self.pairs),
                "graded": sum(self._count[pair] > 0 for pair in self.pairs),
                "mine": by_judge.get(judge, 0),
                "judges": by_judge,
                "twice": len(several),
                "alpha": None if np.isnan(alpha) else round(alpha, 3),
            }

    def export(self, path: Path) -> Path:
        """Writes the median grade of every pair that was ever graded here, of this pool or another."""
        with self._lock:
            pairs = [pair for pair, count in self._count.items() if count > 0]
            grades = median_grade(self._grades(pairs)) if pairs else np.empty(0)
            return write_judgments(path, dict(zip(pairs, grades.tolist(), strict=True)))

    def _grades(self, pairs: Iterable[Pair]) -> np.ndarray:
        """[J, U], NaN where a judge did not grade a pair."""
        given = [[own.get(pair) for pair in pairs] for own in self.ledger.of.values()]
        return np.array([[np.nan if grade is None else grade for grade in own] for own in given], dtype=np.float64)
