"""Facts about a prepared catalog: plain values, ready for JSON. gcl/commands/doctor says what they mean."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from gcl.data.batches.order import BatchOrder
from gcl.data.doctor.copies import Near, duplicates, field_keys, leakage, same_queries
from gcl.data.doctor.images import look_at_images, near_pairs
from gcl.data.doctor.samples import EXAMPLES, all_named, distribution, sample_rows
from gcl.data.doctor.scores import all_pairs, direction, example_pairs, judged_pairs
from gcl.data.doctor.texts import examine_texts
from gcl.data.store.prepared import Pairs, Prepared
from gcl.data.store.records import Stored
from gcl.schema import SIDES, Modality, SideName, fields_of

MOST_IMAGES, MOST_BATCHES = 2_000, 400  # that are examined unless everything is asked for
MOST_BAD_IMAGES = 20  # that are listed
# Facts that say nothing where a catalog was not prepared with its own split, or without its pairs.
OF_SPLIT = ("counts", "split", "leakage", "tasks", "weights")
OF_PAIRS = (*OF_SPLIT, "scores", "examples", "direction")
Begin = Callable[[str], object]


def examine(
    prepared: Prepared, *, everything: bool = False, threads: int = 2, begin: Begin = lambda _: None
) -> dict[str, Any]:
    """All facts that need no model. Texts and images are sampled unless `everything`; the rest is complete. `begin` is
    told what is being looked at."""
    stores = stores_of(prepared)
    begin("comparing records")
    keys = {side: field_keys(store) for side, store in stores.items()}
    images: dict[str, Any] = {}
    near: Near = {}
    for side, store in stores.items():
        for name, spec in store.side.items():
            if spec.modality is Modality.image:
                rows = sample_rows(np.flatnonzero(keys[side][name].present), None if everything else MOST_IMAGES)
                begin(f"looking at {len(rows):,} images of {side}.{name}")
                about, seen = look_at_images(store, name, rows, threads=threads)
                for kind in ("tiny", "unreadable"):
                    about[kind] = {"rows": len(about[kind]), "examples": all_named(store, rows[about[kind][:EXAMPLES]])}
                images[f"{side}.{name}"] = about
                near[side, name] = rows, near_pairs(seen)
    begin("reading texts")
    texts = {f"{side}.{name}": examine_texts(store, name, everything=everything)
             for side, store in stores.items() for name in fields_of(store.side, Modality.text)}  # fmt: skip
    begin("comparing scores with texts")
    return {
        "counts": {name: value for name, value in prepared.counts.items() if name != "tasks"},
        "fields": {f"{side}.{name}": _presence(keys[side][name].present, spec.modality)
                   for side, store in stores.items() for name, spec in store.side.items()},
        "unreadable": read_quarantine(prepared),
        "bad_images": read_bad_images(prepared),
        "texts": texts,
        "images": images,
        "duplicates": duplicates(prepared, keys["document"], near),
        "same_queries": same_queries(stores["query"], keys["query"]),
        "leakage": leakage(prepared, stores, keys, near),
        "tasks": {name: task | {"dangling": _dangling(prepared, name)}
                  for name, task in prepared.counts["tasks"].items()},
        "everything": everything,
    } | score_facts(prepared)  # fmt: skip


def stores_of(prepared: Prepared) -> dict[SideName, Stored]:
    """Both stores."""
    return {"query": prepared.queries, "document": prepared.documents}


def score_facts(prepared: Prepared) -> dict[str, Any]:
    """The scores of training, of every pair, and of judgments."""
    pairs, judged = all_pairs(prepared), judged_pairs(prepared)
    facts: dict[str, Any] = {"scores": distribution(prepared.pairs.score)}
    if len(pairs):
        facts["examples"] = example_pairs(prepared, pairs)
        facts["direction"] = {"": direction(prepared, pairs, ordered=prepared.pairs)}
    elif judged:
        facts["examples"] = example_pairs(prepared, next(iter(judged.values())))
    facts["direction"] = facts.get("direction", {}) | {
        name: direction(prepared, judgments) for name, judgments in judged.items()
    }
    return facts


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
            if len(examples[row["reason"]]) < EXAMPLES:
                examples[row["reason"]].append(f"row {row['row']} {row['id']} {row['detail']}".strip())
    rows, bad = prepared.counts["rows"], prepared.counts["bad_rows"]
    return {
        "tables": {
            name: {"rows": rows[name], "bad": bad[name], "reasons": dict(reasons[name].most_common())} for name in rows
        },
        "examples": dict(examples),
        "of_quarantined_products": prepared.counts.get("pairs_of_quarantined_products", 0),
    }  # fmt: skip


def _dangling(prepared: Prepared, task: str) -> list[str]:
    """Some judgments of products that the catalog lacks."""
    path = prepared.folder / "tasks" / f"{task}.dangling.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as source:
        rows = islice(csv.DictReader(source), EXAMPLES)
        return [f"query {row['query_id']}: product {row['document_id']}: {row['reason']}" for row in rows]


def read_bad_images(prepared: Prepared) -> dict[str, Any]:
    """Images that cannot be used, by field: {"given": records that name one, "absent": those left without, "reasons",
    "examples"}."""
    counts, path = prepared.counts, prepared.folder / "bad_images.csv"
    facts = {
        field: {**counts["images"][field], "reasons": reasons, "examples": []}
        for field, reasons in counts.get("bad_images", {}).items() if reasons
    }  # fmt: skip
    if facts:
        with open(path, newline="", encoding="utf-8") as source:
            for row in csv.DictReader(source):
                if len(examples := facts[row["field"]]["examples"]) < MOST_BAD_IMAGES:
                    examples.append([row["id"] or f"row {row['row']}", row["reason"], row["detail"]])
    return facts


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
