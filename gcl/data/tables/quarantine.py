"""Rows that cannot be used: written down with their reason, counted, and too many of them stop everything."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from gcl.data.masked import masked
from gcl.data.store.records import MOST_TEXT
from gcl.data.store.remote_shards import RemoteShard
from gcl.table import ListFile, cut

_MOST_SHOWN = 300  # characters of a detail in a message


class Bad(NamedTuple):
    """Why a row cannot be used. `reason` is one of few, so that they can be counted; `detail` says which."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def too_long(length: int, name: str) -> Bad:
    """Of a text that is longer than a store keeps."""
    return Bad("text is too long", f"{name}: {length:,} characters, at most {MOST_TEXT:,} are kept")


def most_frequent(reasons: Counter[str], most: int = 5) -> str:
    """The reasons that occur most often, with how often, for a message."""
    return "; ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common(most))


class Quarantine(ListFile):
    """quarantine.csv, a context manager: table, 1-based data row, id, reason, detail. One line per bad row; an id
    that a spreadsheet would take for a formula begins with an apostrophe. max_bad: share of a table's rows that may be
    bad. report_at: where the file will be. besides: reasons that may be as frequent as they like.

    missing: {table: {column: {word: cells}}} of the words of data.missing. html: {table: {column: cells}} of those that
    look like HTML and are read as plain text.
    """

    def __init__(self, path: Path, *, max_bad: float, report_at: Path, besides: Collection[str] = ()):
        super().__init__(path, ("table", "row", "id", "reason", "detail"))
        self.max_bad, self.report_at, self._besides = max_bad, report_at, besides
        self.rows: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self.missing: dict[str, dict[str, Counter[str]]] = defaultdict(dict)
        self.html: dict[str, Counter[str]] = defaultdict(Counter)
        self._seen: set[tuple[str, Path | RemoteShard, int]] = set()
        self._first: dict[str, str] = {}
        self.feeds: dict[Path, str] = {}  # names of change feeds by their files
        self._in_feed: dict[str, Counter[str]] = defaultdict(Counter)  # bad rows by the feed that they are in

    def bad(self, table: str) -> int:
        """Number of bad rows of a table."""
        return self.reasons[table].total()

    def counts(self, tables: Iterable[str]) -> dict[str, dict]:
        """{"rows": {table: n}, "bad_rows": {table: n}, "bad_reasons": {table: {reason: n}}, "missing_words": {table:
        {column: {word: n}}}, "html": {table: {column: n}}}."""
        tables = list(tables)
        return {
            "rows": {name: self.rows[name] for name in tables},
            "bad_rows": {name: self.bad(name) for name in tables},
            "bad_reasons": {name: dict(self.reasons[name].most_common()) for name in tables if self.reasons[name]},
            "missing_words": {
                name: {column: dict(words.most_common()) for column, words in self.missing[name].items()}
                for name in tables
                if self.missing[name]
            },
            "html": {name: dict(self.html[name]) for name in tables if self.html[name]},
        }

    def add(self, table: str, file: Path | RemoteShard, row: int, identifier: str | None, bad: Bad) -> None:
        """A row that is bad on both of its sides counts, and is written, once."""
        key = (table, file, row)
        if key in self._seen:
            return
        self._seen.add(key)
        self.reasons[table][bad.reason] += 1
        if isinstance(file, Path) and file in self.feeds and bad.reason not in self._besides:
            self._in_feed[table][self.feeds[file]] += 1
        named = f", {identifier!r}" if identifier else ""
        self._first.setdefault(table, f"{file.name}, row {row}{named}: {cut(masked(str(bad)), _MOST_SHOWN)}")
        self.write(file.name, row, identifier or "", bad.reason, masked(bad.detail))

    def check(self, table: str, advice: str | None = None) -> None:
        """Raises ValueError when more than `max_bad` of a table's rows are bad. advice: what to do, where the rows say
        it."""
        rows = self.rows[table]
        bad = self.bad(table) - sum(self.reasons[table][reason] for reason in self._besides)
        if bad <= self.max_bad * rows:
            return
        feeds = self._in_feed[table]
        where = "".join(f", {count:,} of them in {feed}" for feed, count in feeds.items())
        fixed = " and ".join([*([table] if feeds.total() < bad else []), *feeds])
        either = "" if bad > 0.5 * rows else ", or set data.max_bad higher to continue without these rows"
        raise ValueError(
            f"{bad:,} of {rows:,} rows of {table} cannot be used{where} ({bad / rows:.1%}, data.max_bad allows "
            f"{self.max_bad:.1%}). Most frequent reasons: {most_frequent(self.reasons[table])}. The first: "
            f"{self._first[table]}. Every such row is listed in {self.report_at}. {advice or f'Fix {fixed}'}{either}."
        )
