"""HTML and SVG from values: whatever is not Markup already is escaped, so a catalog's text can never become a tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

_VOID = {"meta", "br", "img", "hr", "rect", "line", "circle", "path", "polyline"}


class Markup(str):
    """HTML that is safe as it is."""

    def __html__(self) -> str:
        return self


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element. `class_` is class, `data_value` is data-value; an attribute of None or False is left out.

    >>> tag("p", "1 < 2", tag("b", "!"), class_="note", hidden=True, title=None)
    '<p class="note" hidden>1 &lt; 2<b>!</b></p>'
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(str(value))}"')
    opened = f"<{' '.join(words)}>"
    if name in _VOID:
        return Markup(opened + (f"</{name}>" if name not in ("meta", "br", "img", "hr") else ""))
    return Markup(opened + join(*children) + f"</{name}>")


def join(*children: Any) -> Markup:
    """Children one after another; None is nothing."""
    return Markup("".join(str(c) if isinstance(c, Markup) else escape(str(c)) for c in children if c is not None))


def untrusted(text: str, name: str = "span", **attributes: Any) -> Markup:
    """Text out of a catalog: escaped, and kept from turning the direction of what surrounds it."""
    return tag(name, text, dir="auto", **attributes)


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 400, 240, 46, 12, 12, 44


class Line(NamedTuple):
    """One line of a chart: x[n], y[n] in order of x."""

    name: str
    x: np.ndarray
    y: np.ndarray


def share_bar(better: int, same: int, worse: int) -> Markup:
    """A bar divided into three; its numbers stand in the text beside it."""
    total, start, parts = max(better + same + worse, 1), 0.0, []
    for name, count in (("better", better), ("same", same), ("worse", worse)):
        width = 100 * count / total
        if count:
            parts.append(tag("rect", class_=name, x=f"{start:.2f}%", y="0", width=f"{width:.2f}%", height="100%"))
        start += width
    return tag("svg", *parts, class_="share", aria_hidden="true")


def hatch() -> Markup:
    """The texture of "worse", defined once per page."""
    inside = join(
        tag("rect", class_="wash-of-worse", width="6", height="6"),
        tag("line", class_="ink-of-worse", x1="1.5", x2="1.5", y1="0", y2="6"),
    )
    pattern = tag(
        "pattern",
        inside,
        id="hatch",
        width="6",
        height="6",
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
    return tag("svg", tag("defs", pattern), class_="patterns", aria_hidden="true")


def whisker(change: float, low: float, high: float, limit: float, *, kind: str) -> Markup:
    """A change and its interval around zero, on a scale that ends at -limit and +limit. kind: better, worse or same."""

    def x(value: float) -> str:
        return f"{60 + 56 * max(-1.0, min(1.0, value / limit if limit else 0.0)):.1f}"

    return tag(
        "svg",
        tag("line", class_="zero", x1="60", x2="60", y1="1", y2="19"),
        tag("line", class_="reach", x1=x(low), x2=x(high), y1="10", y2="10"),
        tag("circle", cx=x(change), cy="10", r="3.5"),
        class_=f"whisker {kind}", viewBox="0 0 120 20", width="120", height="20", aria_hidden="true",
    )  # fmt: skip


def chart(
    lines: Sequence[Line],
    *,
    label: str,
    mark: tuple[float, float] | None = None,
    across: str = "step",
    least_span: float = 0.0,
    most: float = np.inf,
) -> Markup:
    """Lines over steps, or what `across` names, with a scale of round numbers. mark: a point to point out. least_span:
    what the scale covers at least, so that small differences look small. most: where it ends, at the latest: shares are
    at most 1."""
    xs, ys = np.concatenate([line.x for line in lines]), np.concatenate([line.y for line in lines])
    top = float(ys.max())
    right, ticks = max(float(xs.max()), 1.0), round_ticks(min(float(ys.min()), top - least_span), top, most=most)
    low, high = ticks[0], ticks[-1]
    left = max(_LEFT, 10 + 9 * max(len(f"{tick:.6g}") for tick in ticks))  # room for the longest number

    def at(x: float, y: float) -> str:
        place = left + (_WIDTH - left - _RIGHT) * x / right
        down = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - y) / (high - low)
        return f"{place:.1f},{down:.1f}"

    def split(point: str) -> tuple[str, str]:
        x, _, y = point.partition(",")
        return x, y

    drawn = []
    for tick in ticks:
        y = split(at(0, tick))[1]
        drawn.append(tag("line", class_="grid", x1=left, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        drawn.append(tag("text", f"{tick:.6g}", class_="tick end", x=left - 8, y=float(y) + 4))
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        x = split(at(right * share, low))[0]
        drawn.append(tag("text", f"{right * share:,.0f}", class_=f"tick {anchor}", x=x, y=_HEIGHT - 26))
    drawn.append(tag("text", across, class_="tick middle", x=(left + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 10))
    for number, line in enumerate(lines):
        points = " ".join(at(x, y) for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True))
        drawn.append(tag("polyline", class_=f"line line-{number % 6}", points=points))
        if len(line.x) == 1:
            x, y = split(points)
            drawn.append(tag("circle", class_=f"dot line-{number % 6}", cx=x, cy=y, r="3"))
    if mark is not None:
        x, y = split(at(*mark))
        drawn.append(tag("circle", class_="mark", cx=x, cy=y, r="5"))
    return tag("svg", *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="chart", role="img", aria_label=label)


def legend(names: Sequence[str]) -> Markup:
    """The lines' names, each beside a piece of its line."""
    items = [
        tag("li", tag("svg", tag("line", class_=f"line line-{n % 6}", x1="0", x2="28", y1="6", y2="6"),
                      width="28", height="12", aria_hidden="true"), " ", name)
        for n, name in enumerate(names)
    ]  # fmt: skip
    return tag("ul", join(*items), class_="legend")


def drawing(charts: Mapping[str, Markup], names: Sequence[str], style: str) -> str:
    """An SVG file, for pages without styles of ours: charts side by side, by their titles, and the legend below."""
    above, row, columns = 24, 20, len(charts)
    parts = [tag("style", Markup(style)), tag("rect", style="fill: var(--paper)", width="100%", height="100%")]
    for number, (title, one) in enumerate(charts.items()):
        parts.append(tag("text", title, x=_WIDTH * number + _LEFT, y=above - 6))
        parts.append(tag("svg", one, x=_WIDTH * number, y=above, width=_WIDTH, height=_HEIGHT))
    for number, name in enumerate(names):
        y = above + _HEIGHT + row * number
        parts.append(tag("line", class_=f"line line-{number % 6}", x1=_LEFT, x2=_LEFT + 28, y1=y, y2=y))
        parts.append(tag("text", name, x=_LEFT + 36, y=y + 4))
    size = {"width": _WIDTH * columns, "height": above + _HEIGHT + row * len(names)}
    view = f"0 0 {size['width']} {size['height']}"
    return tag("svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=view, class_="chart", **size)


def round_ticks(low: float, high: float, about: int = 4, *, most: float = np.inf) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, which is at most `most`; none is above that.

    >>> round_ticks(0.32, 0.71)
    [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    >>> round_ticks(1.0, 1.0), round_ticks(1.0, 1.0, most=1)
    ([1.0, 1.25], [0.75, 1])
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / about
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [float(round(number * step, 10)) for number in np.arange(first, last + 1)]
    if ticks[-1] <= most:
        return ticks
    return [*([tick for tick in ticks if tick < most] or [most - step]), most]
