"""The doctor's facts as a page of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gcl.commands.doctor.findings import COUNTS, Finding


def page(facts: dict[str, Any], findings: Sequence[Finding]) -> str:
    parts = [
        ("Catalog", _counts),
        ("Fields", _fields),
        ("Scores and weights", _scores),
        ("Texts", _tokens),
        ("Images", _images),
        ("Left out", _unreadable),
        ("The same product twice", _duplicates),
        ("Held out, but also in training", _leakage),
        ("Tasks", _tasks),
        ("Batches", _batches),
        ("Memory per step", _memory),
        ("Time", _time),
    ]
    lines = [f"gcl doctor: {facts['name']}", ""]
    for title, part in parts:
        body = list(part(facts))
        if body:
            lines += [title, *(f"  {line}" for line in body), ""]
    lines += ["Findings", *(f"  {finding.level}: {finding.text}" for finding in findings)]
    problems = sum(finding.level == "problem" for finding in findings)
    end = f"{problems} to fix before training." if problems else "No problems: the catalog is ready for training."
    return "\n".join([*lines, f"  {end}", f"  {COUNTS}", f"  ({facts['seconds']:.1f} s)"])


def _counts(facts: dict[str, Any]) -> Iterator[str]:
    if note := facts.get("catalog", {}).get("note"):
        yield note
    if counts := facts.get("counts"):
        yield f"products {counts['products']:,} (training half {counts['products_of_training']:,})"
        yield f"queries  {counts['queries']:,} (training half {counts['queries_of_training']:,})"
        yield f"pairs    {counts['pairs']:,} (for training {counts['training_pairs']:,})"


def _fields(facts: dict[str, Any]) -> Iterator[str]:
    for name, field in facts.get("fields", {}).items():
        share = f"present in {field['present']:,} of {field['rows']:,} ({field['share']:.1%})"
        yield f"{name:<24} {field['modality']:<6} {share}"


def _scores(facts: dict[str, Any]) -> Iterator[str]:
    if not facts.get("scores", {}).get("count"):
        return
    scores, weights = facts["scores"], facts.get("weights", {})
    yield f"scores: {scores['distinct']:,} values, {_quantiles(scores)}"
    edges, count = scores["histogram"]["edges"], scores["histogram"]["count"]
    if scores["distinct"] > 1:
        for low, high, number in zip(edges, edges[1:], count, strict=False):
            yield f"  {low:>10.4g} to {high:<10.4g} {number:>11,} {'#' * round(40 * number / max(count))}"
    if weights.get("count"):
        yield f"weights ({weights['function']}): {_quantiles(weights)}"
        yield "  " + ", ".join(f"score {score:.4g} -> {weight:.4g}" for score, weight in weights["of_scores"])
        heaviest = f"the heaviest tenth holds {weights['share_of_heaviest_tenth']:.0%} of all weight"
        like = f"{weights['effective_pairs']:,.0f} equal ones"
        yield f"  {weights['count']:,} pairs count as much as {like}; {heaviest}"


def _tokens(facts: dict[str, Any]) -> Iterator[str]:
    if note := facts.get("model", {}).get("note"):
        yield f"{facts['model']['label']}: {note}"
    for name, field in facts.get("tokens", {}).items():
        if field.get("count"):
            middle, high = field["quantiles"]["median"], field["quantiles"]["95%"]
            share = f"{field['share_over']:.1%}"
            over = f"over {field['context_length']}: {field['over']:,} of {field['looked_at']:,} examined"
            yield f"{name:<24} {middle:.0f} tokens at the median, {high:.0f} at the 95th percentile; {over} ({share})"


def _images(facts: dict[str, Any]) -> Iterator[str]:
    for name, images in facts.get("images", {}).items():
        yield f"{name}: {images['looked_at']:,} examined, {images['unreadable']:,} unreadable"
        if images["width"]:
            for measure in ("width", "height", "shorter_side"):
                yield f"  {measure.replace('_', ' '):<13} {_range(images[measure])}"
            yield f"  {'bytes':<13} {_range(images['bytes'])}"
            sampled = images["looked_at"] < facts["fields"][name]["present"]
            if sampled:
                yield "  a sample: near copies are looked for among these images only; all=true compares every image"
            yield f"  modes {_listed(images['modes'])}; formats {_listed(images['formats'])}"


def _unreadable(facts: dict[str, Any]) -> Iterator[str]:
    unreadable = facts.get("unreadable", {})
    for name, table in unreadable.get("tables", {}).items():
        yield f"{name}: {table['bad']:,} of {table['rows']:,} rows"
        for reason, count in table["reasons"].items():
            yield f"  {reason}: {count:,}; for example {unreadable['examples'][reason][0]}"
    if unreadable.get("of_quarantined_products"):
        yield f"pairs of left-out products: {unreadable['of_quarantined_products']:,}"


def _duplicates(facts: dict[str, Any]) -> Iterator[str]:
    if copies := facts.get("duplicates"):
        yield f"rows that repeat a product's id: {copies['rows_that_repeat_an_id']:,}"
        kinds = {"equal in every field": copies["equal_in_every_field"]}
        kinds |= {f"equal {name} (image)": value for name, value in copies["equal_image"].items()}
        kinds |= {f"equal {name}": value for name, value in copies["equal_text"].items()}
        for kind, value in kinds.items():
            such = f", for example {' = '.join(value['examples'][0])}" if value["examples"] else ""
            yield f"{kind}: {value['rows']:,} products in {value['groups']:,} groups{such}"
        for name, value in copies["near_image"].items():
            such = f", for example {' ~ '.join(value['examples'][0])}" if value["examples"] else ""
            yield f"near copies of {name}: {value['rows']:,} products of {value['looked_at']:,} examined{such}"


def _leakage(facts: dict[str, Any]) -> Iterator[str]:
    for side, leak in facts.get("leakage", {}).items():
        things = {"query": "queries", "document": "products"}[side]
        yield f"{things}: {leak['held_out']:,} held out, {leak['trained']:,} in training pairs"
        kinds = {"equal in every field": leak["equal_in_every_field"]}
        kinds |= {
            f"same {name}": leaked for kind in ("equal_text", "equal_image") for name, leaked in leak[kind].items()
        }
        kinds |= {f"near copy of {name}": leaked for name, leaked in leak["near_image"].items()}
        for where, leaked in kinds.items():
            yield f"  {where}: {leaked['rows']:,} of {leaked['of']:,}"


def _tasks(facts: dict[str, Any]) -> Iterator[str]:
    for name, task in facts.get("tasks", {}).items():
        dev, test = task["dev"], task["test"]
        yield f"{name:<16} queries {dev['queries']:,} dev, {test['queries']:,} test; corpus {task['corpus']:,}"
        lost = [
            f"{task.get(key, 0):,} {what}"
            for key, what in (
                ("queries_without_relevant", "queries without a relevant product in the corpus"),
                ("judgments_outside_corpus", "judgments outside the corpus"),
                ("dangling_judgments", "judgments of unknown products"),
            )
        ]
        yield f"  {', '.join(lost)}"


def _batches(facts: dict[str, Any]) -> Iterator[str]:
    batches = facts.get("batches", {})
    if "steps" not in batches:
        return
    per_epoch = f"{batches['steps_per_epoch']:,} steps of {batches['batch_size']:,} pairs per epoch"
    yield f"{per_epoch}; {batches['steps']:,} in the run"
    for name, own in batches.get("mix", {}).items():
        count = f"{own['pairs']:,} pairs" if "pairs" in own else f"{own['batches']:,} batches"
        yield f"  {name}: {count} per epoch, {own['passes_per_epoch']:.2f} passes"
    for side, things in (("query", "queries"), ("document", "products")):
        value = batches[side]
        counted = f"{value['counted_pairs']:.2f} counted in {batches['batches']:,} batches"
        chance = f"N(N-1)/P(P-1) * sum c(c-1)/2 over {value['distinct']:,} {things}"
        expected = f"{value['expected_pairs']:.2f} expected by chance ({chance})"
        yield f"pairs of the same {side} in a batch: {counted}, {expected}"


def _memory(facts: dict[str, Any]) -> Iterator[str]:
    if memory := facts.get("memory"):
        for name in ("parameters", "gradients_and_adam", "batch", "activations", "loss", "total"):
            yield f"{name.replace('_', ' '):<20} {memory[name] / 2**20:>10,.0f} MiB"
        micro = f"times {memory['micro_batch']:,} (train.micro_batch)"
        yield f"an estimate in float32; activations: those of one pair, measured with 12 and 4 pairs, {micro}"


def _time(facts: dict[str, Any]) -> Iterator[str]:
    if seconds := facts.get("time"):
        epoch, whole = _duration(seconds["epoch"]), _duration(seconds["run"])
        yield f"about {epoch} per epoch, {whole} in all, evaluation not included"
        each = f"reading {_duration(seconds['reading'])}, computing {_duration(seconds['computing'])}"
        yield f"per epoch: {each}, estimated from 12 and 4 pairs on this machine"


def _quantiles(distribution: dict[str, Any]) -> str:
    quantiles = distribution["quantiles"]
    return ", ".join(f"{name} {value:.4g}" for name, value in quantiles.items() if name not in ("25%", "75%"))


def _range(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in values.items())


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
