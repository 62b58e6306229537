"""From facts to findings: what has to be fixed before training, and what is worth a look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

# A share above one of these is a problem (the command ends with status 1) ...
LEAKED = 0.01  # held-out queries or products that are also in training, equal in every field or with the same image
DANGLING = 0.10  # judgments of a task for products that are not in the catalog
# ... and above one of these a warning (status 0).
UNREACHABLE = 0.10  # queries of a task that have no relevant product in its corpus
LEAKED_IN_PART = 0.05  # the same, with one equal text or with an image that only looks alike
TRUNCATED = 0.05  # texts longer than the model's context
REPEATED = 0.05  # products that occur twice, and places of a batch whose query occurs earlier in it
RARE = 0.01  # a field that a smaller share of the records has
COUNTS = (
    "What counts as a problem: the catalog, its scores or the batch size cannot be used; more than "
    f"{LEAKED:.0%} of the held-out products or queries are also in training (equal in every field, or with the same "
    f"image); more than {DANGLING:.0%} of a task's judgments are of products not in the catalog; a stored image "
    "cannot be read."
)


Level = Literal["problem", "warning"]


class Finding(NamedTuple):
    """One sentence of the doctor; problems make the exit status 1."""

    level: Level
    text: str


def judge(facts: dict[str, Any]) -> list[Finding]:
    """The findings on the doctor's facts, problems first."""
    findings = [finding for part in (_refusals, _fields, _leaks, _tasks, _weights, _batches) for finding in part(facts)]
    return sorted(findings, key=lambda finding: finding.level != "problem")


def _refusals(facts: dict[str, Any]) -> Iterator[Finding]:
    for part in ("catalog", "weights", "batches"):
        if refused := facts.get(part, {}).get("refused"):
            yield Finding("problem", refused)


def _fields(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, field in facts.get("fields", {}).items():
        if field["share"] < RARE:
            yield Finding("warning", f"{name}: {field['present']:,} of {field['rows']:,} records have a value.")
    for name, field in facts.get("tokens", {}).items():
        if field["share_over"] > TRUNCATED:
            cut = f"{field['share_over']:.1%} are cut at the {field['context_length']} tokens that the model reads."
            yield Finding("warning", f"{name}: of its texts, {cut}")
    for name, images in facts.get("images", {}).items():
        if images["unreadable"]:
            share = f"{images['unreadable']:,} of {images['looked_at']:,}"
            yield Finding("problem", f"{name}: {share} images cannot be read.")
    copies = facts.get("duplicates")
    if copies:
        kinds = {"are equal to another in every field": copies["equal_in_every_field"]}
        kinds |= {f"have the same {name} as another": copied for name, copied in copies["equal_image"].items()}
        for kind, copied in kinds.items():
            if copied["rows"] > REPEATED * copies["products"]:
                yield Finding("warning", f"{copied['rows']:,} of {copies['products']:,} products {kind}.")


def _leaks(facts: dict[str, Any]) -> Iterator[Finding]:
    for side, leak in facts.get("leakage", {}).items():
        thing = {"query": "held-out queries", "document": "held-out products"}[side]
        whole = {"in every field": leak["equal_in_every_field"]}
        whole |= {f"in the image {name}": leaked for name, leaked in leak["equal_image"].items()}
        part = {f"in {name}": leaked for name, leaked in leak["equal_text"].items()}
        part |= {f"in a near copy of {name}": leaked for name, leaked in leak["near_image"].items()}
        levels: tuple[tuple[Level, float, dict[str, Any]], ...] = (
            ("problem", LEAKED, whole), ("warning", LEAKED_IN_PART, part),
        )  # fmt: skip
        for level, limit, kinds in levels:
            for where, leaked in kinds.items():
                if leaked["of"] and leaked["rows"] > limit * leaked["of"]:
                    share = f"{leaked['rows']:,} of {leaked['of']:,} {thing} ({leaked['rows'] / leaked['of']:.1%})"
                    such = f", for example {', '.join(map(repr, leaked['examples']))}" if leaked["examples"] else ""
                    yield Finding(level, f"{share} equal one in training {where}{such}.")


def _tasks(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, task in facts.get("tasks", {}).items():
        judged = sum(task[part]["judgments"] for part in ("dev", "test"))
        queries = sum(task[part]["queries"] for part in ("dev", "test"))
        losses: tuple[tuple[Level, float, str, int, str], ...] = (
            ("problem", DANGLING, "dangling_judgments", judged, "judgments are of products not in the catalog"),
            ("warning", UNREACHABLE, "queries_without_relevant", queries, "queries have no relevant product there"),
        )
        for level, limit, key, kept, what in losses:
            lost = task.get(key, 0)
            if lost > limit * (lost + kept):
                yield Finding(level, f"Task {name}: {lost:,} of {lost + kept:,} {what}.")


def _weights(facts: dict[str, Any]) -> Iterator[Finding]:
    weights = facts.get("weights", {})
    if not weights.get("count"):
        return
    if weights["bad"]:
        yield Finding("problem", f"{weights['bad']:,} pairs have a weight that is negative or not a number.")
    if weights["zero"] == weights["count"]:
        yield Finding("problem", "Every pair has weight 0.")
    elif weights["zero"]:
        share = f"{weights['zero']:,} of {weights['count']:,} pairs"
        yield Finding("warning", f"{share} have weight 0 and contribute nothing to training.")
    if weights["effective_pairs"] < 0.1 * weights["count"]:
        like = f"{weights['count']:,} pairs count as much as {weights['effective_pairs']:,.0f} equal ones"
        yield Finding("warning", f"The weights are so uneven that {like}.")


def _batches(facts: dict[str, Any]) -> Iterator[Finding]:
    batches = facts.get("batches", {})
    for side in ("query", "document"):
        if side in batches and batches[side]["counted_places"] > REPEATED * batches["batch_size"]:
            different = batches["batch_size"] - batches[side]["counted_places"]
            things = f"different {'queries' if side == 'query' else 'products'} on average"
            few = f"A batch of {batches['batch_size']:,} pairs holds only {different:,.0f} {things}"
            yield Finding("warning", f"{few}: see plan.unique and loss.same_{side}.")
    memory = facts.get("memory")
    if memory and memory["available"] and memory["total"] > memory["available"]:
        total, available = (f"{memory[name] / 2**30:.1f} GiB" for name in ("total", "available"))
        lacking = f"A step needs about {total}, but only {available} are available ({memory['device']})"
        yield Finding("warning", f"{lacking}: set train.micro_batch.")
