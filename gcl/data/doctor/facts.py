"""Facts about a prepared catalog: plain values, ready for JSON. gcl/commands/doctor says what they mean."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as compute

from gcl.data.batches.order import BatchOrder
from gcl.data.doctor.images import NEAR, look_at_images, near_pairs
from gcl.data.store.prepared import PARTS, Pairs, Prepared
from gcl.data.store.records import Stored
from gcl.schema import SIDES, Modality, SideName

MOST_IMAGES, MOST_TEXTS, MOST_BATCHES = 2_000, 20_000, 400  # that are examined unless everything is asked for
_QUANTILES = {"least": 0, "5%": 5, "25%": 25, "median": 50, "75%": 75, "95%": 95, "most": 100}
_BLOCK = 1 << 14
_NAMING = 0.5  # a text field names its document where at least this share of its values is distinct
_EXAMPLES = 3


def examine(prepared: Prepared, *, everything: bool = False, threads: int = 2) -> dict[str, Any]:
    """All facts that need no model. Images are sampled unless `everything`; the rest is complete."""
    stores: dict[SideName, Stored] = {"query": prepared.queries, "document": prepared.documents}
    keys = {side: field_keys(store) for side, store in stores.items()}
    images: dict[str, Any] = {}
    near: dict[tuple[SideName, str], tuple[np.ndarray, np.ndarray]] = {}
    for side, store in stores.items():
        for name, spec in store.side.items():
            if spec.modality is Modality.image:
                rows = sample_rows(np.flatnonzero(keys[side][name].present), None if everything else MOST_IMAGES)
                images[f"{side}.{name}"], seen = look_at_images(store, name, rows, threads=threads)
                near[side, name] = rows, near_pairs(seen)
    return {
        "counts": {name: value for name, value in prepared.counts.items() if name != "tasks"},
        "fields": {f"{side}.{name}": _presence(keys[side][name].present, spec.modality)
                   for side, store in stores.items() for name, spec in store.side.items()},
        "scores": distribution(prepared.pairs.score),
        "unreadable": read_quarantine(prepared),
        "images": images,
        "duplicates": _duplicates(prepared, keys["document"], near),
        "leakage": _leakage(prepared, stores, keys, near),
        "tasks": prepared.counts["tasks"],
        "everything": everything,
    }  # fmt: skip


def sample_rows(rows: np.ndarray, most: int | None, *, seed: int = 0) -> np.ndarray:
    """At most `most` of the rows, always the same ones, in order."""
    if most is None or len(rows) <= most:
        return rows
    draw = np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(rows))
    return np.sort(rows[np.argsort(draw, kind="stable")[:most]])


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Quantiles, mean, number of distinct values and a histogram of ten bins."""
    if not len(values):
        return {"count": 0}
    points = np.percentile(values, list(_QUANTILES.values())).tolist()
    count, edges = np.histogram(values, bins=10)
    return {
        "count": len(values),
        "mean": float(np.mean(values, dtype=np.float64)),
        "distinct": len(np.unique(values)),
        "quantiles": dict(zip(_QUANTILES, points, strict=True)),
        "histogram": {"edges": edges.tolist(), "count": count.tolist()},
    }


def _presence(present: np.ndarray, modality: Modality) -> dict[str, Any]:
    count = int(present.sum())
    return {"modality": modality.value, "rows": len(present), "present": count, "share": count / max(len(present), 1)}


def read_quarantine(prepared: Prepared) -> dict[str, Any]:
    """Rows that were left out, by table and reason, with the first few of each."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    examples: dict[str, list[str]] = defaultdict(list)
    with open(prepared.folder / "quarantine.csv", newline="", encoding="utf-8") as source:
        for row in csv.DictReader(source):
            reasons[row["table"]][row["reason"]] += 1
            if len(examples[row["reason"]]) < 3:
                examples[row["reason"]].append(f"row {row['row']} {row['id']} {row['detail']}".strip())
    rows, bad = prepared.counts["rows"], prepared.counts["bad_rows"]
    return {
        "tables": {
            name: {"rows": rows[name], "bad": bad[name], "reasons": dict(reasons[name].most_common())} for name in rows
        },
        "examples": dict(examples),
        "of_quarantined_products": prepared.counts.get("pairs_of_quarantined_products", 0),
    }  # fmt: skip


def _duplicates(prepared: Prepared, keys: dict[str, Any], near: dict) -> dict[str, Any]:
    store = prepared.documents
    duplicates: dict[str, Any] = {
        "products": len(store),
        "rows_that_repeat_an_id": prepared.counts.get("merged_product_rows", 0),
        "equal_in_every_field": repeated(whole_keys(keys), store),
        "equal_image": {name: repeated(keys[name], store) for name in _fields(store, Modality.image)},
        "equal_text": {name: repeated(keys[name], store) for name in naming_fields(store, keys)},
        "near_image": {},
    }
    for name in _fields(store, Modality.image):
        rows, pairs = near["document", name]
        pairs = pairs[keys[name].code[rows[pairs[:, 0]]] != keys[name].code[rows[pairs[:, 1]]]]
        ids = [[store.ids[int(rows[place])] for place in pair] for pair in pairs[:3]]
        duplicates["near_image"][name] = {
            "rows": len(np.unique(pairs)), "pairs": len(pairs), "looked_at": len(rows), "bits": NEAR, "examples": ids,
        }  # fmt: skip
    return duplicates


def _leakage(prepared: Prepared, stores: dict[SideName, Stored], keys: dict, near: dict) -> dict[str, Any]:
    parts = parts_of(prepared)
    leakage: dict[str, Any] = {}
    for side in SIDES:
        store = stores[side]
        images = _fields(store, Modality.image)
        texts = naming_fields(store, keys[side]) if side == "document" else _fields(store, Modality.text)
        leakage[side] = {
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
    return leakage


def _fields(store: Stored, modality: Modality) -> list[str]:
    return [name for name, spec in store.side.items() if spec.modality is modality]


def expected_repeats(key: np.ndarray, batch_size: float) -> float:
    """Pairs of batch places with the same key that a uniform batch holds on average:
    N (N - 1) / (P (P - 1)) * sum over keys of c (c - 1) / 2.

    >>> expected_repeats(np.array([1, 1, 2, 3]), 2)  # one of the six pairs
    0.16666666666666666
    """
    count = np.unique(key, return_counts=True)[1].astype(np.float64)
    total = len(key)
    return float((count * (count - 1) / 2).sum() * batch_size * (batch_size - 1) / max(total * (total - 1), 1))


def repeats(pairs: Pairs, plan: BatchOrder, *, everything: bool = False) -> dict[str, Any]:
    """In-batch repeats of queries and documents: those that chance would give, and those of the plan's first epoch."""
    steps = np.arange(plan.steps_per_epoch)
    steps = sample_rows(steps, None if everything else MOST_BATCHES)
    batches = [plan.batch(int(step)) for step in steps]
    facts: dict[str, Any] = {"batches": len(batches), "batch_size": plan.batch_size}
    for side in SIDES:
        key = getattr(pairs, side)
        held = [len(rows) - len(np.unique(key[rows])) for rows in batches]
        same = [_same(key[rows]) for rows in batches]
        facts[side] = {
            "distinct": len(np.unique(key)),
            "expected_pairs": sum(
                draw.share * expected_repeats(key[draw.start : draw.stop], draw.size) for draw in plan.draws()
            ),
            "counted_pairs": float(np.mean(same)),
            "counted_places": float(np.mean(held)),  # of a batch's pairs, those whose query (document) came before
        }
    return facts


def _same(key: np.ndarray) -> int:
    count = np.unique(key, return_counts=True)[1]
    return int((count * (count - 1) // 2).sum())


def fold(text: str) -> str:
    """The same for two texts that differ in case and white space only.

    >>> fold("  Red   Shoes ") == fold("red shoes")
    True
    """
    return " ".join(text.casefold().split())


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
        name: _image_keys(store, name) if spec.modality is Modality.image else _text_keys(store, name)
        for name, spec in store.side.items()
    }


def _image_keys(store: Stored, name: str) -> Keys:
    codes = compute.dictionary_encode(store.hashes(name).values).indices
    return Keys(compute.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int64))


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
    texts = [name for name, spec in store.side.items() if spec.modality is Modality.text]
    return [name for name in texts if keys[name].distinct_share() >= _NAMING]


def repeated(keys: Keys, store: Stored) -> dict[str, Any]:
    """Rows that share their value with another: how many, in how many groups, and the largest groups' ids."""
    rows = np.flatnonzero(keys.present)
    _values, inverse, count = np.unique(keys.code[rows], return_inverse=True, return_counts=True)
    largest = np.argsort(-count, kind="stable")[:_EXAMPLES]
    examples = [
        [store.ids[int(row)] for row in rows[inverse.reshape(-1) == group][:4]] for group in largest if count[group] > 1
    ]
    return {"rows": int(count[count > 1].sum()), "groups": int((count > 1).sum()), "examples": examples}


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
    for task in _tasks(prepared):
        relevant = task.relevance > 0
        asked["query"][task.query[relevant]] = True
        asked["document"][task.document[relevant]] = True
    return {side: Parts(trained[side], asked[side] & ~trained[side]) for side in trained}


def _tasks(prepared: Prepared) -> Iterator[Any]:
    for name in prepared.task_names:
        for part in PARTS:
            if prepared.counts["tasks"][name][part]["queries"]:
                yield prepared.task(name, part)


def shared(keys: Keys, parts: Parts, store: Stored) -> dict[str, Any]:
    """Held-out rows whose value a training row has as well."""
    seen = np.unique(keys.code[parts.trained & keys.present])
    rows = np.flatnonzero(parts.held_out & keys.present)
    rows = rows[np.isin(keys.code[rows], seen)]
    examples = [store.ids[int(row)] for row in rows[:_EXAMPLES]]
    return {"rows": len(rows), "of": int(parts.held_out.sum()), "examples": examples}


def shared_near(pairs: np.ndarray, rows: np.ndarray, keys: Keys, parts: Parts, store: Stored) -> dict[str, Any]:
    """As `shared`, for near copies: `pairs` (i, j) are places in `rows`, the rows that were examined."""
    both = np.concatenate([rows[pairs], rows[pairs][:, ::-1]])
    differ = keys.code[both[:, 0]] != keys.code[both[:, 1]]
    leak = np.unique(both[differ & parts.held_out[both[:, 0]] & parts.trained[both[:, 1]], 0])
    examined = int(parts.held_out[rows].sum())
    return {"rows": len(leak), "of": examined, "examples": [store.ids[int(row)] for row in leak[:_EXAMPLES]]}
