"""The parts of the page that are plain HTML: what was found, explanations, facts. They read without JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gcl.retrieval.metrics.metrics import explained, spelled
from gcl.retrieval.metrics.statistics import Comparison
from gcl.retrieval.page.contest import Entry
from gcl.retrieval.page.figures import share_bar
from gcl.retrieval.page.markup import Markup, join, tag, untrusted
from gcl.retrieval.page.words import FEW, interval, outcome, signed, verdict


def head(entry: Entry, comparison: Comparison, metric: str, label: str, base: str) -> Markup:
    """The finding of the first task, in words, a bar and three figures."""
    c = comparison
    firm = "too few for a firm answer" if c.n < FEW else "measured with both models"
    return tag(
        "div",
        tag("p", untrusted(entry.title, "b"), f": {entry.description}" if entry.description else None, class_="kicker"),
        tag("p", verdict(c, label), ".", class_="verdict"),
        tag("p", outcome(c), class_="outcome"),
        share_bar(c.wins, c.ties, c.losses),
        tag(
            "ul",
            tag("li", tag("b", f"▲ {c.wins:,}"), " better", class_="better"),
            tag("li", tag("b", f"= {c.ties:,}"), " the same", class_="same"),
            tag("li", tag("b", f"▼ {c.losses:,}"), " worse", class_="worse"),
            class_="shares",
        ),
        tag(
            "dl",
            _figure(spelled(metric), join(f"{c.before:.3f} → ", tag("b", f"{c.after:.3f}")), f"{base} → {label}"),
            _figure("Change", tag("b", signed(c.change)), f"95 % interval {interval(c.low, c.high)}"),
            _figure("Searches", tag("b", f"{c.n:,}"), firm),
            class_="figures",
        ),
        class_="finding",
    )


def _figure(name: str, value: Markup, note: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", note)))


def metric_notes(metrics: Iterable[str]) -> Markup:
    return tag("ul", *(tag("li", explained(metric)) for metric in metrics), class_="notes")


def facts_list(facts: Mapping[str, Any]) -> Markup:
    """Name and value; a mapping inside is written out, name by name."""
    return tag("dl", *_facts(facts), class_="facts")


def _facts(facts: Mapping[str, Any], prefix: str = "") -> list[Markup]:
    found = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found += _facts(value, f"{prefix}{name}: ")
            continue
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else "–" if value is None else str(value)
        found.append(tag("div", untrusted(f"{prefix}{name}".replace("_", " "), "dt"), untrusted(text, "dd")))
    return found
