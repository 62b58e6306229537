"""A change feed (data.changes): what is prepared is what the table with every change applied to it, one after another,
prepares into; and what a feed cannot mean is told."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.data.prepare import distinct
from gcl.data.prepare.prepare import decisions, prepare
from gcl.data.store.prepared import read_index
from helpers.small_catalog import catalog, contents, drawn, image, pairs, prepared, products, text, write_table

WORDS = {"debezium": "crud", "delta": ("insert", "insert", "update_postimage", "delete"), "plain": "IiUD"}


def drawn_changes(seed: int) -> tuple[list[dict], list[tuple[str, dict]]]:
    """A table, and what happens to it: (kind, row as it is then, or was), by the same id again and again."""
    rng, rows = random.Random(seed), [row | {"brand": None} for row in products(30)]
    now, events, fresh = {row["product_id"]: row for row in rows}, [], 30
    for step in range(40):
        kind = rng.choice("iuuudd")
        if kind == "i":
            back = [row for row in rows[:10] if row["product_id"] not in now]
            name = rng.choice(back)["product_id"] if back and rng.random() < 0.5 else f"{fresh:04d}"
            fresh += 1
        else:
            name = rng.choice(sorted(now)[:12])
        row = {"product_id": name, "title": f"thing {step}", "brand": rng.choice([None, f"b{step}"])}
        if kind == "d":
            row = now.pop(name)
        else:
            now[name] = row
        events.append((kind, row))
    return rows, events


def applied(rows: list[dict], events: list[tuple[str, dict]]) -> list[dict]:
    """One after another: a changed product goes behind the others."""
    now = {row["product_id"]: row for row in rows}
    for kind, row in events:
        now.pop(row["product_id"], None)
        if kind != "d":
            now[row["product_id"]] = row
    return list(now.values())


def write_feed(shop, form: str, events: list[tuple[str, dict]]) -> dict:
    """In the form of a tool; returns the settings."""
    words = dict(zip("irud", WORDS.get(form, ()), strict=False))
    if form == "debezium":
        lines = [
            {"payload": {"before": row if kind == "d" else None, "after": None if kind == "d" else row,
                         "op": words[kind], "ts_ms": 10**12 + number}}
            for number, (kind, row) in enumerate(events)
        ]  # fmt: skip
        (shop / "feed.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return {"changes": "feed.jsonl"}
    if form == "delta":
        rows = [
            row | {"_change_type": words[kind], "_commit_version": number} for number, (kind, row) in enumerate(events)
        ]
        was = [
            row | {"title": "as it was", "_change_type": "update_preimage"}
            for row in rows
            if row["_change_type"][0] == "u"
        ]
        rows = sorted(rows + was, key=lambda row: row["title"])
        parquet.write_table(pa.Table.from_pylist(rows), shop / "feed.parquet")
        return {"changes": "feed.parquet", "changes_order": "_commit_version"}
    for part in range(2):
        half = events[20 * part :][:20]
        rows = [{"what": words[kind], **row} for kind, row in half]
        write_table(shop / "feed" / f"2024-01-0{part + 1}.csv", rows)
    return {"changes": "feed/*.csv", "changes_op": "what"}


@pytest.mark.parametrize("form", WORDS)
def test_a_feed_is_its_changes_one_after_another(form, tmp_path):
    rows, events = drawn_changes(len(form))
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", pairs(40, 30))
    by_time = form == "delta"  # whose file is in another order: so are the products
    expected = applied(rows, events)
    write_table(tmp_path / "applied.csv", expected)
    given = {"pairs": "pairs.csv", "score": "score", "document": {"title": text(), "brand": text()}}
    wanted = prepared(catalog(tmp_path, products="applied.csv", max_bad=0.9, **given), tmp_path / "applied")
    feed = write_feed(tmp_path, form, events)
    found = prepared(catalog(tmp_path, products="products.csv", **given, **feed), tmp_path / "out")
    assert contents(found) == contents(wanted)
    for file in [] if by_time else wanted.folder.glob("*.tar"):
        assert (found.folder / file.name).read_bytes() == file.read_bytes()
    before, now = ({row["product_id"] for row in some} for some in (rows, expected))
    touched = {row["product_id"] for _, row in events}
    counts = f"{len(now - before)} new, {len(now & before & touched)} changed, {len(before - now)} deleted"
    said = decisions(read_index(found.folder)["counts"])
    left_out = sum(row["product_id"] not in now for row in pairs(40, 30))
    assert any(line.endswith(counts) for line in said) and f"pairs left out with a deleted product: {left_out}" in said


def test_only_what_the_feed_names_is_decoded(tmp_path, monkeypatch):
    rows = [row | {"photo": f"{number}.jpg"} for number, row in enumerate(products(30))]
    for number in range(32):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", pairs(40, 30))
    given = {"products": "products.csv", "pairs": "pairs.csv", "score": "score",
             "document": {"photo": image(), "title": text()}}  # fmt: skip
    prepare(catalog(tmp_path, **given), tmp_path / "out", progress=False)
    change = [rows[4] | {"photo": "30.jpg", "op": "u"}, rows[5] | {"op": "d"}]
    write_table(tmp_path / "feed.csv", [*change, rows[0] | {"product_id": "new", "photo": "31.jpg", "op": "c"}])
    decoded, lines = [], []

    def counted(data, original=distinct.check_image, **options):
        decoded.append(data)
        return original(data, **options)

    monkeypatch.setattr(distinct, "check_image", counted)
    prepare(catalog(tmp_path, changes="feed.csv", **given), tmp_path / "out", progress=False, report=lines.append)
    assert sorted(decoded) == sorted([drawn(30), drawn(31)])  # threads decode
    assert any(
        line.startswith("products since") and line.endswith("1 new, 1 changed, 1 gone, 28 kept") for line in lines
    )


def test_strange_changes_are_told(tmp_path):
    write_table(tmp_path / "products.csv", products(30))
    write_table(tmp_path / "pairs.csv", pairs(40, 30))

    def with_feed(rows, **options):
        write_table(tmp_path / "feed.csv", rows)
        given = catalog(tmp_path, products="products.csv", pairs="pairs.csv", score="score", changes="feed.csv",
                        max_bad=0.5, **options)  # fmt: skip
        return prepared(given, tmp_path / "out")

    row = {"product_id": "0001", "title": "red"}
    with pytest.raises(ValueError, match=r"column 'op' of feed.csv says 'x' \(rows: 2\), nothing \(rows: 1\)"):
        with_feed([row | {"op": op} for op in ("x", "u", "x", None)])
    with pytest.raises(ValueError, match=r"no column that is known to say .* data.changes_op. Its columns: product_id"):
        with_feed([row])
    with pytest.raises(ValueError, match="the columns op, _change_type, any of which may say"):
        with_feed([row | {"op": "u", "_change_type": "insert"}])
    with pytest.raises(ValueError, match=r"'at' of feed.csv holds 'soon' in row 2 of feed.csv, and before it times"):
        with_feed([row | {"op": "u", "at": at} for at in ("2024-01-31 10:00:00", "soon")], changes_order="at")
    with pytest.raises(KeyError, match=r"feed.csv has no column 'title' \(data.document.title\)"):
        with_feed([{"product_id": "0001", "op": "u"}])
    with pytest.raises(ValueError, match="there is no data.products"):
        prepare(catalog(tmp_path, pairs="pairs.csv", changes="feed.csv"), tmp_path / "out")
    found = with_feed([{"product_id": name, "op": "D"} for name in ("0001", "none", "no one")])
    said = decisions(read_index(found.folder)["counts"])
    assert "changes of feed.csv: 0 new, 0 changed, 1 deleted" in said
    assert any(line == "deletions in feed.csv of ids that products.csv does not have: 2, for example 'none'"
               for line in said)  # fmt: skip
    found = with_feed([row | {"op": "u"}, row | {"product_id": None, "op": "u"}, row | {"product_id": "x", "op": "U"}])
    assert "feed.csv,2,,no product id" in (found.folder / "quarantine.csv").read_text()
    assert any(
        "updates in feed.csv of ids that products.csv does not have, which count as new: 1" in line
        for line in decisions(read_index(found.folder)["counts"])
    )
    times = ("2024-10-27T02:30:00+02:00", "2024-10-27T02:10:00+01:00")  # the later one, by the clock the earlier one
    late = [row | {"title": at, "op": "u", "at": at} for at in reversed(times)]
    assert contents(with_feed(late, changes_order="at"))["documents"]["0001"] == {"title": times[1]}


def lost_rows(folder):
    return [line.split(",")[:2] for line in (folder / "quarantine.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (['{"product_id": "0001", "op": "d"}', '{"product_id": "00'], ["2"]),  # a feed that adds nothing else
        ([f'{{"product_id": {{"$oid": "{row}"}}, "title": "x", "op": "u"}}' for row in range(5)], list("12345")),
        (['{"product_id": "1", "title": "x", "op": {"u": 1}}', '{"product_id": "2", "title": "x", "op": "u"}'], ["1"]),
    ],
)
def test_rows_of_a_feed_that_cannot_be_read_are_bad_rows(lines, lost, tmp_path):
    write_table(tmp_path / "products.csv", products(30))
    write_table(tmp_path / "pairs.csv", pairs(40, 30))
    (tmp_path / "feed.jsonl").write_text("\n".join(lines))
    given = {"products": "products.csv", "pairs": "pairs.csv", "score": "score", "changes": "feed.jsonl"}
    found = prepared(catalog(tmp_path, max_bad=0.5, **given), tmp_path / "out")
    assert lost_rows(found.folder) == [["feed.jsonl", row] for row in lost]
    sentence = rf"rows of products.csv cannot be used, {len(lost)} of them in feed.jsonl .* Fix feed.jsonl, or"
    with pytest.raises(ValueError, match=sentence):
        prepared(catalog(tmp_path, max_bad=0.0, **given), tmp_path / "out")


@pytest.mark.parametrize("form", ["\n", ","])
def test_a_null_after_a_deletion_is_no_bad_row(form, tmp_path):
    write_table(tmp_path / "products.csv", products(30))
    write_table(tmp_path / "pairs.csv", pairs(40, 30))
    gone = [{"before": {"product_id": f"{row:04d}"}, "after": None, "op": "d"} for row in range(3)]
    new = {"before": None, "after": {"product_id": "new", "title": "x"}, "op": "c"}
    lines = form.join(json.dumps(line) for one in gone for line in (one, None)) + form + json.dumps(new)
    (tmp_path / "feed.json").write_text(f"[{lines}]" if form == "," else lines)
    given = catalog(tmp_path, products="products.csv", pairs="pairs.csv", changes="feed.json", max_bad=0.0)
    found = prepared(given, tmp_path / "out")
    assert not lost_rows(found.folder) and len(found.documents) == 28


def test_another_feed_is_another_catalog(tmp_path):
    rows = [row | {"query": f"q {row['product_id']}"} for row in products(30)]
    for name in ("both.csv", "L1.csv", "L2.csv", "x3.csv"):
        op = {} if name == "both.csv" else {"op": "u"}
        write_table(tmp_path / name, [row | op | {"title": f"{name} {row['title']}"} for row in rows[:20]])
    write_table(tmp_path / "c2.jsonl", [rows[0] | {"op": "d"}])
    write_table(tmp_path / "c3.jsonl", [rows[1] | {"op": "d"}])
    write_table(tmp_path / "pairs.csv", pairs(40, 20))

    def folder(**given):
        return prepare(catalog(tmp_path, max_bad=0.9, **given), tmp_path / "out", progress=False)

    one, other = (folder(products="both.csv", pairs="both.csv", changes=feed) for feed in ("c2.jsonl", "c3.jsonl"))
    assert one != other
    one = folder(products="L[12].csv", pairs="pairs.csv", changes="x3.csv")
    assert one != folder(products="L1.csv", pairs="pairs.csv", changes="[Lx][23].csv")
