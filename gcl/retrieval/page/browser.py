"""The queries as data for the page's script: one row each, the chosen ones in full, all within a limit of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gcl.data.store.records import shortened
from gcl.files.progress import counted
from gcl.retrieval.analysis.unsure import unsure
from gcl.retrieval.metrics.metrics import spelled
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.details import Detailer, Shelf, Side
from gcl.retrieval.page.thumbnails import Album
from gcl.table import readable_json

_LONGEST_QUERY = 200


def browser_data(
    entries: Sequence[Entry],
    metrics: Sequence[str],
    *,
    details: int,
    top: int,
    thumbnails: int,
    limit_bytes: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything the list of searches needs, as plain values; `as_json` of it has at most `limit_bytes` bytes.

    What does not fit is left out: first full views from the least important on, then rows without a change.
    """
    labels = list(entries[0].results)
    data: dict[str, Any] = {
        "labels": labels,
        "metrics": [spelled(metric) for metric in metrics],
        "tasks": [entry.title for entry in entries],
        "names": [entry.name for entry in entries],
        "top": top,
        "total": sum(len(entry.task.queries) for entry in entries),
    }
    places = [(number, position) for number, entry in enumerate(entries) for position in range(len(entry.task.queries))]
    change = np.concatenate([_change(entry, metrics[0]) for entry in entries])
    rows = [row for number, entry in enumerate(entries) for row in _rows(number, entry, metrics)]
    keep = _that_fit(rows, change, limit_bytes // 2)
    rows, places, change = [rows[i] for i in keep], [places[i] for i in keep], change[keep]
    album = Album(thumbnails)
    shelf = Shelf(album)
    detailers = [Detailer(entry, shelf, top=top) for entry in entries]
    full: list[dict[str, Any]] = []
    size = _size(data) + sum(_size(row) for row in rows) + 512
    shown = chosen(change, details, seed=seed)
    for i in counted(shown, "Drawing the page's searches", unit="query"):
        number, position = places[i]
        products, mark = len(shelf.products), album.mark()
        view = detailers[number](position)
        added = _size(view) + sum(_size(product) for product in list(shelf.products.values())[products:])
        if size + added + album.size > limit_bytes:
            shelf.back_to(products)
            album.back_to(mark)
            break
        size += added
        rows[i][3] = len(full)
        full.append(view)
    return data | {
        "rows": rows,
        "details": full,
        "wanted": min(details, len(rows)),
        "products": list(shelf.products.values()),
        "pictures": list(album.pictures.values()),
    }


def as_json(data: Any) -> str:
    """JSON that can stand in a script element: no `<`, so neither an end tag nor a comment."""
    return readable_json(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _size(value: Any) -> int:
    return len(as_json(value).encode(errors="replace")) + 1


def _change(entry: Entry, metric: str) -> np.ndarray:
    """What the searches are sorted by; with one model only, its values around their mean."""
    change = entry.change(metric)
    if change is None:
        values = entry.values(next(iter(entry.results)), metric)
        return values - values.mean()
    return change


def _rows(number: int, entry: Entry, metrics: Sequence[str]) -> list[list[Any]]:
    """[task, text, id, full view or -1, [[value of each metric] of each model], [of each model but the first the
    number whose bit m says that nobody can tell the change of metric m]] of each query; without the last if all are 0.
    """
    side = Side(entry.task.queries)
    positions = np.arange(len(entry.task.queries))
    texts = [entry.task.queries.column(name, positions) for name in side.titles]
    values = [
        np.stack([entry.values(label, metric) for metric in metrics], axis=1).round(6).tolist()
        for label in entry.results
    ]
    base, *others = entry.results.values()
    doubt = np.zeros((len(positions), len(others)), dtype=np.int64)
    for at, other in enumerate(others):
        for bit, metric in enumerate(metrics):
            doubt[:, at] += unsure(entry.task, base, other, metric).astype(np.int64) << bit
    rows = []
    for position, identifier in enumerate(entry.task.queries.ids):
        text = " · ".join(str(column[position]) for column in texts if column[position])
        own = [model[position] for model in values]
        row = [number, shortened(text, _LONGEST_QUERY), str(identifier), -1, own]
        rows.append([*row, doubt[position].tolist()] if doubt[position].any() else row)
    return rows


def _that_fit(rows: list[list[Any]], change: np.ndarray, limit: int) -> np.ndarray:
    """Positions of the rows that fit, in order; those with the largest change first."""
    sizes = np.array([_size(row) for row in rows])
    order = np.argsort(-np.abs(change), kind="stable")
    return np.sort(order[np.cumsum(sizes[order]) <= limit])


def chosen(change: np.ndarray, count: int, *, seed: int = 0) -> list[int]:
    """`count` of the n queries of change[n]: of every five two worst, two best and one drawn from the rest.

    The order is one of importance: a page that must be smaller drops from the end and keeps the mixture. Queries that
    did not change are only drawn at random.

    >>> chosen(np.array([0.0, -0.5, 0.3, 0.9, -0.1]), 4)
    [1, 3, 4, 2]
    """
    count = min(count, len(change))
    ranked = np.argsort(change, kind="stable")
    worst = [int(i) for i in ranked if change[i] < 0]
    best = [int(i) for i in ranked[::-1] if change[i] > 0]
    drawn = [int(i) for i in np.random.default_rng(seed).permutation(len(change))]
    taken: dict[int, None] = {}
    sources = [iter(worst), iter(best), iter(worst), iter(best), iter(drawn)]
    while len(taken) < count:
        for source in sources:
            following = next((i for i in source if i not in taken), None)
            if following is not None and len(taken) < count:
                taken[following] = None
    return list(taken)
