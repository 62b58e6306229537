"""Several models by name: who is ahead on which task, and whose difference may be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from gcl.data.titles import title_within
from gcl.retrieval.analysis.verdict import FIRM, is_seen
from gcl.retrieval.metrics.metrics import spelled
from gcl.retrieval.metrics.statistics import FEWEST, Interval, bootstrap, compare, holm
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.markup import Markup, tag, untrusted

_SAMPLES = 2000  # of the paired tests: there is one for each pair of models and task


@dataclass(frozen=True)
class Place:
    """A model on one task. group: those of one group are ties, 0 is the best."""

    label: str
    interval: Interval
    group: int


def standings(entries: Sequence[Entry], metric: str, *, seed: int = 0) -> dict[str, list[Place]]:
    """{key of the task: its models, the best first}. Two models tie unless the paired test, Holm-corrected over pairs
    and tasks, tells them apart. A model joins the group of the model above it if it ties with the best of that group.
    """
    labels = list(entries[0].results)
    tests: dict[object, float] = {
        (entry.key, one, other): compare(
            entry.values(one, metric), entry.values(other, metric), samples=_SAMPLES, seed=seed
        ).p
        for entry in entries
        for one, other in combinations(labels, 2)
    }
    corrected = holm(tests)

    def apart(entry: Entry, one: str, other: str) -> bool:
        key = (entry.key, one, other) if (entry.key, one, other) in corrected else (entry.key, other, one)
        return len(entry.task.queries) >= FEWEST and corrected[key] < FIRM

    places = {}
    for entry in entries:
        intervals = {label: bootstrap(entry.values(label, metric), seed=seed) for label in labels}
        ranked = sorted(labels, key=lambda label: -intervals[label].mean)
        best, group, found = ranked[0], 0, []
        for label in ranked:
            if label != best and apart(entry, best, label):
                best, group = label, group + 1
            found.append(Place(label, intervals[label], group))
        places[entry.key] = found
    return places


def winner(entries: Sequence[Entry], places: dict[str, list[Place]]) -> str:
    """Who won, in one sentence without its full stop; tasks that training has seen do not count."""
    held_out = [entry for entry in entries if not is_seen(entry.key)] or list(entries)
    ahead = {entry.key: [place.label for place in places[entry.key] if place.group == 0] for entry in held_out}
    leaders = [set(labels) for labels in ahead.values()]
    everywhere = set.intersection(*leaders)
    alone = {label: sum(one == {label} for one in leaders) for label in set.union(*leaders)}
    tasks = f"{len(held_out)} tasks" if len(held_out) > 1 else title_within(held_out[0].key, held_out[0].title)
    for label in everywhere:
        if alone[label] == len(held_out):
            return f"{label} wins on {'all ' if len(held_out) > 1 else ''}{tasks}"
        if alone[label]:
            return f"{label} wins: ahead of all others on {alone[label]} of {tasks}, tied for the lead on the rest"
    if everywhere:
        return f"No winner: {_and(sorted(everywhere))} tie for the lead on {tasks}"
    parts = [f"{_and(ahead[one.key])} on {title_within(one.key, one.title)}" for one in held_out]
    return f"No single winner: in front are {'; '.join(parts)}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def board(entry: Entry, places: Sequence[Place], metric: str) -> Markup:
    """One task: a line per model with its value on a scale from 0 to the best upper end, and its interval."""
    limit = max(place.interval.high for place in places) or 1.0
    sizes = [sum(other.group == place.group for other in places) for place in places]
    lines = []
    for number, (place, size) in enumerate(zip(places, sizes, strict=True)):
        starts = number == 0 or places[number - 1].group != place.group
        ends = number == len(places) - 1 or places[number + 1].group != place.group
        look = "bracket" + (" tie" + " first" * starts + " last" * ends if size > 1 else "")
        rank = 1 + sum(other.group < place.group for other in places)
        i = place.interval
        lines.append(
            tag(
                "li",
                tag("span", str(rank), class_="rank"),
                untrusted(place.label, "b"),
                _bar(i, limit),
                tag("span", f"{i.mean:.3f}", class_="value"),
                tag("small", f"{i.low:.3f} to {i.high:.3f}"),
                tag("span", "tie" if size > 1 and starts else "", class_=look),
                class_="leader" if place.group == 0 else None,
            )
        )
    n = len(entry.task.queries)
    few = f", too few searches ({n}) to tell models apart" if n < FEWEST else f", {n:,} searches"
    head = tag("h3", untrusted(entry.title), tag("small", f"{spelled(metric)}{few}"))
    return tag("section", head, tag("ol", *lines), class_="board")


def _bar(i: Interval, limit: float) -> Markup:
    def x(value: float) -> str:
        return f"{100 * max(value, 0.0) / limit:.2f}%"

    width = f"{100 * max(i.high - max(i.low, 0.0), 0.0) / limit:.2f}%"
    return tag(
        "svg",
        tag("rect", class_="value", x="0", y="4", width=x(i.mean), height="8"),
        tag("rect", class_="reach", x=x(i.low), y="6.5", width=width, height="3"),
        class_="measure", width="100%", height="16", aria_hidden="true",
    )  # fmt: skip
