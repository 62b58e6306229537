"""A log of what was shown, clicked and bought -> graded pairs (query, product, score 1 to 100, and 0 for negatives).

What is on top is looked at more, so raw click rates repeat the ranking that made them. The model here is position
based (Joachims, Swaminathan and Schnabel 2017, https://arxiv.org/abs/1608.04468): a click needs a look at the place and
a relevant product, P(click) = examination(position) * relevance, with the power law examination = position^-power.
Each impression then counts as the look it is worth:

    relevance(query, product) = sum of clicks / sum of examination(position) over its impressions,

which is inverse propensity weighting in its ratio form: equal to mean(click / examination) in expectation, without the
huge terms a single click far down would add. A purchase adds `purchase_weight` clicks. Estimates of few looks are drawn
towards their query's mean, that of a query towards the log's: `prior` looks' worth each. What had `negative_looks`
looks and neither a click nor a purchase is a negative of its query, where that is set.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog, Clicks, Scale
from gcl.data.prepare.rows import Line, column, read_rows, usable_rows
from gcl.data.store.verify import is_whole, write_about
from gcl.data.tables.block import Reading
from gcl.data.tables.cells import parse_number
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.data.tables.table import Table, open_table
from gcl.files.digest import add_file

SCORE = "score"
_COLUMNS = ("position", "impressions", "clicks", "purchases")
_POWERS = (0.0, 3.0)  # between which an unknown power is looked for


def catalog_of_clicks(catalog: Catalog, clicks: Clicks, root: Path, folder: Path) -> Catalog:
    """The catalog whose pairs are made of the log that data.pairs names: written once below `folder`, by content."""
    assert catalog.pairs is not None  # check_catalog
    table = open_table(
        catalog.pairs, root=root, setting="data.pairs", copies=folder / "tables", reading=Reading.of(catalog)
    )
    settings = json.dumps([2, _settings(clicks), _keys(catalog), catalog.max_bad, *_written(catalog)], sort_keys=True)
    digest = hashlib.sha256(settings.encode())
    for file in table.files:
        with open(file, "rb") as source:
            add_file(digest, source)
    target = folder / f"{catalog.name}-clicks-{digest.hexdigest()[:12]}"
    if not is_whole(target / "pairs.parquet"):
        shutil.rmtree(target, ignore_errors=True)
        unfinished = folder / f".{target.name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            _write(catalog, clicks, table, unfinished, report_at=folder / f"{target.name}.quarantine.csv")
            if not target.is_dir():
                os.rename(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return replace(catalog, pairs=str(target / "pairs.parquet"), score=SCORE, clicks=None)


def _settings(clicks: Clicks) -> dict[str, Any]:
    """Those that name the folder. What is younger than folders made before it counts only where it is set."""
    settings = asdict(clicks)
    if clicks.negative_looks is None:
        del settings["negative_looks"]
    return settings


def _written(catalog: Catalog) -> list:
    """How the log is written."""
    return [catalog.encoding, catalog.delimiter, catalog.quote, catalog.decimal, catalog.missing]


def _keys(catalog: Catalog) -> list[str]:
    """Columns that tell one (query, product) from another; the product's is the last."""
    names = [column(name, spec) for name, spec in catalog.query.items()]
    document_id = catalog.pairs_document_id or catalog.document_id
    return list(dict.fromkeys([*names, *([catalog.query_id] if catalog.query_id else []), document_id]))


def _write(catalog: Catalog, clicks: Clicks, table: Table, folder: Path, *, report_at: Path) -> None:
    keys = _keys(catalog)
    wanted = {getattr(clicks, name): f"data.clicks.{name}" for name in _COLUMNS if getattr(clicks, name)}
    table.check_columns([*((name, "data.query, data.document_id") for name in keys), *wanted.items()])
    with Quarantine(folder / "quarantine.csv", max_bad=catalog.max_bad, report_at=report_at) as quarantine:
        log = _gather(catalog, clicks, table, keys, quarantine)
        quarantine.check(table.name)
    query_of: dict[tuple, int] = {}
    query = np.array([query_of.setdefault(key[:-1], len(query_of)) for key in log.keys], np.int64)
    power = clicks.power if clicks.power is not None else fit_power(log.pair, log.position, log.shown, log.clicks)
    looks = np.bincount(log.pair, log.shown * log.position**-power, len(log.keys))
    gain = np.bincount(log.pair, log.clicks + clicks.purchase_weight * log.bought, len(log.keys))
    relevance = shrunken_rates(gain, looks, query, prior=clicks.prior)
    often = np.flatnonzero(np.bincount(log.pair, log.shown, len(log.keys)) >= clicks.least_shown)
    if clicks.scale == Scale.log:
        query = np.zeros_like(query)
    score = grade(relevance[often], query[often])
    if clicks.negative_looks is not None:
        score[((gain == 0) & (looks >= clicks.negative_looks))[often]] = 0.0
    columns = {name: [key[number] for key in log.keys] for number, name in enumerate(keys)}
    graded = pa.table({**columns, "relevance": relevance, "looks": looks}).take(pa.array(often))
    graded = graded.append_column(SCORE, pa.array(score.astype(np.float32)))
    parquet.write_table(graded, folder / "pairs.parquet", compression="zstd")
    about = {"power": power, "fitted": clicks.power is None, "pairs": len(often), "queries": len(query_of)}
    write_about(folder / "pairs.parquet", about)


class _Log(NamedTuple):
    """A log summed over the rows of the same (pair, position). keys: of each pair, in order of first sight. The rest
    are parallel: pair int64 (a number into keys), position, shown, clicks, bought float64."""

    keys: list[tuple]
    pair: np.ndarray
    position: np.ndarray
    shown: np.ndarray
    clicks: np.ndarray
    bought: np.ndarray


def _gather(catalog: Catalog, clicks: Clicks, table: Table, keys: list[str], quarantine: Quarantine) -> _Log:
    pairs: dict[tuple, int] = {}
    cells: dict[tuple[int, float], int] = {}
    sums: list[list[float]] = [[], [], []]  # shown, clicks, bought of each cell
    ids = (keys[-1], catalog.query_id)
    for line, (position, *counts) in _rows(clicks, table, keys, quarantine):
        key = tuple(line.identifier(name) if name in ids else line.columns[name] for name in keys)
        pair = pairs.setdefault(key, len(pairs))
        cell = cells.setdefault((pair, position), len(cells))
        for column_sums, count in zip(sums, counts, strict=True):
            if cell == len(column_sums):
                column_sums.append(0.0)
            column_sums[cell] += count
    return _Log(
        list(pairs),
        np.array([pair for pair, _ in cells], np.int64),
        np.array([position for _, position in cells], np.float64),
        *map(np.array, sums),
    )


def _rows(
    clicks: Clicks, table: Table, keys: list[str], quarantine: Quarantine
) -> Iterator[tuple[Line, tuple[float, float, float, float]]]:
    """Usable rows with (position, impressions, clicks, purchases)."""

    def usable(line: Line) -> tuple[float, float, float, float] | Bad:
        values = _numbers(line, clicks)
        if not isinstance(values, Bad) and any(line.columns[name] is None for name in keys):
            return Bad("no query or product", ", ".join(name for name in keys if line.columns[name] is None))
        return values

    lines = read_rows(table, {}, [*keys, *(getattr(clicks, name) for name in _COLUMNS)], quarantine=quarantine)
    yield from usable_rows(lines, usable, table=table, named_by=keys[-1], quarantine=quarantine)


def _numbers(line: Line, clicks: Clicks) -> tuple[float, float, float, float] | Bad:
    def number(name: str | None, default: float) -> float:
        if name is None:
            return default
        text = line.text(name) or "0"
        value = parse_number({"true": "1", "false": "0"}.get(text, text), line.block.decimal)
        if value is None:
            raise ValueError(f"{name}: {text!r}")
        return value

    try:
        position, shown = number(clicks.position, 1.0), number(clicks.impressions, 1.0)
        clicked, bought = number(clicks.clicks, 0.0), number(clicks.purchases, 0.0)
    except ValueError as error:
        return Bad("a count is not a number", str(error))
    if not (position >= 1 and position < float("inf")):
        return Bad("position is not 1 or more", f"{position:g}")
    if not 0 <= clicked <= shown < float("inf") or not 0 <= bought < float("inf"):
        return Bad("more clicks than impressions", f"{clicked:g} of {shown:g}, {bought:g} bought")
    return position, shown, clicked, bought


def fit_power(pair: np.ndarray, position: np.ndarray, shown: np.ndarray, clicks: np.ndarray) -> float:
    """The power that makes the clicks most likely, each pair having a relevance of its own (Poisson): it is learned
    from pairs that were shown at several places. 1.0 where there is none."""
    log = np.log(position)
    count = int(pair.max()) + 1 if len(pair) else 0
    total = np.bincount(pair, clicks, count)
    spread = np.bincount(pair, log, count) / np.maximum(np.bincount(pair, minlength=count), 1)
    if not ((np.abs(log - spread[pair]) > 1e-9) & (total[pair] > 0)).any():
        return 1.0

    def likelihood(power: float) -> float:
        looks = np.bincount(pair, shown * np.exp(-power * log), count)
        clicked = total > 0
        return float(-(total[clicked] * np.log(looks[clicked])).sum() - power * (clicks * log).sum())

    low, high = _POWERS
    ratio = (5**0.5 - 1) / 2
    for _ in range(40):  # golden section: the likelihood is concave in the power
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (left, high) if likelihood(left) < likelihood(right) else (low, right)
    return round((low + high) / 2, 4)


def shrunken_rates(gain: np.ndarray, looks: np.ndarray, query: np.ndarray, *, prior: float) -> np.ndarray:
    """gain / looks [P], drawn towards the query's rate, and that towards the log's, by `prior` looks.

    >>> shrunken_rates(np.array([8.0, 0.0]), np.array([10.0, 10.0]), np.array([0, 0]), prior=10).round(2).tolist()
    [0.6, 0.2]
    """
    whole = gain.sum() / max(looks.sum(), 1e-12)
    own = (np.bincount(query, gain) + prior * whole) / (np.bincount(query, looks) + prior)
    return (gain + prior * own[query]) / (looks + prior)


def grade(relevance: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Scores of 1 to 100, straight in the relevance: the best of each group has 100, a relevance of 0 would have 1.

    >>> grade(np.array([0.4, 0.2, 0.0, 0.1]), np.array([0, 0, 0, 1])).tolist()
    [100.0, 50.5, 1.0, 100.0]
    """
    best = np.zeros(int(group.max(initial=-1)) + 1)
    np.maximum.at(best, group, relevance)
    return 1 + 99 * np.divide(relevance, best[group], out=np.zeros_like(relevance), where=best[group] > 0)
