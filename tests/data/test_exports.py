"""Dirty exports, made by code: each is read into exactly these rows, or refused in exactly such a sentence."""

# ruff: noqa: E501  (a table reads best with one export on a line)

import csv
import datetime
import gzip
import io
import json
import re
import time
from typing import NamedTuple

import openpyxl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.data.catalog import Task
from gcl.data.tables import block as limits
from gcl.data.tables import delimited_file
from gcl.data.tables.block import Reading
from gcl.data.tables.cells import canonical_id, parse_number, strip_html
from gcl.data.tables.table import open_table
from gcl.schema import Field, TextForm
from helpers.small_catalog import catalog, contents, prepared

ROWS = [["p1", "für Männer – 100 €"], ["p2", "Größe 鞋"]]
WESTERN = [["p1", "für Männer – 100 €"], ["p2", "Größe “schön”"]]
HEADER = ["product_id", "title"]
STRAY = "quotation mark that swallows rows"
CELLS = "wrong number of cells"


class Export(NamedTuple):
    """A file and what reading it gives: the rows of HEADER's columns with the bad ones' {number: reason}, or a sentence
    (a regular expression)."""

    name: str
    data: bytes
    expected: list | str
    bad: dict = {}
    reading: Reading = Reading()


def text(rows=ROWS, header=HEADER, sign=",", end="\n", quoting=csv.QUOTE_MINIMAL, encoding="utf-8") -> bytes:
    target = io.StringIO(newline="")
    csv.writer(target, delimiter=sign, lineterminator=end, quoting=quoting).writerows([header, *rows])
    return target.getvalue().encode(encoding)


def lines(*records) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def sheet(*rows) -> bytes:
    book, target = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(list(row))
    book.save(target)
    return target.getvalue()


def columns(**values) -> bytes:
    target = io.BytesIO()
    parquet.write_table(pa.table(values), target)
    return target.getvalue()


RECORDS = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
MANY = [["p1", 'a "b", c'], ["p2", "two\nlines, of two"], ["p3", "x\n\ny"], ["p4", '"'], ["p5", "end"]]
SPACED = [[" p1 ", "a"], ["p2\xa0", "b"]]
READ = [["p1", "a"], ["p2", "b"]]

EXPORTS = {
    # Encodings and marks.
    "utf-8": Export("t.csv", text(), ROWS),
    "utf-8 with a mark": Export("t.csv", text(encoding="utf-8-sig"), ROWS),
    "utf-16 little": Export("t.csv", b"\xff\xfe" + text(encoding="utf-16-le"), ROWS),
    "utf-16 big": Export("t.tsv", b"\xfe\xff" + text(sign="\t", encoding="utf-16-be"), ROWS),
    "utf-16 tabs in .txt, as Excel's Unicode text": Export("t.txt", text(sign="\t", encoding="utf-16"), ROWS),
    "utf-16 without a mark": Export(
        "t.csv", text(encoding="utf-16-le"), "is UTF-16 without a mark: set data.encoding=utf-16-le"
    ),
    "utf-16 without a mark, told": Export(
        "t.csv", text(encoding="utf-16-le"), ROWS, reading=Reading(encoding="utf-16-le")
    ),
    "utf-16 big without a mark": Export("t.tsv", text(sign="\t", encoding="utf-16-be"), "set data.encoding=utf-16-be"),
    "cp1252": Export(
        "t.csv", text(WESTERN, encoding="cp1252"), r"not UTF-8 \(line 2: .*data.encoding=cp1252 if that is 'p1,für Männer"
    ),
    "cp1252, told": Export("t.csv", text(WESTERN, encoding="cp1252"), WESTERN, reading=Reading(encoding="cp1252")),
    "cp1252 in the header": Export("t.csv", b"product_id,gr\xf6\xdfe\np1,x\n", "not UTF-8 .line 1.*data.encoding=cp1252"),
    "utf-8 beside tables of cp1252": Export("t.csv", text(), ROWS, reading=Reading(encoding="cp1252")),
    "ascii beside tables of utf-16": Export("t.csv", text(READ), READ, reading=Reading(encoding="utf-16")),
    "cyrillic": Export(
        "t.csv", text([["1", "красное платье"]], encoding="cp1251"), "data.encoding=cp1251 if that is '1,красное"
    ),
    "japanese": Export("t.csv", text([["1", "赤いワンピース"]], encoding="cp932"), "data.encoding=cp932"),
    "chinese": Export("t.csv", text([["1", "红色连衣裙"]], encoding="gb18030"), "data.encoding=gb18030"),
    "json in utf-16": Export("t.jsonl", lines(*RECORDS).decode().encode("utf-16"), ROWS),
    "json with a mark": Export("t.json", b"\xef\xbb\xbf" + lines(*RECORDS), ROWS),
    "json in cp1252, told": Export(
        "t.jsonl",
        json.dumps(dict(zip(HEADER, WESTERN[0], strict=True)), ensure_ascii=False).encode("cp1252"),
        WESTERN[:1],
        reading=Reading(encoding="cp1252"),
    ),
    "bytes that are no encoding's": Export("t.csv", b"product_id,title\np1,\x81\x8d\n", "is not UTF-8 .line 2"),
    "zero bytes": Export("t.csv", b"product_id,title\n\x00\x01\x02\x00,x\n", "is not a text, it has zero bytes"),
    # Delimiters.
    "semicolons": Export("t.csv", text(sign=";"), "separated by ';' .*set data.delimiter=';'"),
    "semicolons, told": Export("t.csv", text(sign=";"), ROWS, reading=Reading(delimiter=";")),
    "commas beside semicolons": Export("t.csv", text(), ROWS, reading=Reading(delimiter=";")),
    "tabs in .csv": Export("t.csv", text(sign="\t"), "separated by tabs .*rename it to .tsv"),
    "commas in .tsv": Export("t.tsv", text(), "separated by commas .*expects tabs in a .tsv: rename it to .csv"),
    "tabs in .tsv": Export("t.tsv", text(sign="\t"), ROWS),
    "tabs in .txt": Export("t.txt", text(sign="\t"), ROWS),
    "semicolons in .txt": Export("t.txt", text(sign=";"), ROWS),
    "bars in .txt": Export("t.txt", text(sign="|"), ROWS),
    "sep=; of Excel": Export("t.csv", b"sep=;\r\n" + text(sign=";", end="\r\n"), ROWS),
    "a delimiter at the end of each row": Export("t.csv", b"product_id,title\np1,a,\np2,b,\n", READ),
    "a delimiter at the end of each line": Export("t.csv", b"product_id,title,,\np1,a,,\np2,b,,\n", READ),
    # Lines.
    "crlf": Export("t.csv", text(MANY, end="\r\n"), MANY),
    "cr alone": Export("t.csv", text(READ, end="\r"), READ),
    "no line end at the end": Export("t.csv", text(READ).rstrip(), READ),
    "empty lines": Export("t.csv", b"\n\nproduct_id,title\n\np1,a\n\n\np2,b\n\n", READ),
    "empty lines of json": Export("t.jsonl", b'\n{"product_id": "p1", "title": "a"}\n\n{"product_id":"p2","title":"b"}', READ),
    "a row too short and one too long": Export(
        "t.csv", b"product_id,title\np1,a\np9\np8,x,y\np2,b\n", READ, {2: CELLS, 3: CELLS}
    ),
    "nothing": Export("t.csv", b"", "is empty: a table needs a header and rows"),
    "white space alone": Export("t.tsv", b"\n \n", "is empty"),
    "a header alone": Export("t.csv", b"product_id,title\n", []),
    # Headers.
    "spaces in the header": Export("t.csv", b" product_id ,\xc2\xa0title\np1,a\np2,b\n", READ),
    "quotes in the header": Export("t.csv", b'"product_id","title"\np1,a\np2,b\n', READ),
    "a line end in the header": Export("t.csv", b'"size\n(cm)",product_id,title\n1,p1,a\n2,p2,b\n', READ),
    "a name twice that nobody asks for": Export("t.csv", b"tag,product_id,tag,title\nx,p1,y,a\nx,p2,y,b\n", READ),
    "a name twice": Export("t.csv", b"product_id,title,title\np1,a,x\n", "has the column 'title' more than once"),
    "another case": Export("t.csv", b"Product_ID,title\np1,a\n", "no column 'product_id'.*Did you mean 'Product_ID'"),
    "an open quote in the header": Export("t.csv", b'product_id,"title\np1,a\n', "quotation mark in the header is never"),
    # Quotation marks.
    "everything quoted": Export("t.csv", text(MANY, quoting=csv.QUOTE_ALL), MANY),
    "marks, delimiters and lines in cells": Export("t.csv", text(MANY), MANY),
    "marks inside cells": Export("t.tsv", b'product_id\ttitle\np1\tsize 32"\np2\ta "b" c\n', [["p1", 'size 32"'], ["p2", 'a "b" c']]),
    "a stray mark": Export(
        "t.tsv", b'product_id\ttitle\np1\ta\np2\t"slim\np3\tred\np4\tsize 32"\np5\tz\n',
        [["p1", "a"], ["p3", "red"], ["p4", 'size 32"'], ["p5", "z"]], {2: STRAY},
    ),
    "a stray mark in a .csv": Export(
        "t.csv", b'product_id,title\np1,"a, b"\np2,"slim\np3,red\np4,size 32"\np5,z\n',
        [["p1", "a, b"], ["p3", "red"], ["p4", 'size 32"'], ["p5", "z"]], {2: STRAY},
    ),
    "a stray mark before another": Export(
        "t.tsv", b'product_id\ttitle\np1\t"slim\np2\t"wide\np3\tc\n', [["p3", "c"]], {1: STRAY, 2: STRAY}
    ),
    "a stray mark to the end": Export(
        "t.csv", b'product_id,title\np1,a\np2,"slim\np3,c\n', [["p1", "a"], ["p3", "c"]], {2: STRAY}
    ),
    "stray marks, nothing quoted": Export(
        "t.tsv", b'product_id\ttitle\np1\t"slim\np2\twide"\n', [["p1", '"slim'], ["p2", 'wide"']], reading=Reading(quote=None)
    ),
    "single quotes": Export("t.csv", b"product_id,title\np1,'a, b'\n", [["p1", "a, b"]], reading=Reading(quote="'")),
    "descriptions over several lines": Export(
        "t.csv", b'product_id,title\np1,"Soft\nWarm, cozy\nWash, dry"\np2,"x"\n', [["p1", "Soft\nWarm, cozy\nWash, dry"], ["p2", "x"]]
    ),
    # Words for a missing value.
    "words": Export(
        "t.csv", text([[f"p{n}", word] for n, word in enumerate(["NULL", "None", "N/A", "\\N", "<NA>", " - ", "nan", "NA"])]),
        [*([f"p{n}", None] for n in range(7)), ["p7", "NA"]],
    ),
    "words of one's own": Export("t.csv", b"product_id,title\np1,k.A.\np2,NULL\n", [["p1", None], ["p2", "NULL"]], reading=Reading(missing=("k.A.",))),
    "words in json": Export("t.jsonl", lines({"product_id": "p1", "title": "n/a"}, {"product_id": "p2"}), [["p1", None], ["p2", None]]),
    "words in parquet": Export("t.parquet", columns(product_id=["p1", "p2"], title=["#N/A", None]), [["p1", None], ["p2", None]]),
    "words in a sheet": Export("t.xlsx", sheet(HEADER, ["p1", "NULL"], ["p2", None]), [["p1", None], ["p2", None]]),
    # HTML.
    "html": Export(
        "t.csv", text([["p1", "<p>Soft &amp; <b>warm</b><br/>wool</p><script>x()</script>"], ["p2", "<p> </p>"]]),
        [["p1", "Soft & warm wool"], ["p2", None]], reading=Reading(html=frozenset(["title"])),
    ),
    # Ids.
    "spaces around ids": Export("t.csv", text(SPACED), READ),
    "ids that became floats": Export("t.csv", b"product_id,title\n12.0,a\n4e+15,b\n007,c\n1.2345678E7,d\n", [["12", "a"], ["4000000000000000", "b"], ["007", "c"], ["12345678", "d"]]),
    "float ids of json": Export("t.json", b'[{"product_id": 12.0, "title": "a"}, {"product_id": 4.0e15, "title": 7}]', [["12", "a"], ["4000000000000000", "7"]]),
    "float ids of parquet": Export("t.parquet", columns(product_id=[12.0, 4e15, 1e19], title=["a", "b", "c"]), [["12", "a"], ["4000000000000000", "b"], ["10000000000000000000", "c"]]),
    "numbers of a sheet": Export("t.xlsx", sheet(HEADER, [4006381333931, 1.5], ["007", True]), [["4006381333931", "1.5"], ["007", "true"]]),
    # JSON.
    "an array": Export("t.json", json.dumps(RECORDS).encode(), ROWS),
    "an array, indented": Export("t.json", json.dumps(RECORDS, indent=2, ensure_ascii=False).encode(), ROWS),
    "an array with something else": Export("t.json", b'[{"product_id": "p1", "title": "a"}, 3, {"product_id": "p2", "title": "b"}]', READ, {2: "not a JSON object"}),
    "an array cut off": Export("t.json", json.dumps(RECORDS).encode()[:-9], "not one JSON array, or is cut off after row 1"),
    "one object over lines": Export("t.json", json.dumps(RECORDS[0], indent=1).encode(), "one JSON object over several lines"),
    "lists of texts": Export("t.jsonl", lines({"product_id": "p1", "title": ["a", None, "b"]}, {"product_id": "p2", "title": []}), [["p1", "a, b"], ["p2", None]]),
    "objects in cells": Export("t.jsonl", lines({"product_id": "p1", "title": {"de": "a"}}, *RECORDS[1:]), ROWS[1:], {1: "a list or object where a text belongs"}),
    # Parquet and Excel.
    "lists in parquet": Export("t.parquet", columns(product_id=[1, 2], title=[["a", "b"], None]), [["1", "a, b"], ["2", None]]),
    "dates of a sheet": Export("t.xlsx", sheet(HEADER, ["p1", datetime.date(2024, 2, 29)], ["p2", datetime.datetime(2024, 2, 29, 8, 5)]), [["p1", "2024-02-29"], ["p2", "2024-02-29 08:05:00"]]),
    "empty rows above and in a sheet": Export("t.xlsx", sheet([], [], HEADER, ["p1", "a"], [], ["p2", "b"]), READ),
    "a name twice in a sheet": Export("t.xlsx", sheet(["product_id", "title", "title"], ["p1", "a", "b"]), "'title' more than once"),
    # Not what the name says.
    "a Git LFS pointer": Export("t.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n", "is a Git LFS pointer.*git lfs pull"),
    "a Git LFS pointer for parquet": Export("t.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "is a Git LFS pointer"),
    "a page": Export("t.csv", b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is an HTML page"),
    "a page for json": Export("t.json", b"<html lang=en><head></head></html>", "is an HTML page"),
    "gzip": Export("t.csv", gzip.compress(text()), "is gzip: name it t.csv.gz"),
    "not gzip": Export("t.csv.gz", text(), "is not compressed with gzip: name it t.csv"),
    "gzipped": Export("t.csv.gz", gzip.compress(text()), ROWS),
    "gzip cut off": Export("t.tsv.gz", gzip.compress(text())[:-12], "cannot be unpacked, it is cut off"),
    "two gzips after each other": Export("t.csv.gz", gzip.compress(text(READ[:1])) + gzip.compress(b"p2,b\n"), READ),
    "a page, gzipped": Export("t.csv.gz", gzip.compress(b"<html>"), "is an HTML page"),
    "a sheet named .csv": Export("t.csv", sheet(HEADER), "is an Excel file: name it .xlsx"),
    "an old sheet": Export("t.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Excel file"),
    "csv named .xlsx": Export("t.xlsx", text(), "is not an Excel file, or damaged"),
    "parquet named .csv": Export("t.csv", columns(product_id=["p1"]), "is a Parquet file: name it .parquet"),
    "csv named .parquet": Export("t.parquet", text(), "is not Parquet, or damaged"),
    "json named .csv": Export("t.csv", lines(*RECORDS), "is JSON: name it .json"),
    "a pdf": Export("t.csv", b"%PDF-1.7\n", "is a PDF"),
    "a database": Export("t.csv", b"SQLite format 3\0", "is an SQLite database"),
    "a feed in xml": Export("t.txt", b'<?xml version="1.0"?><rss></rss>', "is an XML file"),
    "an archive": Export("t.csv", b"PK\x03\x04" + bytes(40), "is a ZIP archive"),
}  # fmt: skip


def read(path, reading):
    table = open_table(path.name, root=path.parent, setting="data.products", reading=reading)
    table.check_columns([(name, f"data.{name}") for name in HEADER])
    rows, bad, numbers = [], {}, []
    for block in table.blocks(HEADER):
        ids = [value and canonical_id(value) for value in block.columns["product_id"]]
        rows += map(list, zip(ids, block.columns["title"], strict=True))
        bad |= {number: reason for number, reason, _ in block.bad}
        numbers += block.number
    assert sorted([*numbers, *bad]) == numbers_of(path, numbers, bad)
    return rows, bad


def numbers_of(path, numbers, bad):
    """Rows are counted through; a sheet's empty rows count as well, as its margin shows."""
    total = len(numbers) + len(bad)
    return sorted(numbers) if path.suffix == ".xlsx" else list(range(1, total + 1))


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_gives_its_rows_or_a_sentence(tmp_path, monkeypatch, name):
    export = EXPORTS[name]
    path = tmp_path / export.name
    path.write_bytes(export.data)
    if isinstance(export.expected, str):
        with pytest.raises((ValueError, KeyError)) as error:
            read(path, export.reading)
        said = str(error.value.args[0])
        assert re.search(export.expected, said), said
        assert len(said) < 700 and str(path.name) in said
        return
    for piece in (1 << 20, 8):  # a whole file at a time, and in pieces that end anywhere
        monkeypatch.setattr(delimited_file, "PIECE", piece)
        assert read(path, export.reading) == (export.expected, export.bad)


def test_there_are_many():
    assert len(EXPORTS) >= 60


@pytest.mark.parametrize("piece", [64, 300])
def test_no_row_is_lost_wherever_a_piece_ends(tmp_path, monkeypatch, piece):
    """Every line of a file without quoting is a row or a bad row, whatever begins or ends with a quotation mark."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", piece)
    monkeypatch.setattr(delimited_file, "PIECE", piece)
    titles = [f"{'' if n % 7 else chr(34)}red shirt {n}{'' if n % 5 else chr(34)}" for n in range(500)]
    path = tmp_path / "t.tsv"
    path.write_text("product_id\ttitle\n" + "".join(f"p{n}\t{title}\n" for n, title in enumerate(titles)))
    rows, bad = read(path, Reading())
    assert len(rows) + len(bad) == 500 and set(bad.values()) == {STRAY}
    assert {row[0] for row in rows} | {f"p{number - 1}" for number in bad} == {f"p{n}" for n in range(500)}
    assert read(path, Reading(quote=None)) == ([[f"p{n}", title] for n, title in enumerate(titles)], {})


def test_lists_of_images_arrive_as_lists(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(
        lines({"image": ["a.jpg", "", "no_selection", "b.jpg"]}, {"image": []}, {"image": "-"})
    )
    (tmp_path / "t.parquet").write_bytes(columns(image=[["a.jpg", None, "b.jpg"], [], None]))
    (tmp_path / "b.parquet").write_bytes(
        columns(image=[[{"bytes": b"\xff", "path": None}, {"bytes": None, "path": "a"}]])
    )
    for name, expected in (("t.jsonl", [["a.jpg", "b.jpg"], None, None]), ("t.parquet", [["a.jpg", "b.jpg"], None, None]), ("b.parquet", [[b"\xff", "a"]])):  # fmt: skip
        table = open_table(name, root=tmp_path, setting="data.products")
        assert [cell for block in table.blocks((), ["image"]) for cell in block.columns["image"]] == expected


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "xlsx"])
def test_words_and_html_are_noted_where_they_stand(tmp_path, suffix):
    rows = [["p1", "N/A"], ["NULL", "<b>x</b>"], ["p3", "a < b & c"]]
    made = {
        "csv": text(rows), "xlsx": sheet(HEADER, *rows), "jsonl": lines(*(dict(zip(HEADER, row, strict=True)) for row in rows)),
        "parquet": columns(product_id=[row[0] for row in rows], title=[row[1] for row in rows]),
    }  # fmt: skip
    (tmp_path / f"t.{suffix}").write_bytes(made[suffix])
    (block,) = open_table(f"t.{suffix}", root=tmp_path, setting="data.products").blocks(HEADER)
    assert block.missing == {0: {"title": "N/A"}, 1: {"product_id": "NULL"}} and block.html == {"title": 1}


@pytest.mark.parametrize(
    ("said", "decimal", "value"),
    [
        ("1.5", ".", 1.5), ("1,234.5", ".", 1234.5), ("1,234,567", ".", 1234567), ("85%", ".", 0.85), ("12.5 %", ".", 0.125),
        ("1 234.5", ".", 1234.5), ("1'234", ".", 1234), ("0,5", ".", None), ("1,23", ".", None), ("1e-3", ".", 1e-3),
        ("abc", ".", None), ("", ".", None), ("1,5", ",", 1.5), ("1.234,5", ",", 1234.5), ("1.234", ",", 1234), ("1.5", ",", None),
        ("85,5%", ",", 0.855), ("7", ",", 7), ("1.5", ".,", 1.5), ("1,5", ".,", 1.5), ("1.234", ".,", 1.234), ("4 5", ".", None),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(said, decimal, value):
    assert parse_number(said, decimal) == value


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain  text", "plain text"), ("<p>a</p><p>b</p>", "a b"), ("a<b>b</b>c", "abc"), ("&lt;p&gt; &amp;amp;", "<p> &amp;"),
        ("x<!-- <p>no</p> -->y", "xy"), ("<style>p {a: b}</style>z", "z"), ("5 < 6 & 7 > 2", "5 < 6 & 7 > 2"),
        ("<ul><li>a<li>b</ul>", "a b"), ('<img alt="x > y">a', "a"), ("a&nbsp;b&#8364;", "a b€"),
    ],
)  # fmt: skip
def test_html_is_what_a_page_shows(said, shown):
    assert strip_html(said) == shown


def prepare_text(tmp_path, products: bytes, pairs: bytes, name="products.csv", **options):
    (tmp_path / name).write_bytes(products)
    (tmp_path / "pairs.csv").write_bytes(pairs)
    given = catalog(tmp_path, products=name, pairs="pairs.csv", score="score", **options)
    return prepared(given, tmp_path / "out")


def test_a_catalog_written_in_several_ways_is_one(tmp_path):
    """Encoding, delimiter, decimal sign, words for missing, HTML and float ids, all in one catalog."""
    made = [[f"{n}.0", f"<p>Größe {n}</p>", "k. A." if n % 2 else "rot"] for n in range(40)]
    found = prepare_text(
        tmp_path,
        text(made, header=["product_id", "title", "brand"], sign=";", encoding="cp1252"),
        b"query,product_id,score\n" + b"".join(b'thing %d,%d,"%d,5"\n' % (n, n, n) for n in range(40)),
        document={"title": Field(text=TextForm.html), "brand": Field()},
        encoding="cp1252",
        delimiter=";",
        decimal=",",
        missing=["k. A."],
    )
    assert found.documents.ids[3] == "3" and found.documents[3] == {"title": "Größe 3", "brand": None}
    assert sorted(found.pairs.score.tolist()) == [n + 0.5 for n in range(40)]
    assert found.counts["missing_words"] == {"products.csv": {"brand": {"k. A.": 20}}} and not found.counts["html"]


def test_a_word_for_missing_is_no_id_and_the_reason_says_so(tmp_path):
    rows = [[f"p{n}", f"thing {n}"] for n in range(40)]
    pairs = b"query,product_id,score\n" + b"".join(b"q%d,p%d,1\n" % (n, n) for n in range(40))
    with pytest.raises(ValueError, match=r"no product id: 1.*row 41: no product id: product_id: 'NULL' is a word for"):
        prepare_text(tmp_path, text([*rows, ["NULL", "x"]]), pairs)


@pytest.mark.parametrize(
    ("products", "said"),
    [
        (b"product_id,title\n" + b"p,a,b\n" * 40, "40 of 40 rows .*wrong number of cells: 40.*row 1: .*3 cells, the header has 2"),
        (b"product_id,title\n" + b"p1,N/A\n" * 40, r"no value in any of its 40 rows.*'title'.*but words for a missing value .*'N/A'"),
    ],
)  # fmt: skip
def test_the_first_cause_is_told(tmp_path, products, said):
    with pytest.raises(ValueError, match=said) as error:
        prepare_text(tmp_path, products, b"query,product_id,score\nq,p1,1\n")
    assert "set data.max_bad higher" not in str(error.value)


JUDGED = [(f"q{n}", f"p{(3 * n + step) % 40}", 1 + step % 2) for n in range(20) for step in range(3)]
TREC = "".join(f"{query} 0 {document} {grade}\n" for query, document, grade in JUDGED)
TRUTH: dict = {}
for query, document, grade in JUDGED:
    TRUTH.setdefault(query, {})[document] = grade


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("qrels.trec", TREC), ("qrels.test", TREC), ("qrels", TREC), ("qrels.txt", TREC), ("qrels.tsv", TREC.replace(" ", "\t")),
        ("marked.trec", "\ufeff# judged 2024, pool depth 100\n\n" + TREC.replace(" ", "  \t").replace("\n", " \r\n")),
        ("truth.json", json.dumps(TRUTH)), ("indented.json", json.dumps(TRUTH, indent=2)),
        ("table.txt", "query_id\tproduct_id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in JUDGED)),
        ("array.json", json.dumps([{"query_id": q, "product_id": d, "score": g} for q, d, g in JUDGED])),
    ],
)  # fmt: skip
def test_judgments_are_read_whatever_tool_wrote_them(tmp_path, name, data):
    (tmp_path / name).write_bytes(data.encode())
    (tmp_path / "queries.csv").write_bytes(text([[f"q{n}", f"asked {n}"] for n in range(20)], ["query_id", "query"]))
    task = Task(queries="queries.csv", qrels=name, corpus="all")
    rows = [[f"p{n}", f"thing {n}"] for n in range(40)]
    pairs = b"query,product_id,score\n" + b"".join(b"thing %d,p%d,1\n" % (n, n) for n in range(40))
    found = contents(prepare_text(tmp_path, text(rows), pairs, tasks={"judged": task}))
    got = [row for (task, _), (_, judged) in found["tasks"].items() if task == "judged" for row in judged]
    assert sorted(got) == sorted((query, document, float(grade)) for query, document, grade in JUDGED)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", pytest.param("parquet", marks=pytest.mark.slow)])
def test_a_hundred_thousand_columns_are_answered_in_a_readable_sentence(tmp_path, suffix):
    names = [*HEADER, *(f"attribute_{n}" for n in range(100_000))]
    made = {
        "csv": lambda: text([["p1", "a", *[""] * 100_000]], names),
        "jsonl": lambda: lines(dict.fromkeys(names, "x")),
        "parquet": lambda: columns(**{name: ["x"] for name in names}),
    }
    path = tmp_path / f"t.{suffix}"
    begun = time.process_time()
    path.write_bytes(made[suffix]())
    start = time.process_time()
    with pytest.raises(KeyError) as error:
        open_table(path.name, root=tmp_path, setting="data.products").check_columns([("titel", "data.document.titel")])
    assert time.process_time() - start < 10 + 10 * (start - begun), "as writing takes, on a slow machine as well"
    assert "… and 99,982 more" in str(error.value) and "Did you mean 'title'" in str(error.value)
    assert len(str(error.value)) < 700
