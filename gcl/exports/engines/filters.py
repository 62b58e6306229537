"""The filter that a deployment is checked with as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl.errors import ConfigError, nearest
from gcl.exports.engines.engine import Filter
from gcl.exports.engines.payload import WORDS, Batch, Column, engine_name, without_vectors
from gcl.options import is_number


def check_filter(
    wanted: Mapping[str, Any], columns: Mapping[str, Column], *, payload: Path, named: Sequence[str]
) -> Filter:
    """The filter in the engine's names, ranges as (least, most).

    columns: of the file `payload`, as engines call them. named: the same, as they were asked for.
    Raises ConfigError for what the payload lacks.
    """
    known: dict[str, Any] = {}
    for name, value in wanted.items():
        column = engine_name(name)
        if column not in columns:
            raise ConfigError(
                f"filter.{name}: the payload has no such column; payload=[{','.join([*named, name])}] would add it."
                f"{nearest(column, columns)}"
            )
        if columns[column] is Column.number:
            ends = value if isinstance(value, list) else [value, value]
            if len(ends) != 2 or not all(map(is_number, ends)):
                raise ConfigError(f"filter.{name}={value}: a number, or a range of two, for example [10,20].")
            if ends[0] > ends[1]:
                raise ConfigError(f"filter.{name}={value}: the least of a range comes first, then the most.")
            known[column] = (float(ends[0]), float(ends[1]))
        elif isinstance(value, list | dict):
            example = _example(payload, column)
            raise ConfigError(f"filter.{name}={value}: {name} holds text{example}, and is filtered by one value.")
        else:
            known[column] = str(value)
    if known and not any(passes(piece, known).any() for piece in without_vectors(payload, list(known))):
        asked = " and ".join(f"{name}={value}" for name, value in wanted.items())
        held = "; ".join(f"{name} holds {columns[name]}{_example(payload, name)}" for name in known)
        raise ConfigError(f"filter: no document has {asked}, so nothing would be checked. {held}.")
    return known


def _example(payload: Path, column: str) -> str:
    """, for example 'Nord'; nothing where no document has a value."""
    found = _value(payload, column)
    return "" if found is None else f", for example {found!r}"


def example(columns: Mapping[str, Column], payload: Path) -> Filter:
    """One that some document passes; {}: there is none."""
    for name, kind in columns.items():
        if name != WORDS and (value := _value(payload, name)) is not None:
            return {name: tuple(sorted([0.0, value])) if kind is Column.number else value}
    return {}


def _value(payload: Path, column: str) -> Any:
    """The first of a column."""
    pieces = without_vectors(payload, [column])
    return next((value for piece in pieces for value in piece.payload[column] if value is not None), None)


def passes(batch: Batch, filter: Filter) -> np.ndarray:
    """bool[n]: the documents that a filter keeps; one without a value is not among them."""
    keep = np.ones(len(batch), bool)
    for name, wanted in filter.items():
        values = batch.payload[name]
        if isinstance(wanted, tuple):
            least, most = wanted
            numbers = np.array([np.nan if value is None else value for value in values], np.float64)
            keep &= (numbers >= least) & (numbers <= most)
        else:
            keep &= np.array([value == wanted for value in values], bool)
    return keep
