"""What a deployment says of itself: README.md, and parity.html with the table and the curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl.exports.engines.engine import Engine, Here
from gcl.exports.engines.parity import METRIC
from gcl.exports.engines.program import FILE, Program
from gcl.files.atomic import write_text
from gcl.retrieval.page.document import asset, document, page_body
from gcl.retrieval.page.markup import Line, Markup, chart, drawing, join, legend, tag
from gcl.table import Table, code_span, plain_markdown

_FAILED = "It does not rank as the run was measured."
_STYLES = ("base.css", "report.css")
_STORIES = {
    "overlap@10": "Share of the exact top 10 that is found, over the candidates that the index looks at.",
    METRIC: "nDCG@10 of what is found, over the candidates that the index looks at.",
}
CURVES = "parity.svg"


def deploy_card(
    program: Program, url: str | None, about: str, table: Table | None, shorts: Sequence[str], *, curves: bool = False
) -> str:
    """README.md of a deployment. table: None where nothing was measured. curves: whether there are any."""
    engine = program.engine
    here = {Here.database: ", in this folder", Here.check: "", Here.files: ", not checked"}[engine.here]
    place = f", at {code_span(url)}" if url else here
    serve = ["", "A server is started by", "", f"    {engine.serve}"] if engine.serve and not url else []
    written = [f"This folder has {engine.files}."] if engine.files and not url else []
    measured = [row[0] for row in table.rows] if table else []
    unknown = "" if program.setting.name in measured else ", which a deployment with `url=…` measures"
    return "\n".join([
        f"# {plain_markdown(about)}: {engine.title}", "", f"{engine.title}{place}: {engine.explanation}.",
        *written, *serve, "",
        *([f"**{_FAILED}**", "", *(f"- {plain_markdown(one)}" for one in shorts), ""] if shorts else []),
        "## How to ask", "", *(f"    {line}" for line in program.lines), "",
        f"asks in the setting `{program.setting.name}`{unknown}. From Python:", "",
        "    from search import search", "", *(f"    {line}" for line in program.calls), "",
        f"`{FILE}` needs the run and gcl. It is short and yours to change: how a query's vector is made, and what "
        "the engine is asked.", "",
        "## How it ranks", "",
        *([f"![Overlap and nDCG over candidates]({CURVES})", ""] if curves else []),
        *([table.markdown(), "", "`parity.html` is this as a page."] if table else [
            f"That is not known yet: with `url=…` (such as {code_span(engine.url)}), a server is loaded and checked.",
        ]), "",
    ])  # fmt: skip


def write_page(
    folder: Path, engine: Engine, about: str, table: Table, rows: Sequence[Mapping[str, Any]], shorts: Sequence[str]
) -> bool:
    """parity.html: the sentences of what is short, the curves, the table. Returns whether there are curves, which
    parity.svg has as well."""
    told = tag("ul", *(tag("li", one) for one in shorts), class_="notes") if shorts else None
    failed = [("failed", "Failed", _FAILED, told)] if told else []
    lines = {column: _lines(rows, column) for column in _STORIES}
    names = [line.name for line in lines[METRIC]]
    charts = {
        column: chart(of, label=_STORIES[column], across="candidates", least_span=0.1, most=1)
        for column, of in lines.items()
        if of
    }
    figures = [
        tag("figure", one, legend(names) if len(names) > 1 else None, tag("figcaption", _STORIES[column]))
        for column, one in charts.items()
    ]
    curves = tag("div", *figures, class_="charts") if figures else None
    parts = [*failed, ("settings", "Settings", "How it ranks", join(curves, Markup(table.html())))]
    title = f"{engine.title}: {about}"
    body = page_body(title, parts, skip=("settings", "Skip to the settings"))
    write_text(folder / "parity.html", document(title, body, styles=_STYLES, scripts=("tables.js",)))
    if charts:
        write_text(folder / CURVES, drawing(charts, names, "\n".join(map(asset, _STYLES))))
    return bool(charts)


def _lines(rows: Sequence[Mapping[str, Any]], column: str) -> list[Line]:
    """A column over the candidates that an index looks at, a line for each quantization and way."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.get("depth") and not row["filtered"]:
            way = re.sub(r",? \w+ \d+", "", row["setting"])
            points.setdefault(f"{way}, {row['quantization']}", []).append((row["depth"], row[column]))
    return [Line(name, *np.array(sorted(of), float).T) for name, of in points.items()]
