"""One table in five renderings: the same cells in each, and none of them runs what a catalog wrote."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

from gcl.table import Table, plain_csv, plain_markdown, visible

HOSTILE = [
    "=HYPERLINK(\"http://evil\",\"x\")", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1+1", "\r=1+1", " =1+1", "＝1+1",
    "\x1b[2J\x1b]0;title\x07", "a\nb\r\nc", "a|b", "**bold** _it_ `code` ~~no~~", "[x](javascript:alert(1))",
    "![x](y)", "<script>alert(1)</script>", "<!-- c", "&lt;b&gt;", "\u202edlog", "\ud800", "'quoted\"", "\\| \\", "",
    "\u2028line", "\x9b31m", "<img src=x onerror=1>", "鞋 red", "e\u0301",
]  # fmt: skip


def hostile() -> Table:
    return Table(
        ["name", *HOSTILE[:4], "n"],
        [[text, text, text, text, text, -number / 3] for number, text in enumerate(HOSTILE)],
        title=HOSTILE[8] + HOSTILE[14], align="lllll", notes=HOSTILE,
    )  # fmt: skip


def test_a_terminal_obeys_no_cell():
    lines = hostile().text().split("\n")
    assert len(lines) == 3 + 2 * len(HOSTILE)  # no cell breaks a line
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", "".join(lines))
    "".join(lines).encode()  # lone surrogates can be printed, too
    assert "\\x1b[2J" in visible(HOSTILE[8]) and "\\u202e" in visible(HOSTILE[17])


def test_columns_are_aligned_by_what_a_terminal_draws():
    text = Table(["name", "n"], [["鞋", 1], ["e\u0301", 22], ["abcd", 333]]).text().split("\n")
    assert text[2:] == ["鞋      1", "e\u0301      22", "abcd  333"]
    grouped = Table(["task", "n"], [["a", 1], ["a", 2], ["b", 3]], grouped=True).text().split("\n")
    assert grouped[2:] == ["a     1", "a     2", "", "b     3"]


def test_a_grouped_table_that_is_too_wide_has_its_groups_in_lines_of_their_own():
    rows = [["known", "map", 1], ["known", "mrr", 2], ["new", "map", 3]]
    table = Table(["task", "metric", "n"], rows, align="ll", grouped=True)
    assert table.text(width=16) == table.text() != table.text(width=15)
    assert table.text(width=15).split("\n") == [
        "metric  n", "------  -", "", "known", "map     1", "mrr     2", "", "new", "map     3",
    ]  # fmt: skip


def test_markdown_shows_markup_and_keeps_its_columns():
    markdown = pytest.importorskip("markdown_it")
    html = markdown.MarkdownIt("gfm-like", {"linkify": False}).render(hostile().markdown())
    cells = re.findall(r"<t[dh](?: style=\"text-align:\w+\")?>(.*?)</t[dh]>", html)
    assert len(cells) == 6 * (1 + len(HOSTILE))
    shown = Text.of(html)
    assert shown.tags <= {"h2", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}  # none comes from a cell
    for number, text in enumerate(HOSTILE):
        assert Text.of(cells[6 * (1 + number)]).text == visible(text).strip()


def test_markdown_of_ordinary_cells_stays_readable():
    for text in ("zero_shot", "ndcg@10", "+0.0123 … -0.2", "< .001", "R&D", "1/2/3", "new: searches, 5 % (a)"):
        assert plain_markdown(text) == text


def test_a_spreadsheet_runs_nothing_and_numbers_stay_numbers():
    rows = list(csv.reader(io.StringIO(hostile().csv(), newline="")))
    for row in rows:
        for cell in row[:5]:
            assert not re.match(r"[\t\r\n]|\s*[=+\-@＝]", cell)
    for number, row in enumerate(rows[1:]):
        assert float(row[5]) == -number / 3  # to the last bit
        assert row[0].removeprefix("'") == HOSTILE[number].removeprefix("'")
    for number in (-1, -0.5, -1e-300, float("-inf"), "-1", "+.5", "-1,024.5", "-3 %", "-1e-7"):
        assert plain_csv(number) is number
    for text in ("-", "+", "-1+1", "-1 1", "-a", "+49 30 1234"):
        assert plain_csv(text) == f"'{text}"


def test_html_opens_no_tag_of_a_cell():
    table = hostile()
    shown = Text.of(table.html())
    assert shown.tags == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "ul", "li"}
    for text in HOSTILE:
        if "\r" not in text:  # a parser makes a line feed of it
            assert text in shown.text

    class Cell(str):
        def __html__(self):
            return "<td>done</td>"

    assert '<tr><td data-label="a">done</td></tr>' in Table(["a"], [[Cell("x")]]).html()
    figures = Table(["name", "n"], [["a", 1024]], formats={"n": ","}).html()
    assert '<td class="number" data-label="n" data-value="1024">1,024</td>' in figures


def test_values_survive_where_programs_read_and_are_formatted_where_people_do():
    table = Table(
        ["task", "value", "bytes", "p"], [["a", 1 / 3, 12345, None], ["b", -1.0, 0, 0.5]],
        formats={"bytes": ",", "p": ".1f"},
    )  # fmt: skip
    assert json.loads(table.json()) == table.records()
    assert table.records()[0] == {"task": "a", "value": 1 / 3, "bytes": 12345, "p": None}
    back = list(csv.DictReader(io.StringIO(table.csv())))
    assert float(back[0]["value"]) == 1 / 3 and back[0]["p"] == ""
    for shown in (table.text(), table.markdown(), table.html()):
        assert "0.3333" in shown and "12,345" in shown and "-1.0000" in shown and "0.5" in shown
    assert table.renamed(str.upper).text() == table.text().replace("task ", "TASK ").replace("value", "VALUE").replace(
        "bytes", "BYTES"
    ).replace("p\n", "P\n")
    assert Table.of_records(table.records()).csv() == table.csv()
    assert Table.of_records([{"a": 1}, {"b": "x"}]).rows == [[1, None], [None, "x"]]


def test_what_cannot_be_a_table_is_refused():
    with pytest.raises(ValueError, match="Row 2 of the table 't' has 1 cells, its header 2"):
        Table(["a", "b"], [["x", 1], ["y"]], title="t")
    with pytest.raises(ValueError):
        Table(["a"], [[float("nan")]]).json()


class Text(HTMLParser):
    """The tags of some HTML and the text that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    @classmethod
    def of(cls, html: str) -> "Text":
        parser = cls()
        parser.feed(html)
        parser.close()
        return parser

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data
