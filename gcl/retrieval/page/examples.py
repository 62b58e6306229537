"""What people look at first: a few searches that gained and a few that lost, before and after, with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from gcl.retrieval.analysis.unsure import unsure
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.details import Detailer, Shelf, Side
from gcl.retrieval.page.markup import Markup, join, tag, untrusted
from gcl.retrieval.page.thumbnails import Album
from gcl.retrieval.page.words import signed

COUNT = 3  # of each kind
TOP = 4  # results shown of each model
_DOUBTFUL = (
    "Nobody can tell whether these searches got better or worse: every change rests on results that nobody has judged. "
    "Judge some of them below and measure again."
)
SIGNS = {"relevant": ("✓", "relevant"), "wrong": ("✗", "not relevant"), "unjudged": ("?", "not judged")}


class _Example(NamedTuple):
    entry: Entry
    position: int
    change: float
    sure: bool = True


def examples(entries: Sequence[Entry], metric: str, labels: Sequence[str], side: int) -> Markup:
    """The largest gains and losses of labels[1] against labels[0] that can be told, those of the first entry before
    all others; where none can, the largest, marked so. side: pixels of the pictures."""
    gained, lost = _largest(entries, metric, labels, 1), _largest(entries, metric, labels, -1)
    doubtful = not gained and not lost
    if doubtful:
        gained, lost = (_largest(entries, metric, labels, sign, sure=False) for sign in (1, -1))
    if not gained and not lost:
        return tag("p", "No search changed: both models do equally well on each.", class_="hint")
    album = Album(side)
    shelf = Shelf(album)
    columns = [
        tag("section", tag("h3", name), *(_one(example, entries[0], labels, shelf) for example in found))
        for name, found in (("Gained most", gained), ("Lost most", lost))
        if found
    ]
    missing = None if lost else tag("p", _no_losses(entries, metric, labels), class_="hint")
    return join(
        tag("p", _DOUBTFUL, class_="hint") if doubtful else None, tag("div", *columns, class_="examples"), missing
    )


def _no_losses(entries: Sequence[Entry], metric: str, labels: Sequence[str]) -> str:
    if any((entry.values(labels[1], metric) < entry.values(labels[0], metric)).any() for entry in entries):
        return "Every loss rests on results that nobody has judged: nobody can tell whether these searches got worse."
    return "No search got worse."


def _largest(
    entries: Sequence[Entry], metric: str, labels: Sequence[str], sign: int, *, sure: bool = True
) -> list[_Example]:
    """Those of the first entry, and where it has too few those of the next."""
    found: list[_Example] = []
    for entry in entries:
        before, after = (entry.results[label] for label in labels)
        change = entry.values(labels[1], metric) - entry.values(labels[0], metric)
        usable = np.flatnonzero((sign * change > 0) & (unsure(entry.task, before, after, metric) != sure))
        largest = usable[np.argsort(-sign * change[usable], kind="stable")][: COUNT - len(found)]
        found += [_Example(entry, int(at), float(change[at]), sure) for at in largest]
    return found


def _one(example: _Example, first: Entry, labels: Sequence[str], shelf: Shelf) -> Markup:
    entry, position, change, sure = example
    view = Detailer(entry, shelf, top=TOP)(position)
    kind = "unsure" if not sure else "better" if change > 0 else "worse"
    asked = entry.task.queries
    name = Side(asked).title(position)
    own = None if view["picture"] < 0 else _picture(shelf, view["picture"], "the picture searched with")
    rows = [(label, view["lists"][list(entry.results).index(label)]) for label in labels]
    return tag(
        "article",
        tag(
            "h4",
            own,
            tag("a", name, href=address(entry, str(asked.ids[position])), dir="auto"),
            tag(
                "span",
                ("? " if not sure else "▲ " if change > 0 else "▼ ") + signed(change),
                None if sure else tag("small", " cannot tell"),
                class_=f"change {kind}",
            ),
        ),
        None if entry is first else tag("small", entry.title),
        *(labelled(label, [(item[0], _look(item[2])) for item in found], shelf) for label, found in rows),
        class_="example",
    )


def _look(relevance: float | str | None) -> str:
    return "unjudged" if relevance in (None, "twin") else "relevant" if float(relevance or 0) > 0 else "wrong"


def address(entry: Entry, query: str) -> str:
    """The place of a search on the page.

    The script opens the search and scrolls to it."""
    return f"#q={quote(entry.name, safe='')}/{quote(query, safe='')}"


def labelled(label: str, found: Sequence[tuple[int, str]], shelf: Shelf) -> Markup:
    """A line of products behind a label. found: (number on the shelf, one of SIGNS) of each."""
    products = list(shelf.products.values())
    shown = [(products[number], look) for number, look in found]
    pictured = any(number >= 0 for (_, _, number), _ in shown)
    strip = tag(
        "ol",
        *(_shot(product, look, shelf, pictured) for product, look in shown),
        class_="shots" if pictured else "words",
    )
    return tag("div", untrusted(label, class_="who"), strip if shown else "nothing", class_="strip")


def _shot(product: Sequence[Any], look: str, shelf: Shelf, pictured: bool) -> Markup:
    sign, words = SIGNS[look]
    title, _, number = product
    picture = _picture(shelf, number, f"{title}: {words}") if number >= 0 else None
    if pictured:
        frame = tag("span", picture or untrusted(title, class_="nothing"), class_="frame")
        return tag("li", frame, tag("span", sign, class_="sign"), class_=look, title=title)
    return tag("li", tag("span", sign, class_="sign"), " ", untrusted(title), class_=look)


def _picture(shelf: Shelf, number: int, alt: str) -> Markup:
    return tag("img", src=list(shelf.album.pictures.values())[number], alt=alt, decoding="async")
