"""Every format says the same; nothing is changed on the way; what cannot be read is named in a sentence."""

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.data.catalog import BACKSLASH, Catalog
from gcl.data.tables import block as limits
from gcl.data.tables.block import Reading
from gcl.data.tables.formats import SUFFIXES
from gcl.data.tables.table import Table, open_table
from helpers.small_catalog import write_table

ROWS = [
    {"product_id": "007", "title": 'a "quoted", title', "note": None},
    {"product_id": "1e5", "title": "two\nlines", "note": "  "},
    {"product_id": "0012.50", "title": "naïve Größe 鞋", "note": "nan"},
    {"product_id": "NA", "title": " space around ", "note": "null"},
]
EXPECTED = {
    "product_id": ["007", "1e5", "0012.50", "NA"],
    "title": ['a "quoted", title', "two\nlines", "naïve Größe 鞋", " space around "],
    "note": [None, None, None, None],
}
FORMATS = [suffix[1:] + zipped for suffix in SUFFIXES for zipped in ("", ".gz")]

PLAIN = Reading()


def opened(path, reading=PLAIN):
    return open_table(path.name, root=path.parent, setting="data.products", reading=reading)


def read(path, columns, image=(), reading=PLAIN):
    found = {name: [] for name in [*columns, *image]}
    numbers, bad = [], []
    for block in opened(path, reading).blocks(columns, image):
        numbers += block.number
        bad += block.bad
        for name in found:
            found[name] += block.columns[name]
    return found, numbers, bad


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_strings(tmp_path, suffix):
    path = write_table(tmp_path / f"table.{suffix}", ROWS)
    assert opened(path).columns == ["product_id", "title", "note"]
    assert read(path, ["product_id", "title", "note"]) == (EXPECTED, [1, 2, 3, 4], [])
    assert read(path, ["note"])[0] == {"note": EXPECTED["note"]}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path, suffix):
    path = write_table(tmp_path / f"table.{suffix}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert opened(path).columns[0] == "product_id"
    assert read(path, ["title"])[0]["title"] == EXPECTED["title"]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl"])
def test_other_encodings_are_refused_in_a_sentence_or_read_as_data_encoding_says(tmp_path, suffix):
    plain = write_table(tmp_path / f"plain.{suffix.removesuffix('.gz')}", [{"title": "Größe"}] * 3)
    path = tmp_path / f"table.{suffix}"
    data = plain.read_text(encoding="utf-8").encode("cp1252")
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    with pytest.raises(ValueError, match="not UTF-8.*data.encoding=cp1252 if that is .*Größe.*iconv -f cp1252"):
        read(path, ["title"])
    assert read(path, ["title"], reading=Reading(encoding="cp1252"))[0] == {"title": ["Größe"] * 3}


def test_bytes_that_are_not_utf8_far_down_are_refused_too(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"title\n" + b"plain\n" * 2_000_000 + "Größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read(path, ["title"])


def test_row_numbers_skip_nothing_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK_BYTES", 256)
    monkeypatch.setattr(limits, "BLOCK_ROWS", 5)
    lines = [f"{number},row {number}" if number % 7 else f"{number},too,many" for number in range(1, 400)]
    path = tmp_path / "table.csv"
    path.write_text("id,text\n" + "\n".join(lines) + "\n")
    found, numbers, bad = read(path, ["id"])
    assert found["id"] == [str(number) for number in numbers] == [str(n) for n in range(1, 400) if n % 7]
    assert [number for number, *_ in bad] == [n for n in range(1, 400) if n % 7 == 0]
    assert bad[0][1:] == ("wrong number of cells", "3 cells, the header has 2")


def test_json_lines_rows_that_are_no_records_are_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK_ROWS", 2)
    path = tmp_path / "table.jsonl"
    path.write_text('{"a": "1"}\nnot json\n\n[1]\n{"a": {"x": 1}}\n{"b": 1}\n"\\ud800"\n{"a": "6"}\n')
    found, numbers, bad = read(path, ["a"])
    assert (found["a"], numbers) == (["1", None, "6"], [1, 5, 7])
    assert [(number, reason) for number, reason, _ in bad] == [
        (2, "not a JSON object"),
        (3, "not a JSON object"),
        (4, "a list or object where a text belongs"),
        (6, "not a JSON object"),
    ]
    assert opened(path).columns == ["a", "b"]


def test_json_numbers_keep_their_digits(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"a": 12345678901234567890, "b": 0.10}\n{"a": 7.0, "b": NaN}\n{"a": true, "b": null}\n')
    assert read(path, ["a", "b"])[0] == {"a": ["12345678901234567890", "7", "true"], "b": ["0.10", None, None]}


def test_parquet_types_become_the_text_a_person_would_write(tmp_path):
    path = tmp_path / "table.parquet"
    columns = {
        "integer": pa.array([1, None, 3]),
        "as_float": pa.array([1.0, float("nan"), 3.5]),
        "category": pa.array(["a", None, "b"]).dictionary_encode(),
        "large": pa.array(["x", "", "z"], pa.large_string()),
        "flag": pa.array([True, False, None]),
        "raw": pa.array([b"1", b"2", None]),
    }
    parquet.write_table(pa.table(columns), path)
    assert read(path, list(columns))[0] == {
        "integer": ["1", None, "3"],
        "as_float": ["1", None, "3.5"],
        "category": ["a", None, "b"],
        "large": ["x", None, "z"],
        "flag": ["true", "false", None],
        "raw": ["1", "2", None],
    }
    parquet.write_table(pa.table({"tags": [["a", "b"]]}), path)
    assert read(path, ["tags"])[0] == {"tags": ["a, b"]}
    parquet.write_table(pa.table({"tags": [{"a": "b"}]}), path)
    with pytest.raises(ValueError, match="'tags' holds struct.*one value"):
        read(path, ["tags"])


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_table_that_is_written_again_is_read_again_whatever_its_time_says(tmp_path, suffix):
    for count in (3, 90, 4):
        path = write_table(tmp_path / f"table.{suffix}", ROWS[:1] * count)
        os.utime(path, (7, 7))  # two writes may fall into one tick of the file system's clock
        assert read(path, ["product_id"])[0] == {"product_id": ["007"] * count}


def test_parquet_images_are_bytes_or_paths(tmp_path):
    path = tmp_path / "table.parquet"
    columns = {
        "raw": pa.array([b"\xff\xd8", None, b""]),
        "hf": pa.array([{"bytes": b"\x89P", "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]),
        "path": pa.array(["c.png", " ", None]),
    }
    parquet.write_table(pa.table(columns), path)
    assert read(path, [], list(columns))[0] == {
        "raw": [b"\xff\xd8", None, None],
        "hf": [b"\x89P", "b.png", None],
        "path": ["c.png", None, None],
    }


def test_several_files_are_one_table(tmp_path):
    write_table(tmp_path / "part-1.csv", ROWS[:2])
    write_table(tmp_path / "part-2.csv", ROWS[2:])
    table = open_table("part-*.csv", root=tmp_path, setting="data.products")
    blocks = list(table.blocks(["product_id"]))
    assert [(block.file.name, block.number) for block in blocks] == [("part-1.csv", [1, 2]), ("part-2.csv", [1, 2])]
    write_table(tmp_path / "part-3.csv", [{"product_id": "1", "name": "x"}])
    with pytest.raises(ValueError, match="part-3.csv has the columns product_id, name.*same columns"):
        _ = open_table("part-*.csv", root=tmp_path, setting="data.products").columns


def test_missing_columns_are_named_with_the_nearest(tmp_path):
    table = opened(write_table(tmp_path / "table.csv", ROWS))
    with pytest.raises(KeyError) as error:
        table.check_columns([("Title", "data.document.name"), ("colour", "data.query.colour"), ("note", "fine")])
    message = str(error.value)
    assert "table.csv has no column 'Title' (data.document.name)" in message
    assert "product_id, title, note" in message and "Did you mean 'title'?" in message
    assert "'colour' (data.query.colour)" in message and "fine" not in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", b"", "empty"),
        ("table.csv", b"a,b,a\n1,2,3\n", "column 'a' more than once"),
        ("table.jsonl", b'[{"a": 1}, {"a"', "JSON array.*cut off after row 1"),
        ("table.jsonl", b"\n", "no JSON object"),
        ("table.jsonl", b'{"a": 1},\n', "no JSON object.* Row 1: Extra data"),
        ("table.json", b'{"a": {"0": 1}, "b": {"0": 2}}', r"object of objects \(a, b\); .*pandas.*orient='records'"),
        ("table.csv", b"a,b\n1,\0\n", "zero bytes .the first in line 2.: export it again"),
        ("table.xlsx", b"a,b\n1,2\n", "text, not an Excel file: name it .csv"),
        ("table.xlsx", b"\xd0\xcf\x11\xe0" + b"\0" * 99, "an old Excel file .*or one with a password"),
        ("table.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("table.csv.gz", b"no gzip", "not compressed with gzip: name it table.csv"),
        (
            "table.jsonl.gz",
            gzip.compress(json.dumps({"a": "b" * 9999}).encode())[:-20],
            "cannot be unpacked, it is cut off",
        ),
    ],
)
def test_broken_files_are_refused_in_a_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name, opened(tmp_path / name).columns)


def test_a_file_in_utf_16_that_was_cut_is_called_so(tmp_path):
    (tmp_path / "table.csv").write_bytes("id,title\n1,é\n".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match="begins as UTF-16 and is not that to its end: it is cut off"):
        read(tmp_path / "table.csv", ["id"])


def test_a_quotation_mark_never_closed_takes_its_own_row_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK_BYTES", 1 << 20)
    (tmp_path / "table.csv").write_text('a,b\n1,"x\n' + "2,y\n" * 1_000_000)
    found, numbers, bad = read(tmp_path / "table.csv", ["a"])
    assert found["a"] == ["2"] * 1_000_000 and numbers == list(range(2, 1_000_002))
    assert [(number, reason) for number, reason, _ in bad] == [(1, "quotation mark that swallows rows")]
    assert "the cell '\"x' is never closed" in bad[0][2] and "data.quote=null" in bad[0][2]


def test_marks_that_backslashes_escape_are_named_and_read_as_the_setting_says(tmp_path, monkeypatch):
    monkeypatch.setattr("gcl.data.tables.source.PIECE", 7)  # marks and their backslashes in different pieces
    titles = ['5" wide', '5"', 'say "hi", you', "C:\\a\\", '\\"', "two\nlines", "plain", '"', "\\\\", ""]
    with open(tmp_path / "table.csv", "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target, quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\", lineterminator="\n")
        writer.writerows([("id", "title"), *enumerate(titles)])
    expected = [title or None for title in titles]
    assert read(tmp_path / "table.csv", ["title"], reading=Reading(quote=BACKSLASH))[0] == {"title": expected}
    found, _, bad = read(tmp_path / "table.csv", ["title"])
    assert not any(title and '"' in title for title in found["title"])
    assert {reason for _, reason, _ in bad} == {"backslash before a quotation mark"}
    assert all("data.quote=backslash" in detail for *_, detail in bad)


def test_formulas_that_were_never_computed_are_named_where_their_column_is_read(tmp_path):
    book = openpyxl.Workbook()
    for row in (["id", "title", "price"], ["p1", "desk", "=1+1"], ["p2", None, "=1+2"]):
        book.active.append(row)
    book.save(tmp_path / "table.xlsx")
    assert read(tmp_path / "table.xlsx", ["id", "title"])[0]["title"] == ["desk", None]
    with pytest.raises(ValueError, match="cell C2 of the column 'price' is a formula that no program has computed yet"):
        read(tmp_path / "table.xlsx", ["price"])


def test_a_workbook_whose_first_sheet_is_empty_names_the_others(tmp_path):
    book = openpyxl.Workbook()
    book.create_sheet("Products").append(["id", "title"])
    book.save(tmp_path / "table.xlsx")
    with pytest.raises(ValueError, match="its first sheet is empty; .* Others are Products: move the one with the"):
        assert opened(tmp_path / "table.xlsx").columns


def test_a_header_in_the_middle_is_no_row(tmp_path):
    (tmp_path / "table.csv").write_text("id,title\n1,id\nid,title\n2,b\n")
    found, numbers, bad = read(tmp_path / "table.csv", ["id", "title"])
    assert found["id"] == ["1", "2"] and numbers == [1, 3]
    assert [(number, reason) for number, reason, _ in bad] == [(2, "the header again")]


def test_files_put_together_with_their_marks_have_one_header(tmp_path):
    (tmp_path / "table.csv").write_text("\ufeffid,title\n1,a\n\ufeffid,title\n2,b\n", encoding="utf-8")
    assert read(tmp_path / "table.csv", ["id", "title"])[0] == {"id": ["1", "2"], "title": ["a", "b"]}


def test_what_keeps_a_spreadsheet_from_making_numbers_is_no_text(tmp_path):
    (tmp_path / "table.csv").write_text('id,title\n="007",="5 ""mug"""\n"=""008""",="mug"&"x"\n=1,"=""red"""\n')
    expected = {"id": ["007", "008", "=1"], "title": ['="5 ""mug"""', '="mug"&"x"', "red"]}
    assert read(tmp_path / "table.csv", ["id", "title"])[0] == expected


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_title_cut_within_an_emoji_is_a_title(tmp_path, suffix):
    rows = '{"id":"1","title":"mug \\ud83d"}\n{"id":"2","title":"mug \\ud83d\\ude00"}'
    (tmp_path / f"table.{suffix}").write_text(f"[{rows.replace(chr(10), ',')}]" if suffix == "json" else rows)
    assert read(tmp_path / f"table.{suffix}", ["title"]) == ({"title": ["mug ?", "mug 😀"]}, [1, 2], [])


def test_a_table_whose_every_row_takes_several_lines_is_read(tmp_path):
    (tmp_path / "table.csv").write_text(
        "id,title\n" + "".join(f'p{n},"red mug {n}\nbig, with handle"\n' for n in range(9))
    )
    found, _, bad = read(tmp_path / "table.csv", ["id", "title"])
    assert found["title"] == [f"red mug {n}\nbig, with handle" for n in range(9)] and not bad


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pa.array([b"\xfc", b"b"]), "the column 'a' holds binary that is no text"),
        (pa.array([b"a" * 16] * 2, pa.binary(16)), r"the column 'a' holds fixed_size_binary\[16\] that is no text"),
    ],
)
def test_bytes_that_are_no_text_are_said_of_their_column(tmp_path, values, said):
    parquet.write_table(pa.table({"a": values}), tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "table.parquet", ["a"])


def test_halves_of_floats_are_numbers_and_a_column_there_twice_is_told(tmp_path):
    parquet.write_table(pa.table({"a": pa.array(np.array([1, 2.5], np.float16))}), tmp_path / "half.parquet")
    assert read(tmp_path / "half.parquet", ["a"])[0]["a"] == ["1", "2.5"]
    twice = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], ["a", "a"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="twice.parquet has the column 'a' more than once"):
        read(tmp_path / "twice.parquet", ["a"])


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "красный стул red"),
        ("cp932", "赤い椅子 red shirt"),
        ("gb18030", "红色椅子 red shirt"),
        ("cp1252", "für € red"),
    ],
)
def test_the_encoding_that_fits_is_named_in_titles_of_two_scripts(tmp_path, encoding, text):
    (tmp_path / "table.csv").write_bytes(f"id,title\np1,{text} model 7\n".encode(encoding))
    with pytest.raises(ValueError, match=f"set data.encoding={encoding} if that is .*{text.split()[0]}"):
        read(tmp_path / "table.csv", ["title"])


def test_utf32_with_a_mark_is_read(tmp_path):
    (tmp_path / "table.csv").write_bytes("a,b\né,y\n".encode("utf-32"))
    assert read(tmp_path / "table.csv", ["a"])[0]["a"] == ["é"]


def test_a_header_below_other_lines_is_found(tmp_path):
    (tmp_path / "table.csv").write_text("Export of 2024\n\nid,title\n1,a\n")
    with pytest.raises(KeyError, match="Line 3 seems to be the header: delete the lines above it"):
        opened(tmp_path / "table.csv").check_columns([("title", "data.document.title")])


def test_a_tab_that_a_shell_left_as_two_signs_is_a_tab(tmp_path):
    (tmp_path / "table.csv").write_text("id\ttitle\n1\ta\n")
    reading = Reading.of(Catalog(name="c", products="table.csv", delimiter="\\t"))
    assert Table("t", [tmp_path / "table.csv"], reading).columns == ["id", "title"]


@pytest.mark.parametrize(
    ("suffix", "said"), [(".xls", "save it as .xlsx or as CSV"), (".zip", "unpack it"), (".xml", "gcl init")]
)
def test_what_to_do_with_other_files_is_said(tmp_path, suffix, said):
    (tmp_path / f"p{suffix}").touch()
    with pytest.raises(ValueError, match=f"not a table gcl reads .{said}"):
        open_table(f"p{suffix}", root=tmp_path, setting="data.products")


def test_tables_that_are_not_there_are_named_with_the_nearest(tmp_path):
    write_table(tmp_path / "products.csv", ROWS)
    with pytest.raises(FileNotFoundError, match=r"data.products.*product.csv.*Did you mean products.csv\?"):
        open_table("product.csv", root=tmp_path, setting="data.products")
    with pytest.raises(FileNotFoundError, match="folder .*nowhere does not exist"):
        open_table("nowhere/x.csv", root=tmp_path, setting="data.products")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        open_table(".", root=tmp_path, setting="data.products")
    (tmp_path / "products.xml").touch()
    with pytest.raises(ValueError, match="not a table gcl reads .*; expected one of .csv"):
        open_table("products.xml", root=tmp_path, setting="data.products")


@pytest.mark.parametrize(
    ("name", "delimiter", "said"),
    [
        (
            "products.csv",
            ";",
            "separated by ';' (columns product_id, title); gcl expects commas in a .csv: set data.delimiter=';'",
        ),
        ("products.csv", "\t", "separated by tabs .*: rename it to .tsv"),
        ("products.csv.gz", "|", "separated by '|'"),
        ("products.tsv", ",", "separated by commas .* expects tabs in a .tsv: rename it to .csv"),
    ],
)
def test_another_delimiter_is_told(tmp_path, name, delimiter, said):
    content = delimiter.join(["product_id", "title"]) + "\n" + delimiter.join(["1", "mug"]) + "\n"
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(ValueError, match=said.replace("(", "[(]").replace(")", "[)]").replace("|", "[|]")):
        open_table(name, root=tmp_path, setting="data.products").check_columns([("title", "data.document.title")])


def test_a_table_of_one_column_is_a_table(tmp_path):
    (tmp_path / "ids.csv").write_text("product_id\n1\n")
    assert open_table("ids.csv", root=tmp_path, setting="corpus").columns == ["product_id"]


def test_the_documentation_lists_every_format():
    page = (Path(__file__).parents[2] / "docs/catalogs.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("- Tables are "))
    assert all(f"({suffix}" in line or f" {suffix}" in line for suffix in SUFFIXES), line


def test_a_json_object_around_the_rows_is_told(tmp_path):
    (tmp_path / "p.json").write_text('{"products": [{"product_id": "p1", "title": "a"}], "count": 1}')
    with pytest.raises(ValueError, match="whose 'products' holds the rows: save that list by itself"):
        open_table("p.json", root=tmp_path, setting="data.products").check_columns([("title", "data.document.title")])
