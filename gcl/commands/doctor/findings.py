"""From facts to findings: what has to be fixed before training, and what is worth a look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

# A share above one of these is a problem (the command ends with status 1) ...
LEAKED = 0.01  # held-out queries or products that training has as well, in every field or by their image
DANGLING = 0.10  # judgments of a task that name products the catalog lacks
# ... and above one of these a warning (status 0).
UNREACHABLE = 0.10  # a task's queries without a relevant product that can be found
LEAKED_IN_PART = 0.05  # by one text, or by an image that only looks the same
TRUNCATED = 0.05  # texts longer than the model reads
REPEATED = 0.05  # products that are the same thing twice, and places of a batch whose query came before
RARE = 0.01  # a field that fewer records have
COUNTS = (
    "What counts as a problem: the catalog, its scores or the batch size are refused; more than "
    f"{LEAKED:.0%} of the held-out products or queries are in training as well (equal in every field, or the same "
    f"image); more than {DANGLING:.0%} of a task's judgments name products the catalog lacks; a stored image "
    "cannot be read."
)


Level = Literal["problem", "warning"]


class Finding(NamedTuple):
    """One sentence of the doctor; problems make the exit status 1."""

    level: Level
    text: str


def judge(facts: dict[str, Any]) -> list[Finding]:
    """Problems first."""
    found = [finding for part in (_refusals, _fields, _leaks, _tasks, _weights, _batches) for finding in part(facts)]
    return sorted(found, key=lambda finding: finding.level != "problem")


def _refusals(facts: dict[str, Any]) -> Iterator[Finding]:
    for part in ("catalog", "weights", "batches"):
        if refused := facts.get(part, {}).get("refused"):
            yield Finding("problem", refused)


def _fields(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, field in facts.get("fields", {}).items():
        if field["share"] < RARE:
            yield Finding("warning", f"{name}: {field['present']:,} of {field['rows']:,} records have it.")
    for name, field in facts.get("tokens", {}).items():
        if field["share_over"] > TRUNCATED:
            words = f"{field['share_over']:.1%} are longer than the {field['context_length']} tokens the model reads."
            yield Finding("warning", f"{name}: {words}")
    for name, images in facts.get("images", {}).items():
        if images["unreadable"]:
            share = f"{images['unreadable']:,} of {images['looked_at']:,}"
            yield Finding("problem", f"{name}: {share} images cannot be read.")
    copies = facts.get("duplicates")
    if copies:
        kinds = {"are equal to another in every field": copies["equal_in_every_field"]}
        kinds |= {f"have the same {name} as another": found for name, found in copies["equal_image"].items()}
        for words, found in kinds.items():
            if found["rows"] > REPEATED * copies["products"]:
                yield Finding("warning", f"{found['rows']:,} of {copies['products']:,} products {words}.")


def _leaks(facts: dict[str, Any]) -> Iterator[Finding]:
    for side, leak in facts.get("leakage", {}).items():
        thing = {"query": "held-out queries", "document": "held-out products"}[side]
        whole = {"in every field": leak["equal_in_every_field"]}
        whole |= {f"by the image {name}": found for name, found in leak["equal_image"].items()}
        part = {f"by {name}": found for name, found in leak["equal_text"].items()}
        part |= {f"by a near copy of {name}": found for name, found in leak["near_image"].items()}
        levels: tuple[tuple[Level, float, dict[str, Any]], ...] = (
            ("problem", LEAKED, whole), ("warning", LEAKED_IN_PART, part),
        )  # fmt: skip
        for level, limit, kinds in levels:
            for words, found in kinds.items():
                if found["of"] and found["rows"] > limit * found["of"]:
                    share = f"{found['rows']:,} of {found['of']:,} {thing} ({found['rows'] / found['of']:.1%})"
                    such = f", for example {', '.join(map(repr, found['examples']))}" if found["examples"] else ""
                    yield Finding(level, f"{share} equal one of training {words}{such}.")


def _tasks(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, task in facts.get("tasks", {}).items():
        judged = sum(task[part]["judgments"] for part in ("dev", "test"))
        queries = sum(task[part]["queries"] for part in ("dev", "test"))
        losses: tuple[tuple[Level, float, str, int, str], ...] = (
            ("problem", DANGLING, "dangling_judgments", judged, "judgments name products the catalog lacks"),
            ("warning", UNREACHABLE, "queries_without_relevant", queries, "queries have no relevant product to find"),
        )
        for level, limit, key, kept, words in losses:
            lost = task.get(key, 0)
            if lost > limit * (lost + kept):
                yield Finding(level, f"Task {name}: {lost:,} of {lost + kept:,} {words}.")


def _weights(facts: dict[str, Any]) -> Iterator[Finding]:
    found = facts.get("weights", {})
    if not found.get("count"):
        return
    if found["bad"]:
        yield Finding("problem", f"{found['bad']:,} pairs get a weight that is negative or no number.")
    if found["zero"] == found["count"]:
        yield Finding("problem", "Every pair gets the weight 0.")
    elif found["zero"]:
        yield Finding("warning", f"{found['zero']:,} of {found['count']:,} pairs get the weight 0 and teach nothing.")
    if found["effective_pairs"] < 0.1 * found["count"]:
        like = f"{found['count']:,} pairs count like {found['effective_pairs']:,.0f}"
        yield Finding("warning", f"The weights are so uneven that {like}.")


def _batches(facts: dict[str, Any]) -> Iterator[Finding]:
    found = facts.get("batches", {})
    for side in ("query", "document"):
        if side in found and found[side]["counted_places"] > REPEATED * found["batch_size"]:
            different = found["batch_size"] - found[side]["counted_places"]
            things = f"different {'queries' if side == 'query' else 'products'} on average"
            words = f"A batch of {found['batch_size']:,} holds only {different:,.0f} {things}"
            yield Finding("warning", f"{words}: see plan.unique, loss.same_{side}.")
    memory = facts.get("memory")
    if memory and memory["available"] and memory["total"] > memory["available"]:
        yield Finding("warning", f"A step needs about {memory['total'] / 2**30:.1f} GiB, {memory['device']} has "
                                 f"{memory['available'] / 2**30:.1f}: set train.micro_batch.")  # fmt: skip
