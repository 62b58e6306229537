"""The doctor's facts as sections of sentences, tables, bars and pictures, which page.py renders for a terminal and a
browser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gcl.commands.doctor.findings import task_title, words
from gcl.data.prepare.prepare import WHY_NOT_TRAINED, decisions
from gcl.data.store.prepared import DEV_AND_TEST
from gcl.files.progress import duration
from gcl.schema import SideName
from gcl.table import Table


@dataclass
class Bars:
    """A histogram: a label and a count each."""

    caption: str
    bars: list[tuple[str, int]]


@dataclass
class Card:
    """A record with its picture. kicker: above its title. line: all of it, on a terminal."""

    side: SideName
    row: int
    title: str
    line: str
    kicker: str = ""
    note: str = ""


@dataclass
class Cards:
    """Records beside each other."""

    caption: str
    cards: list[Card]


@dataclass
class Cuts:
    """Texts in two parts: what is read, and how what is not read begins."""

    caption: str
    texts: list[tuple[str, str]]


Part = str | Table | Bars | Cards | Cuts


@dataclass
class Section:
    """A part of the page. name: a word for it, in the list of parts."""

    name: str
    title: str
    parts: list[Part] = field(default_factory=list)


Facts = Mapping[str, Any]


def sections(facts: Facts) -> list[Section]:
    """Those that there are facts for, in the order in which a person reads them."""
    all_of: list[tuple[str, str, Callable[[Facts], Iterator[Part]]]] = [
        ("Pairs", "Pairs in words", _examples),
        ("Catalog", "Catalog", _catalog),
        ("Split", "What the split leaves", _split),
        ("Scores", "Scores and weights", _scores),
        ("Texts", "Texts", _texts),
        ("Images", "Images", _images),
        ("Rows", "Rows that were left out", _left_out),
        ("Copies", "The same product twice", _copies),
        ("Leakage", "Held out, but also in training", _leakage),
        ("Tasks", "Tasks", _tasks),
        ("Run", "What a run takes", _run),
    ]
    found = [Section(name, title, list(parts(facts))) for name, title, parts in all_of]
    return [section for section in found if section.parts]


def _catalog(facts: Facts) -> Iterator[Part]:
    if note := facts.get("catalog", {}).get("note"):
        yield note
    if counts := facts.get("counts"):
        rows = [
            ("products", counts["products"], counts["products_of_training"]),
            ("queries", counts["queries"], counts["queries_of_training"]),
            ("pairs", counts["pairs"], counts["training_pairs"]),
        ]
        if facts.get("training", True):
            yield Table(["what", "all", "training half"], rows, formats=_COMMAS)
        else:
            yield Table(["what", "all"], [row[:2] for row in rows[:2]], formats=_COMMAS)
            yield "A catalog that is only measured (data.training=false): nothing of it is trained on."
    if fields := facts.get("fields"):
        yield Table(
            ["field", "kind", "records", "have it", "share"],
            [(name, *(about[key] for key in ("modality", "rows", "present", "share")))
             for name, about in fields.items()],
            align="ll", formats=_COMMAS | {"share": ".1%"},
        )  # fmt: skip


_COMMAS = dict.fromkeys(("all", "training half", "records", "have it", "examined", "rows", "left out"), ",")


def _examples(facts: Facts) -> Iterator[Part]:
    examples = facts.get("examples", {})
    for end, pairs in examples.items():
        which = f"with the {end} score" if "lowest" in examples else f"(all have the score {pairs[0]['score']:g})"
        yield Cards(f"Pairs {which}", [_pair_card(pair) for pair in pairs])


def _pair_card(pair: Mapping[str, Any]) -> Card:
    product, asked = pair["document"], _asked(pair["query"])
    title = product["title"] or str(product["id"])
    return Card("document", product["row"], title, f"{asked} -> {title}: {pair['score']:g}", kicker=asked,
                note=f"score {pair['score']:g}, product {product['id']}")  # fmt: skip


def _asked(query: Mapping[str, Any]) -> str:
    return query["title"] or (f"image {query['id']}" if query["id"] else "an image")


def _split(facts: Facts) -> Iterator[Part]:
    counts, split = facts.get("counts"), facts.get("split")
    if not counts or not split or not counts["pairs"]:
        return
    share = counts["training_pairs"] / counts["pairs"]
    yield (
        f"{counts['pairs']:,} pairs leave {counts['training_pairs']:,} to train on ({share:.0%}): those whose query "
        f"and whose product are both in the training half (data.split.queries={split['queries']:g}, "
        f"data.split.documents={split['documents']:g}; together {split['queries'] * split['documents']:.0%}) and whose "
        "score is above 0. The others measure."
    )
    fate = [("to train on", counts["training_pairs"])]
    fate += [(WHY_NOT_TRAINED[name], count) for name, count in counts.get("left", {}).items() if count]
    yield Table(["pairs", "how many"], fate, formats={"how many": ","})
    yield from (f"{line[:1].upper()}{line[1:]}." for line in decisions({**counts, "tasks": facts["tasks"]}))


def _scores(facts: Facts) -> Iterator[Part]:
    scores, weights = facts.get("scores", {}), facts.get("weights", {})
    if not scores.get("count"):
        return
    if scores["distinct"] > 1:
        yield Bars(f"Scores of the training pairs: {_quantiles(scores)}", [tuple(bar) for bar in scores["histogram"]])
    else:
        yield f"All {scores['count']:,} training pairs have the score {scores['quantiles']['most']:g}."
    if weights.get("count"):
        yield Table(
            ["score", "weight"], [(f"{score:g}", weight) for score, weight in weights["of_scores"]],
            f"Weight of a score (loss.score_to_weight: {weights['function']})", formats={"weight": ".4g"},
            notes=["Only the ratios of weights count: a pair of weight 0.04 counts twice as much as one of 0.02."],
        )  # fmt: skip
        like = f"{weights['effective_pairs']:,.0f} equal ones"
        yield (
            f"{weights['count']:,} pairs count as much as {like}; the heaviest tenth holds "
            f"{weights['share_of_heaviest_tenth']:.0%} of all weight."
        )


def _texts(facts: Facts) -> Iterator[Part]:
    model = facts.get("model", {})
    if model.get("note"):
        yield f"{model['label']}: {model['note']}"
    rows = []
    for name, about in facts.get("tokens", {}).items():
        if about.get("count"):
            quantiles = about["quantiles"]
            rows.append((name, about["looked_at"], quantiles["median"], quantiles["95%"], about["context_length"],
                         about["share_over"]))  # fmt: skip
    if rows:
        yield Table(
            ["field", "examined", "tokens at the median", "of the longest 5%", "the model reads", "cut"], rows,
            f"Length of texts as {model['label']} counts it",
            formats=_COMMAS | {"tokens at the median": ".0f", "of the longest 5%": ".0f", "cut": ".1%"},
        )  # fmt: skip
    for name, about in facts.get("tokens", {}).items():
        if about.get("cut"):
            yield Cuts(f"Texts of {name} as the model cuts them", list(map(tuple, about["cut"])))
    words = [
        (table, column, f'"{word}"', count)
        for table, columns in facts.get("counts", {}).get("missing_words", {}).items()
        for column, counts in columns.items()
        for word, count in counts.items()
    ]
    if words:
        yield Table(["table", "column", "word", "cells"], words, "Words that count as no value (data.missing)",
                    align="lll", formats={"cells": ","})  # fmt: skip
    said = [
        (name, _listed(about["languages"]) or "cannot be told", sum(about["languages"].values()), about["looked_at"])
        for name, about in facts.get("texts", {}).items()
    ]
    if said:
        yield Table(["field", "languages", "texts told", "examined"], said, "Languages, by script and common words",
                    align="ll", formats=_COMMAS | {"texts told": ","})  # fmt: skip


def _images(facts: Facts) -> Iterator[Part]:
    yield from _bad_images(facts)
    for name, images in facts.get("images", {}).items():
        if not images["width"]:
            continue
        measures = [
            (one.replace("_", " "), *images[one].values()) for one in ("width", "height", "shorter_side", "bytes")
        ]
        notes = [f"modes: {_listed(images['modes'])}; formats: {_listed(images['formats'])}"]
        if images["looked_at"] < facts["fields"][name]["present"]:
            notes.append("a sample: near copies are looked for among these images only; all=true compares every image")
        yield Table(
            ["measure", *images["width"]], measures,
            f"{name}: {images['looked_at']:,} examined, {images['unreadable']['rows']:,} unreadable",
            formats=dict.fromkeys(images["width"], ",.0f"), notes=notes,
        )  # fmt: skip


def _bad_images(facts: Facts) -> Iterator[Part]:
    for name, bad in facts.get("bad_images", {}).items():
        yield Table(["record", "reason", "image"], bad["examples"],
                    f"{name}: {bad['absent']:,} of {bad['given']:,} images cannot be used", align="lll")  # fmt: skip


def _left_out(facts: Facts) -> Iterator[Part]:
    left = facts.get("unreadable", {})
    rows = [(name, table["bad"], table["rows"]) for name, table in left.get("tables", {}).items()]
    if rows and not any(bad for _, bad, _ in rows):
        yield f"None: every row of {', '.join(f'{name} ({count:,})' for name, _, count in rows)} is used."
    elif rows:
        yield Table(["table", "left out", "rows"], rows, formats=_COMMAS)
    reasons = [
        (name, reason, f"{count:,}", left["examples"][reason][0])
        for name, table in left.get("tables", {}).items()
        for reason, count in table["reasons"].items()
    ]
    if reasons:
        yield Table(["table", "reason", "rows", "for example"], reasons, align="llrl")
    if left.get("of_quarantined_products"):
        yield f"Pairs of left-out products: {left['of_quarantined_products']:,}."


def _copies(facts: Facts) -> Iterator[Part]:
    copies = facts.get("duplicates")
    if not copies:
        return
    kinds = {"equal in every field": copies["equal_in_every_field"]}
    kinds |= {f"the same {name} (image)": value for name, value in copies["equal_image"].items()}
    kinds |= {f"the same {name}": value for name, value in copies["equal_text"].items()}
    rows = [(kind, value["rows"], value["groups"], max(value["sizes"], default=0)) for kind, value in kinds.items()]
    rows += [
        (f"near copies of {name}, of {value['looked_at']:,} examined", value["rows"], None, None)
        for name, value in copies["near_image"].items()
    ]
    yield Table(["products", "how many", "in groups", "the largest"], rows,
                formats={"how many": ",", "in groups": ",", "the largest": ","})  # fmt: skip
    if copies["rows_that_repeat_an_id"]:
        yield f"Rows that repeat a product id: {copies['rows_that_repeat_an_id']:,}."
    for name, value in copies["equal_image"].items():
        for group, size in zip(value["examples"], value["sizes"], strict=True):
            yield Cards(f"{size:,} products with the same {name}", _cards(group))
    for name, value in copies["near_image"].items():
        for pair in value["examples"]:
            yield Cards(f"Near copies of {name}", _cards(pair))
    for name, value in copies["equal_text"].items():
        for group, size in zip(value["examples"], value["sizes"], strict=True):
            yield Cards(f"{size:,} products with the same {name}", _cards(group))


def _cards(group: Iterable[Mapping[str, Any]]) -> list[Card]:
    return [Card("document", one["row"], one["title"], words(one), note=str(one["id"] or "")) for one in group]


def _leakage(facts: Facts) -> Iterator[Part]:
    rows = []
    for side, leak in facts.get("leakage", {}).items():
        if not leak["trained"]:
            continue
        things = {"query": "queries", "document": "products"}[side]
        kinds = {"equal in every field": leak["equal_in_every_field"]}
        kinds |= {f"the same {name}": leaked for name, leaked in (leak["equal_text"] | leak["equal_image"]).items()}
        kinds |= {f"a near copy of {name}": leaked for name, leaked in leak["near_image"].items()}
        rows += [(things, where, leaked["rows"], leaked["of"]) for where, leaked in kinds.items()]
    if rows and not any(count for _, _, count, _ in rows):
        sizes = {things: of for things, _, _, of in reversed(rows)}
        kinds = dict.fromkeys(where for _, where, _, _ in rows)
        yield f"None of the held-out {_and(f'{of:,} {things}' for things, of in sizes.items())}: {', '.join(kinds)}."
    elif rows:
        header = ["held out", "as one in training", "how many", "of"]
        yield Table(header, rows, align="ll", formats={"how many": ",", "of": ","}, grouped=True)


def _tasks(facts: Facts) -> Iterator[Part]:
    lost = {
        "queries_without_relevant": "queries without an answer",
        "judgments_outside_corpus": "judgments outside",
        "dangling_judgments": "of unknown products",
    }
    rows = [
        (task_title(name, facts), task["dev"]["queries"], task["test"]["queries"], task["corpus"],
         *(task.get(key, 0) for key in lost))
        for name, task in facts.get("tasks", {}).items()
    ]  # fmt: skip
    if rows:
        header = ["task", "dev queries", "test queries", "products searched", *lost.values()]
        some = [number for number in range(len(header)) if number < 4 or any(row[number] for row in rows)]
        yield Table(
            [header[number] for number in some], [[row[number] for number in some] for row in rows],
            formats=dict.fromkeys(header[1:], ","), notes=[DEV_AND_TEST],
        )  # fmt: skip


def _run(facts: Facts) -> Iterator[Part]:
    batches, memory, seconds = (facts.get(name, {}) for name in ("batches", "memory", "time"))
    if "steps" in batches:
        most = batches.get("max_steps")
        length = f"train.epochs={batches['epochs']:g}" if most is None else f"train.max_steps={most}"
        yield (
            f"A run of model={facts['model']['label']}: "
            f"{batches['steps_per_epoch']:,} steps of {batches['batch_size']:,} pairs per epoch (train.batch_size), "
            f"{batches['steps']:,} in the run ({length})."
        )
        for name, own in batches.get("mix", {}).items():
            count = f"{own['pairs']:,} pairs" if "pairs" in own else f"{own['batches']:,} batches"
            yield f"{name}: {count} per epoch, {own['passes_per_epoch']:.2f} passes"
        yield Table(
            ["in a batch on average", "different in the catalog", "counted", "by chance"],
            [(f"pairs that share their {name}", batches[side]["distinct"], batches[side]["counted_pairs"],
              batches[side]["expected_pairs"]) for side, name in (("query", "query"), ("document", "product"))],
            formats={"different in the catalog": ",", "counted": ",.1f", "by chance": ",.1f"},
        )  # fmt: skip
    if memory:
        size = memory["micro_batch"]
        micro = "the batch" if size is None else f"train.micro_batch={size:,}"
        yield Table(
            ["memory per step", "MiB"],
            [(name, bytes_ / 2**20) for name, bytes_ in (memory["parts"] | {"in all": memory["total"]}).items()],
            formats={"MiB": ",.0f"},
            notes=[f"an estimate; activations were measured with a few rows, and grow with {micro}"],
        )
    if seconds:
        yield (
            f"About {duration(seconds['epoch'])} per epoch, {duration(seconds['run'])} in all, evaluation not "
            f"included (per epoch reading {duration(seconds['reading'])}, computing "
            f"{duration(seconds['computing'])}; estimated from a few rows on this machine)."
        )


def _quantiles(distribution: Mapping[str, Any]) -> str:
    quantiles = distribution["quantiles"]
    return ", ".join(f"{name} {value:.4g}" for name, value in quantiles.items() if name in ("least", "median", "most"))


def _and(parts: Iterable[str]) -> str:
    return " and ".join(parts)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
