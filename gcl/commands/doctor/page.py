"""The doctor's page, twice: as text for a terminal, and as one HTML file with pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from gcl.commands.doctor.findings import COUNTS, Finding
from gcl.commands.doctor.sections import Bars, Card, Cards, Cuts, Part, sections
from gcl.retrieval.page.document import document, page_body
from gcl.retrieval.page.markup import Markup, join, tag, untrusted
from gcl.schema import SideName
from gcl.table import Table, visible

Picture = Callable[[SideName, int], str | None]
"""(side, row) -> the data URI of a record's small picture, or None."""

_SETTING = re.compile(r"('?~?(?:data|loss|model|plan|train)[.=][^\s,]*(?:\{.*\}|\[.*\])?'?)")
_BAR = 40  # characters of the longest bar


def text_page(facts: dict[str, Any], findings: Sequence[Finding]) -> str:
    """For a terminal; the findings come last, where they are read first."""
    lines = [f"gcl doctor: {facts['name']}", ""]
    for section in sections(facts):
        lines.append(section.title)
        for number, part in enumerate(section.parts):
            apart = number and not (isinstance(part, str) and isinstance(section.parts[number - 1], str))
            lines += [""] if apart else []
            lines += [f"  {line}".rstrip() for line in _text(part)]
        lines.append("")
    lines.append("Findings")
    for finding in findings:
        lines.append(f"  {finding.level}: {visible(finding.text)}")
        lines += [f"    {visible(example)}" for example in finding.examples]
        lines += [f"    do: {visible(finding.do)}"] if finding.do else []
    return "\n".join([*lines, f"  {verdict(facts, findings)}", f"  {COUNTS}", f"  ({facts['seconds']:.1f} s)"])


def verdict(facts: dict[str, Any], findings: Sequence[Finding]) -> str:
    """The doctor's answer."""
    problems = sum(finding.level == "problem" for finding in findings)
    trained = facts.get("training", True)
    if problems:
        return f"{problems} to fix before {'training' if trained else 'measuring'}."
    return f"No problems: the catalog is ready for {'training' if trained else 'measuring'}."


def _text(part: Part) -> list[str]:
    if isinstance(part, str):
        return [visible(part)]
    if isinstance(part, Table):
        return part.text().split("\n")
    if isinstance(part, Bars):
        most = max(count for _, count in part.bars)
        return [
            f"{part.caption}",
            *(f"  {label:>18} {count:>11,} {'#' * round(_BAR * count / most)}" for label, count in part.bars),
        ]
    if isinstance(part, Cuts):
        return [f"{part.caption}:", *(f"  {visible(kept)} | {visible(lost)}" for kept, lost in part.texts)]
    return [f"{part.caption}:", *(f"  {visible(card.line)}" for card in part.cards)]


def html_page(facts: dict[str, Any], findings: Sequence[Finding], picture: Picture) -> str:
    """One file that reads without JavaScript and loads nothing."""
    parts = [("findings", "Findings", "Findings", _findings(facts, findings))]
    for section in sections(facts):
        content = join(*(_html(part, picture) for part in section.parts))
        parts.append((section.name.lower(), section.name, section.title, content))
    title = f"gcl doctor: {facts['name']}"
    body = page_body(title, parts, skip=("findings", "Skip to the findings"))
    return document(title, body, styles=("base.css", "report.css", "doctor.css"), scripts=("tables.js",))


def _findings(facts: dict[str, Any], findings: Sequence[Finding]) -> Markup:
    shown = [
        tag(
            "li",
            tag("p", tag("b", finding.level, class_="level"), " ", untrusted(finding.text), class_="said"),
            tag("ul", *(tag("li", untrusted(one)) for one in finding.examples)) if finding.examples else None,
            tag("p", tag("b", "do: "), _with_settings(finding.do), class_="do") if finding.do else None,
            class_=finding.level,
        )
        for finding in findings
    ]
    return join(
        tag("p", verdict(facts, findings), class_="verdict"),
        tag("ul", *shown, class_="findings") if shown else None,
        tag("p", COUNTS, class_="hint"),
    )


def _with_settings(do: str) -> Markup:
    parts = _SETTING.split(do)  # every second one is a setting
    return tag("span", *(tag("code", part) if place % 2 else part for place, part in enumerate(parts)), dir="auto")


def _html(part: Part, picture: Picture) -> Markup:
    if isinstance(part, str):
        return tag("p", untrusted(part))
    if isinstance(part, Table):
        return Markup(part.html())
    if isinstance(part, Bars):
        return _bars(part)
    if isinstance(part, Cuts):
        texts = (tag("li", untrusted(kept), " ", untrusted(lost, "del")) for kept, lost in part.texts)
        return tag("figure", tag("figcaption", part.caption), tag("ul", *texts, class_="cuts"))
    return _cards(part, picture)


def _bars(bars: Bars) -> Markup:
    most = max(count for _, count in bars.bars)
    lines = [
        tag(
            "div",
            tag("dt", label),
            tag("dd", tag("svg", tag("rect", width=f"{100 * count / most:.1f}%", height="100%"), aria_hidden="true"),
                tag("span", f"{count:,}")),
        )
        for label, count in bars.bars
    ]  # fmt: skip
    return tag("figure", tag("figcaption", bars.caption), tag("dl", *lines, class_="bars"))


def _cards(cards: Cards, picture: Picture) -> Markup:
    shown = tag("ul", *(_card(card, picture) for card in cards.cards), class_="cards")
    return tag("figure", tag("figcaption", cards.caption), shown, class_="shelf")


def _card(card: Card, picture: Picture) -> Markup:
    source = picture(card.side, card.row)
    frame = tag("img", src=source, alt="") if source else tag("span", "no picture", class_="nothing")
    return tag(
        "li",
        tag("p", untrusted(card.kicker), class_="asked") if card.kicker else None,
        tag("span", frame, class_="frame"),
        untrusted(card.title, class_="name"),
        tag("small", untrusted(card.note)) if card.note else None,
        class_="card",
    )
