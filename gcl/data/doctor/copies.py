"""Records that occur twice in a catalog, and those held out that are also in training."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as compute

from gcl.data.doctor.images import NEAR
from gcl.data.doctor.samples import CONTENT_HASH, EXAMPLES, all_named
from gcl.data.prepare.copies import fold
from gcl.data.store.prepared import PARTS, Prepared
from gcl.data.store.records import Stored
from gcl.schema import SIDES, Modality, SideName, fields_of

_BLOCK = 1 << 14
_NAMING = 0.5  # a text field names its document where at least this share of its values is distinct
_SHOWN = 6  # copies of one group that are shown


class Keys(NamedTuple):
    """One number per row, equal for equal values; -1 where the field is absent."""

    code: np.ndarray

    @property
    def present(self) -> np.ndarray:
        return self.code >= 0

    def distinct_share(self) -> float:
        values = self.code[self.present]
        return len(np.unique(values)) / len(values) if len(values) else 0.0


def field_keys(store: Stored) -> dict[str, Keys]:
    """The keys of every field: images by their bytes, texts without case and white space (`fold`)."""
    return {
        name: Keys(store.hashes(name).codes()) if spec.modality is Modality.image else _text_keys(store, name)
        for name, spec in store.side.items()
    }


def _text_keys(store: Stored, name: str) -> Keys:
    code = np.full(len(store), -1, np.int64)
    known: dict[bytes, int] = {}
    for start in range(0, len(store), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(store)))
        for row, text in zip(rows.tolist(), store.column(name, rows), strict=True):
            if isinstance(text, str):
                key = blake2b(fold(text).encode(), digest_size=12).digest()
                code[row] = known.setdefault(key, len(known))
    return Keys(code)


def whole_keys(keys: dict[str, Keys]) -> Keys:
    """Equal for records that are equal in every field."""
    table = np.stack([key.code for key in keys.values()], 1)
    return Keys(np.unique(table, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64))


def naming_fields(store: Stored, keys: dict[str, Keys]) -> list[str]:
    """Text fields that tell documents apart (a title, not a brand), so that equal values are worth reporting."""
    return [name for name in fields_of(store.side, Modality.text) if keys[name].distinct_share() >= _NAMING]


Near = dict[tuple[SideName, str], tuple[np.ndarray, np.ndarray]]
"""Of each image field the rows examined and the pairs of places in them that look the same."""


def duplicates(prepared: Prepared, keys: dict[str, Keys], near: Near) -> dict[str, Any]:
    """Products that share a value with another one."""
    store = prepared.documents
    facts: dict[str, Any] = {
        "products": len(store),
        "rows_that_repeat_an_id": prepared.counts.get("merged_product_rows", 0),
        "equal_in_every_field": repeated(whole_keys(keys), store),
        "equal_image": {name: repeated(keys[name], store) for name in fields_of(store.side, Modality.image)},
        "equal_text": {name: repeated(keys[name], store) for name in naming_fields(store, keys)},
        "near_image": {},
    }
    for name in fields_of(store.side, Modality.image):
        rows, pairs = near["document", name]
        pairs = pairs[keys[name].code[rows[pairs[:, 0]]] != keys[name].code[rows[pairs[:, 1]]]]
        facts["near_image"][name] = {
            "rows": len(np.unique(pairs)), "pairs": len(pairs), "looked_at": len(rows), "bits": NEAR,
            "examples": [all_named(store, rows[pair]) for pair in pairs[:EXAMPLES]],
        }  # fmt: skip
    return facts


def repeated(keys: Keys, store: Stored) -> dict[str, Any]:
    """Rows that share their value with another: how many, in how many groups, how many in the largest one, and the
    largest groups' records."""
    rows = np.flatnonzero(keys.present)
    _values, inverse, count = np.unique(keys.code[rows], return_inverse=True, return_counts=True)
    largest = np.argsort(-count, kind="stable")[:EXAMPLES]
    examples = [all_named(store, rows[inverse.reshape(-1) == group][:_SHOWN]) for group in largest if count[group] > 1]
    return {
        "rows": int(count[count > 1].sum()), "groups": int((count > 1).sum()),
        "sizes": [int(count[group]) for group in largest if count[group] > 1], "examples": examples,
    }  # fmt: skip


def same_queries(store: Stored, keys: dict[str, Keys]) -> dict[str, Any]:
    """Queries that differ in case and white space only, of those that are known by their content."""
    unnamed = compute.match_substring_regex(store.ids.values, CONTENT_HASH).to_numpy(zero_copy_only=False)
    code = np.where(unnamed, whole_keys(keys).code, -1)
    return repeated(Keys(code), store) | {"of": int(unnamed.sum())}


class Parts(NamedTuple):
    """The rows that a training pair has, and those that are relevant in a task and in no training pair. bool each."""

    trained: np.ndarray
    held_out: np.ndarray


def parts_of(prepared: Prepared) -> dict[SideName, Parts]:
    """The Parts of each side."""
    trained: dict[SideName, np.ndarray] = {
        "query": np.zeros(len(prepared.queries), bool), "document": np.zeros(len(prepared.documents), bool),
    }  # fmt: skip
    asked = {side: np.zeros_like(rows) for side, rows in trained.items()}
    trained["query"][prepared.pairs.query] = True
    trained["document"][prepared.pairs.document] = True
    for task in halves_of_tasks(prepared, prepared.task_names):
        relevant = task.relevance > 0
        asked["query"][task.query[relevant]] = True
        asked["document"][task.document[relevant]] = True
    return {side: Parts(trained[side], asked[side] & ~trained[side]) for side in trained}


def halves_of_tasks(prepared: Prepared, names: list[str]) -> Iterator[Any]:
    """Both halves of each task, where they have queries."""
    for name in names:
        for part in PARTS:
            if prepared.counts["tasks"][name][part]["queries"]:
                yield prepared.task(name, part)


def leakage(
    prepared: Prepared, stores: dict[SideName, Stored], keys: dict[SideName, dict[str, Keys]], near: Near
) -> dict[str, Any]:
    """Held-out records whose values a record of training has as well, by side and field."""
    parts = parts_of(prepared)
    facts: dict[str, Any] = {}
    for side in SIDES:
        store = stores[side]
        images = fields_of(store.side, Modality.image)
        texts = naming_fields(store, keys[side]) if side == "document" else fields_of(store.side, Modality.text)
        facts[side] = {
            "held_out": int(parts[side].held_out.sum()),
            "trained": int(parts[side].trained.sum()),
            "equal_in_every_field": shared(whole_keys(keys[side]), parts[side], store),
            "equal_text": {name: shared(keys[side][name], parts[side], store) for name in texts},
            "equal_image": {name: shared(keys[side][name], parts[side], store) for name in images},
            "near_image": {
                name: shared_near(pairs, rows, keys[side][name], parts[side], store)
                for (which, name), (rows, pairs) in near.items() if which == side
            },
        }  # fmt: skip
    return facts


def shared(keys: Keys, parts: Parts, store: Stored) -> dict[str, Any]:
    """Held-out rows whose value a training row has as well."""
    seen = np.unique(keys.code[parts.trained & keys.present])
    rows = np.flatnonzero(parts.held_out & keys.present)
    rows = rows[np.isin(keys.code[rows], seen)]
    return {"rows": len(rows), "of": int(parts.held_out.sum()), "examples": all_named(store, rows[:EXAMPLES])}


def shared_near(pairs: np.ndarray, rows: np.ndarray, keys: Keys, parts: Parts, store: Stored) -> dict[str, Any]:
    """As `shared`, for near copies: `pairs` (i, j) are places in `rows`, the rows that were examined."""
    both = np.concatenate([rows[pairs], rows[pairs][:, ::-1]])
    differ = keys.code[both[:, 0]] != keys.code[both[:, 1]]
    leak = np.unique(both[differ & parts.held_out[both[:, 0]] & parts.trained[both[:, 1]], 0])
    return {
        "rows": len(leak), "of": int(parts.held_out[rows].sum()), "examples": all_named(store, leak[:EXAMPLES])
    }  # fmt: skip
