"""A catalog that changed: what is prepared is byte for byte what it is from nothing, with the changed images alone
decoded, and the counts say what changed."""

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.data.catalog import Store
from gcl.data.prepare import distinct
from gcl.data.prepare.parts import Part
from gcl.data.prepare.prepare import prepare, prepare_part
from gcl.schema import Images
from helpers.small_catalog import catalog, drawn, image, pairs, products, text, write_table

SIDE = 16


def files(folder):
    """All but the times at which its shards were compared last."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.suffix in
            (".tar", ".parquet", ".npy", ".json", ".csv", ".checked")}  # fmt: skip


def write(shop, rows, form):
    """form: "path", "bytes" or "set"."""
    cells = {"path": lambda names: names[0], "set": list, "bytes": lambda names: (shop / names[0]).read_bytes()}[form]
    rows = [row | {"photo": row["photo"] if None in row["photo"] else cells(row["photo"])} for row in rows]
    rows = [row | {"photo": None} if row["photo"] == [None] else row for row in rows]
    parquet.write_table(pa.Table.from_pylist(rows), shop / "products.parquet")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The shop's folder, and a list to which every image that is decoded is added."""
    (tmp_path / "shop").mkdir()
    decoded = []

    def counted(data, original=distinct.check_image, **options):
        decoded.append(data)
        return original(data, **options)

    monkeypatch.setattr(distinct, "check_image", counted)
    write_table(tmp_path / "shop" / "pairs.csv", pairs(40, 30))
    return tmp_path / "shop", decoded


def rows_of(shop):
    rows = products(30)
    for number, row in enumerate(rows):
        for view in range(2):
            (shop / f"{number}-{view}.png").write_bytes(drawn(2 * number + view, form="PNG"))
        row["photo"] = [f"{number}-0.png", f"{number}-1.png"]
    rows[3]["photo"] = [None]
    (shop / "4-0.png").write_bytes(b"no picture")
    for number in range(10, 16):  # a placeholder
        (shop / f"{number}-0.png").write_bytes(drawn(7777, form="PNG"))
        rows[number] |= {
            "photo": [f"{number}-0.png"] * 2,
            "title": f"word{number} thing{number} of{number} its{number}",
        }
    return rows


@pytest.mark.parametrize(
    ("form", "side", "in_parts"),
    [("path", SIDE, False), ("path", None, False), ("bytes", SIDE, False), ("set", SIDE, False), ("path", SIDE, True)],
)
def test_only_what_changed_is_decoded_and_the_bytes_are_the_same(shop, tmp_path, form, side, in_parts):
    shop, decoded = shop
    rows = rows_of(shop)
    fields = {"photo": image(images=Images.all if form == "set" else Images.first), "title": text()}
    given = catalog(shop, products="products.parquet", pairs="pairs.csv", score="score", document=fields)
    given = replace(given, store=Store(image_side=side, shard_bytes=20_000, workers=2), max_bad=0.2)
    write(shop, rows, form)
    prepare(given, tmp_path / "out", progress=False)
    del rows[20]  # gone
    rows[20]["title"] = "another title"  # changed
    (shop / "22-0.png").write_bytes(drawn(222, form="PNG"))  # changed in its file alone
    os.utime(shop / "22-0.png", (222, 222))  # two writes may fall into one tick of the file system's clock
    (shop / "new.png").write_bytes(drawn(333, form="PNG"))
    rows.insert(0, {"product_id": "new", "title": "new thing", "photo": ["new.png"]})
    write(shop, rows, form)
    decoded.clear()
    lines: list[str] = []
    most = 19 if form == "set" else 3 + 1 + 6  # the changed ones, the one that is no picture, the placeholders
    if in_parts:
        for number in (1, 2):
            prepare_part(given, tmp_path / "out", Part(number, 2), progress=False)
        assert 3 <= len(decoded) <= most
        decoded.clear()
    found = prepare(given, tmp_path / "out", progress=False, report=lines.append)
    assert len(decoded) <= (0 if in_parts else most)
    straight = prepare(given, tmp_path / "straight", progress=False)
    assert len(decoded) > (25 if in_parts else 30) and files(found) == files(straight)
    (said,) = (line for line in lines if line.startswith("products since small-"))
    assert said.endswith(": 1 new, 2 changed, 1 gone, 27 kept")
    assert not any("since" in line for line in (found / "index.json").read_text().splitlines())


def test_what_was_found_out_is_not_believed_when_it_was_damaged_or_the_rules_are_others(shop, tmp_path):
    shop, decoded = shop
    rows = rows_of(shop)
    fields = {"photo": image(), "title": text()}
    given = catalog(shop, products="products.parquet", pairs="pairs.csv", score="score", document=fields, max_bad=0.2)
    write(shop, rows, "path")
    first = prepare(given, tmp_path / "out", progress=False)
    os.utime(first / "index.json", (0, 0))

    def again(**options):
        rows[1]["title"] += " again"
        write(shop, rows, "path")
        decoded.clear()
        found = prepare(replace(given, **options), tmp_path / "out", progress=False)
        turn = rows[1]["title"].count("again")
        os.utime(found / "index.json", (turn, turn))  # two folders may be made in one tick of the file system's clock
        return len(decoded), found

    assert again()[0] < 10
    assert again(store=Store(image_side=8))[0] > 20
    count, last = again(store=Store(image_side=8))
    assert count < 10
    for folder in (first, last):
        path = folder / "documents.checked"
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        os.utime(folder / "index.json")
    assert again(store=Store(image_side=8))[0] > 20
