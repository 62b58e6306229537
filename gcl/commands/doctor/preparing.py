"""The catalog prepared as a run would; where that is refused, by gentler rules, so that there are facts all the same.

Every refusal names the settings that it is about. What it names is given up (a field without a column, a task, the rule
on repeated ids, at last the pairs) and the rest is tried again: all walls are told at once, not one per run.
"""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.catalog import BadImages, Catalog, SamePair, SameProduct
from gcl.data.prepare.prepare import prepare
from gcl.errors import sentence_of
from gcl.schema import Field, Modality

MOST_SHARDS = 4  # of a catalog of ready shards, read unless everything is asked for
_MOST_WALLS = 20
_REFUSALS = (ValueError, KeyError, OSError)
_FIELD = re.compile(r"data\.(query|document)\.([A-Za-z][\w-]*)")
_TASK = re.compile(r"data\.tasks\.([\w-]+)|[Tt]he task '([^']+)'")
_COLUMN = re.compile(r"data\.(score|query_id|own_queries|clicks)\b")
_PERCENT = re.compile(r"\((\d+\.\d)%, data\.max_bad")
_PLAIN = logging.getLogger(__name__).debug


class Refusal(NamedTuple):
    """A sentence of `prepare`, and what to do."""

    sentence: str
    do: str


class Outcome(NamedTuple):
    """folder: None where nothing at all can be read. catalog: what was prepared, which is `whole` where its pairs and
    its split are as a run would have them. note: what was left aside though nothing is wrong with it."""

    folder: Path | None
    catalog: Catalog
    refusals: list[Refusal]
    whole: bool = True
    note: str = ""


def prepare_what_can_be(catalog: Catalog, cache: Path, place: Path, out: Path, *, everything: bool) -> Outcome:
    """cache: where the prepared catalog of a run would be; place: where any other is written, and soon removed; out:
    where lists of bad rows stay."""
    if catalog.shards and not everything:
        with suppress(*_REFUSALS):  # a sample may be too small for the split
            folder = prepare(catalog, place, report=_PLAIN, most_shards=MOST_SHARDS)
            note = f"at most {MOST_SHARDS} of its shards were read; all=true reads them all"
            return Outcome(folder, catalog, [], note=note)
    refusals: list[Refusal] = []
    gentler, whole = catalog, True
    for _ in range(_MOST_WALLS):
        first = gentler is catalog
        try:
            folder = prepare(gentler, cache if first else place, report=_PLAIN)
        except _REFUSALS as error:
            sentence = sentence_of(error)
        else:
            return Outcome(folder, gentler, refusals, whole)
        do, next_one = _gentler(gentler, sentence)
        sentence = _with_lists_in(out, place, sentence)
        # What is refused of less than the whole may be a consequence of that.
        if whole and all(sentence != one.sentence for one in refusals):
            refusals.append(Refusal(sentence, do))
        if next_one is None:
            break
        whole &= next_one.pairs == gentler.pairs and next_one.split == gentler.split
        gentler = next_one
    return Outcome(None, gentler, refusals, whole)


def _with_lists_in(out: Path, place: Path, sentence: str) -> str:
    """The sentence with the list of bad rows that it names moved to where it stays."""
    for file in place.glob("*.quarantine.csv"):
        if str(file) in sentence:
            out.mkdir(parents=True, exist_ok=True)
            sentence = sentence.replace(str(file), str(shutil.copy(file, out)))
    return sentence


def _gentler(catalog: Catalog, sentence: str) -> tuple[str, Catalog | None]:
    """What to do about a refusal, and the catalog without what it is about; None if nothing is left to give up."""
    if (share := _PERCENT.search(sentence)) and catalog.max_bad < 1:
        others = f", or continue without them: data.max_bad={float(share[1]) / 100 + 0.01:.2f}"
        do = f"fix the rows{others if float(share[1]) <= 50 else ''}"  # what all rows have is no accident
        return do, replace(catalog, max_bad=1.0, bad_images=BadImages.absent)
    same = catalog.duplicates
    repeated = "data.duplicates.products" in sentence or "repeated with other content" in sentence
    if repeated and same.products is SameProduct.refuse:
        return "data.duplicates.products=first (or last, or merge)", replace(
            catalog, duplicates=replace(same, products=SameProduct.first)
        )
    for name, refused in (("pairs", same.pairs), ("judgments", same.judgments)):
        if f"data.duplicates.{name}" in sentence and refused is SamePair.refuse:
            return f"data.duplicates.{name}=max (or mean, or last)", replace(
                catalog, duplicates=replace(same, pairs=SamePair.max, judgments=SamePair.max)
            )
    left: Catalog = catalog
    for side, name in _FIELD.findall(sentence):
        fields: dict[str, Any] = {side: {key: spec for key, spec in getattr(left, side).items() if key != name}}
        left = replace(left, **fields) if fields[side] else left
    if left != catalog:
        return "name the columns as the table does, or leave these fields out", left
    named = {one or other for one, other in _TASK.findall(sentence)}
    if named and catalog.tasks and catalog.training:
        kept = {name: task for name, task in catalog.tasks.items() if name not in named}
        kept = kept if len(kept) < len(catalog.tasks) else {}
        return "fix the task's tables, or leave it out", replace(catalog, tasks=kept)
    for name in _COLUMN.findall(sentence):
        if value := getattr(catalog, name):
            without: dict[str, Any] = {name: {} if isinstance(value, dict) else None}
            return f"fix data.{name}", replace(catalog, **without)
    if "data.split." in sentence and (catalog.split.queries < 1 or catalog.split.documents < 1):
        return "data.split.queries=1 data.split.documents=1, or more data", _unsplit(catalog)
    return "", _products_alone(catalog)


def _products_alone(catalog: Catalog) -> Catalog | None:
    if not (catalog.products and catalog.pairs):
        return None
    texts = [(name, spec) for name, spec in catalog.document.items() if spec.modality is Modality.text]
    name, spec = (texts or list(catalog.document.items()))[0]
    query: dict[str, Field] = {name: replace(spec, column=spec.column or name)}
    return replace(
        _unsplit(catalog), pairs=None, pairs_document_id=None, query=query, query_id=None, score=None, own_queries={},
        clicks=None, tasks={},
    )  # fmt: skip


def _unsplit(catalog: Catalog) -> Catalog:
    return replace(catalog, split=replace(catalog.split, queries=1.0, documents=1.0, dev=0.0))
