"""An id that no product has -> the product that is probably meant, and what happened to its id on the way.

A spreadsheet takes "00001" for the number 1, writes 4006381333931 as 4,00638E+12, another tool changes upper and lower
case or the Unicode form. Ids that no product has are few, or all: the first thousand are looked into.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import islice, takewhile

from gcl.data.store.key_table import RowOf

_MOST_IDS = 1_000_000  # products whose ids are read for it
_MOST_ASKED = 1000  # ids that are looked into
_LONGEST = 20  # digits of a number with leading zeros
_SHORTENED = re.compile(r"(\d)(?:[.,](\d+))?[eE]\+?(\d{1,3})")


class NearIds:
    """Called with an id that no product has, gives "'00001' is one: …", or None. row_of: the ids there are. ids: the
    same to read, opened when they are needed first."""

    def __init__(self, row_of: RowOf, ids: Callable[[], Sequence[str]]) -> None:
        self._row_of, self._open = row_of, ids
        self._asked = 0
        self._ids: Sequence[str] | None = None
        self._plain, self._bare = RowOf(), RowOf()
        self._digits: list[str] = []  # those that are numbers, sorted

    def __call__(self, identifier: str) -> str | None:
        self._asked += 1
        if self._asked > _MOST_ASKED:
            return None
        digits = identifier.lstrip("0") or "0"
        for width in range(len(identifier) + 1, _LONGEST + 1) if identifier.isdigit() else ():
            if (padded := identifier.zfill(width)) in self._row_of:
                return f"{padded!r} is one: leading zeros were lost"
        if digits != identifier and digits in self._row_of:
            return f"{digits!r} is one: it has no leading zeros"
        if len(self._row_of) > _MOST_IDS:
            return None
        if self._ids is None:
            self._ids = self._open()
            for row, known in enumerate(self._ids):
                self._plain.add(plain(known), row)
                self._bare.add(_bare(known), row)
            self._digits = sorted(known for known in self._ids if known.isdigit())
        if shortened := _SHORTENED.fullmatch(identifier):
            return self._of_shortened(*shortened.groups(default=""))
        meant = self._plain.get(plain(identifier))
        if meant is None and _bare(identifier):
            meant = self._bare.get(_bare(identifier))
        return None if meant is None else f"{self._ids[meant]!r} is one: {_difference(identifier, self._ids[meant])}"

    def _of_shortened(self, first: str, rest: str, power: str) -> str | None:
        begins, length = first + rest, int(power) + 1
        start = bisect_left(self._digits, str(max(int(begins) - 1, 0)))  # the last digit may have been rounded up
        near = takewhile(lambda known: known[: len(begins)] <= begins, islice(self._digits, start, None))
        alike = [known for known in islice(near, _MOST_ASKED) if len(known) == length and _rounds(known, begins)]
        meant = f"{alike[0]!r} is one that begins so" if len(alike) == 1 else f"{len(alike):,} ids begin so"
        return f"{meant}: a spreadsheet shortened the number, format its column as text" if alike else None


def _rounds(known: str, begins: str) -> bool:
    """Whether a number written with as many digits as `begins` would begin so."""
    cut = known[: len(begins)]
    return cut == begins or (len(known) > len(begins) and known[len(begins)] >= "5" and int(cut) + 1 == int(begins))


def plain(identifier: str) -> str:
    """What is left of an id when case, Unicode form, white space and a fraction of zeros are forgotten.

    >>> plain("AB-1 "), plain("1000.0"), plain("e\u0301") == plain("\u00e9")
    ('ab-1', '1000', True)
    """
    text = "".join(unicodedata.normalize("NFKC", identifier).casefold().split())
    return _whole(text)


def _whole(text: str) -> str:
    return re.sub(r"(?<=\d)(\.0+|,00?)$", "", text)  # "100,000" is a hundred thousand


def _bare(identifier: str) -> str:
    """The letters and digits alone: of "A–7", '="0007"', "#7" and "100,000"."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", identifier).casefold()))


def _difference(given: str, known: str) -> str:
    if unicodedata.normalize("NFC", given) == unicodedata.normalize("NFC", known):
        return "the same letters in another Unicode form"
    if given.casefold() == known.casefold():
        return "upper and lower case differ"
    if plain(given) != plain(known):
        return "signs other than letters and digits differ"
    if "".join(given.split()).casefold() == "".join(known.split()).casefold():
        return "white space differs"
    if _whole(given) != given or _whole(known) != known:
        return "the number was written with a fraction"
    return "the same letters in another Unicode form"
