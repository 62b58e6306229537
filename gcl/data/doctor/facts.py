"""Facts about a prepared catalog: plain values, ready for JSON. gcl/commands/doctor says what they mean."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from gcl.data.batches.order import BatchOrder
from gcl.data.doctor.duplicates import (
    field_keys,
    naming_fields,
    parts_of,
    repeated,
    shared,
    shared_near,
    whole_keys,
)
from gcl.data.doctor.images import NEAR, look_at_images, near_pairs
from gcl.data.store.prepared import Pairs, Prepared
from gcl.data.store.records import Stored
from gcl.schema import SIDES, Modality, SideName

MOST_IMAGES, MOST_TEXTS, MOST_BATCHES = 2_000, 20_000, 400  # that are examined unless everything is asked for
_QUANTILES = {"least": 0, "5%": 5, "25%": 25, "median": 50, "75%": 75, "95%": 95, "most": 100}


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
