"""Pictures shown in the place of a missing one ("no image available"), recognised once all products are stored.

A picture is a placeholder if

1. it is the image (the same bytes) of at least two products, and called so in the table: no_image.jpg, say
2. or it is the image of at least LEAST products whose texts are no more alike than those of any products. Variants
   share photos as well, but most of their words too. Where more than MOST pictures are shared like this, that is how
   the catalog is, and none is taken for a placeholder; nor is the only picture that a field has.

A product whose only field it is keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from gcl.data.store.store import RecordStore
from gcl.schema import Modality, fields_of

LEAST, MOST = 5, 3
_NAMED = 2
_ALIKE = 0.25  # of the way from how alike any two products are to equal; variants are beyond half of it
_SAMPLE, _ANY = 12, 64  # products of one picture, and of all, whose texts are compared
_MOST_TEXT = 2_000  # characters of a text that are looked at
_LEAST_WORDS = 3  # of a product on average; with fewer ("S", "M", "L") equal ones say nothing
_WORD = re.compile(r"\w+")
_CALLED = re.compile(
    r"(?<![a-z])(placeholder|no[-_ ]?(image|img|photo|picture|pic|selection)s?"
    r"|(image|photo|picture)[-_ ]?(not[-_ ]?(available|found)|missing|coming[-_ ]?soon)"
    r"|missing[-_ ]?(image|photo|picture)|coming[-_ ]?soon)(?![a-z])"
)


class Placeholder(NamedTuple):
    """A picture and the rows of the products that have it. why: by what it was recognised."""

    rows: np.ndarray
    why: str


def is_called_so(cell: object) -> bool:
    """Whether an image's path or URL says that it is shown in the place of a missing one.

    >>> is_called_so("media/woocommerce-placeholder-300x300.png"), is_called_so("images/casino_pictures.jpg")
    (True, False)
    """
    return isinstance(cell, str) and _CALLED.search(cell.partition("?")[0].rpartition("/")[2].lower()) is not None


def find_placeholders(store: RecordStore, field: str, called_so: Sequence[int]) -> list[Placeholder]:
    """The placeholders among one image field's pictures. called_so: rows whose image is called so in the table."""
    code = store.hashes(field).codes()
    count = np.bincount(code[code >= 0]) if (code >= 0).any() else np.zeros(0, np.int64)
    named = np.bincount(code[list(called_so)], minlength=len(count))
    chosen = {int(one): "its name says so" for one in np.flatnonzero(named >= _NAMED)}
    if len(count) > 1:
        shared = [int(one) for one in np.flatnonzero(count >= LEAST) if int(one) not in chosen]
        unlike = _of_unlike_products(store, code, shared)
        if len(unlike) <= MOST:
            chosen |= dict.fromkeys(unlike, "their texts are unlike each other")
    others = [name for name in store.side if name != field]
    found = []
    for one in sorted(chosen):
        rows = np.flatnonzero(code == one)
        present = store.present(rows)[:, [list(store.side).index(name) for name in others]]
        if len(rows := rows[present.any(axis=1)]):
            found.append(Placeholder(rows, f"{count[one]:,} products have the same picture, and {chosen[one]}"))
    return found


def _of_unlike_products(store: RecordStore, code: np.ndarray, shared: Collection[int]) -> list[int]:
    """Those of the shared pictures whose products are no more alike in their texts than any two are."""
    if not shared:
        return []
    any_rows = np.random.default_rng(0).permutation(len(code))[:_ANY]
    usual = _likeness(_words(store, np.sort(any_rows)))
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], [*shared])
    unlike = []
    for one, start in zip(shared, starts, strict=True):
        stop = np.searchsorted(code[order], one, side="right")
        rows = order[np.unique(np.linspace(start, stop - 1, min(_SAMPLE, stop - start)).astype(np.int64))]
        likeness = _likeness(_words(store, np.sort(rows)))
        if usual is not None and likeness is not None and likeness <= usual + _ALIKE * (1 - usual):
            unlike.append(one)
    return unlike


def _words(store: RecordStore, rows: np.ndarray) -> list[set[str]]:
    """The words of each row's texts, of those that have any."""
    words: list[set[str]] = [set() for _ in rows]
    for name in fields_of(store.side, Modality.text):
        for one, text in zip(words, store.column(name, rows), strict=True):
            if isinstance(text, str):
                one.update(_WORD.findall(text[:_MOST_TEXT].casefold()))
    return [one for one in words if one]


def _likeness(words: list[set[str]]) -> float | None:
    """Mean share of common words over all pairs (Jaccard); None where there are too few words to say."""
    if len(words) < LEAST or sum(map(len, words)) < _LEAST_WORDS * len(words):
        return None
    pairs = [(a, b) for place, a in enumerate(words) for b in words[place + 1 :]]
    return sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs)
