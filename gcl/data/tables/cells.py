"""What a cell says: an id in its one form, a number as people write it, a text that was written as HTML."""

from __future__ import annotations

import re
from decimal import Decimal
from html.parser import HTMLParser

Cell = str | bytes | list[str | bytes] | None
"""Of a text column a str or None; of an image column a path or URL, the bytes, a list of these, or None."""

HTML = r"(?i)</?[a-z][^<>]*>|&(?:[a-z]{2,8}|#[0-9]{2,5}|#x[0-9a-f]{2,5});"
"""What tells that a text was written as HTML: a tag or an entity, in the syntax of re and of Arrow."""
FILLERS = frozenset((
    "unknown", "unbekannt", "k.a.", "k. a.", "n.a.", "keine angabe", "tbd", "none", "not available", "(null)",
    "undefined", "?", "--", "---", "leer", "empty",
))  # fmt: skip
"""What shops write, in any case, where they have nothing to say; data.missing has what is never anything else."""

# White space, and marks that are as invisible.
_BLANK_SIGNS = (*range(9, 14), *range(28, 33), 133, 160, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F)
BLANK = "".join(map(chr, (*_BLANK_SIGNS, 0x3000, 0xFEFF)))
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")
_POWER = re.compile(r"-?\d(?:\.\d+)?e\+\d{2,3}|-?\d\.\d+E\d{1,3}")  # as C, Python, Arrow and as Java write large floats
_GROUPS = re.compile(r"(?<=\d)[ \xa0\u2007\u2009\u202f'\u2019](?=\d{3}(?!\d))")  # whatever the decimal sign is
_THOUSANDS = {  # by decimal sign
    ".": re.compile(r"([+-]?[1-9]\d{0,2})((?:,\d{3})+)(\.\d*)?"),
    ",": re.compile(r"([+-]?[1-9]\d{0,2})((?:\.\d{3})+)(,\d*)?"),
}


def canonical_id(text: str) -> str:
    """The one form of an id, wherever it was written: without white space around it, and a number that became a
    float on the way as the whole number it was. Leading zeros are kept.

    >>> [canonical_id(text) for text in ("12.0", "4.0e+15", " 007\\xa0", "1.50", "1E5")]
    ['12', '4000000000000000', '007', '1.50', '1E5']
    """
    if text.isalnum():
        return text  # nearly all
    text = text.strip(BLANK)
    if "." in text or "e+" in text:
        if whole := _WHOLE.fullmatch(text):
            return whole[1]
        if _POWER.fullmatch(text):
            return plain_number(text)
    return text


def plain_number(digits: str) -> str:
    """A number's digits without an exponent or a fraction of zeros, where it is whole; else as it was written.

    >>> plain_number("4.0e15"), plain_number("7.0"), plain_number("0.10"), plain_number("1.5e-7")
    ('4000000000000000', '7', '0.10', '1.5e-7')
    """
    if digits.endswith(".0"):
        return digits[:-2]
    if "e" in digits or "E" in digits:
        number = Decimal(digits)
        if number == number.to_integral_value() and number.adjusted() < 400:  # no further than a float reaches
            return f"{number:.0f}"
    return digits


def parse_number(text: str, decimal: str = ".") -> float | None:
    """A number as people write it; None where it is none. `85%` is 0.85.

    decimal: the decimal sign, "." or ","; ".,": written by a program or by a person who writes ",". The other sign,
    spaces and apostrophes may separate thousands.

    >>> parse_number("1,234.5"), parse_number("1.234,5", ","), parse_number("1.234", ".,")
    (1234.5, 1234.5, 1.234)
    >>> parse_number("85%"), parse_number("0,5"), parse_number("0,5", ",")
    (0.85, None, 0.5)
    """
    try:
        if decimal != ",":
            return float(text)  # nearly all
    except ValueError:
        pass
    text = text.strip(BLANK)
    if text.endswith("%"):
        number = parse_number(text[:-1], decimal)
        return None if number is None else number / 100
    text = _GROUPS.sub("", text)
    if thousands := _THOUSANDS[decimal[-1]].fullmatch(text):
        text = thousands[1] + re.sub(r"\D", "", thousands[2]) + (thousands[3] or "")
    elif decimal == "," and "." in text:
        return None
    try:
        return float(text.replace(",", ".") if decimal != "." else text)
    except ValueError:
        return None


class _Text(HTMLParser):
    """Collects what a reader of a page sees."""

    _HIDDEN = frozenset(("script", "style", "template"))
    _INLINE = frozenset(
        "a abbr b bdi bdo cite code em font i ins kbd mark q s small span strong sub sup u var wbr".split()
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden is None and tag in self._HIDDEN:
            self._hidden = tag
        if tag not in self._INLINE:
            self.pieces.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pieces.append("" if tag in self._INLINE else " ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = None
        if tag not in self._INLINE:
            self.pieces.append(" ")

    def handle_data(self, data: str) -> None:
        if self._hidden is None:
            self.pieces.append(data)


def strip_html(text: str) -> str:
    """What a page with this HTML shows, on one line: tags, comments, scripts and styles left out, entities decoded.

    >>> strip_html("<p>Soft &amp; <b>warm</b></p><ul><li>wool<li>size&nbsp;32</ul><style>p{}</style>")
    'Soft & warm wool size 32'
    """
    if "<" in text or "&" in text:
        page = _Text()
        page.feed(text)
        page.close()
        text = "".join(page.pieces)
    return " ".join(text.split())
