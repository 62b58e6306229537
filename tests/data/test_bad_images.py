"""A product outlives its image: what cannot be used is absent, counted, listed, and nothing else is lost with it."""

import json

import pytest

from gcl.data.prepare.prepare import prepare
from helpers.small_catalog import (
    bad_images,
    catalog,
    drawn,
    image,
    pairs,
    prepared,
    products,
    quarantined,
    text,
    write_table,
)  # fmt: skip

BAD = {"0002": "none.jpg", "0005": "cut.jpg", "0007": "page.jpg", "0011": "photo.heic"}
REASONS = {"0002": "no such image", "0005": "unreadable image", "0007": "unreadable image", "0011": "unreadable image"}


@pytest.fixture
def shop(tmp_path):
    """40 products with an image and a title each; four of the images cannot be used."""
    rows = products(40)
    for number, row in enumerate(rows):
        row["photo"] = BAD.get(row["product_id"], f"{number}.jpg")
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
    (tmp_path / "cut.jpg").write_bytes(drawn(5)[:300])
    (tmp_path / "page.jpg").write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + b"\0" * 100)
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", pairs(40, 40))
    return tmp_path


def given(shop, **options):
    document = {"photo": image(), "title": text()}
    return catalog(shop, **{"products": "products.csv", "pairs": "pairs.csv", "document": document} | options)


def test_the_product_stays_without_its_image(shop, tmp_path):
    lines = []
    folder = prepare(given(shop), tmp_path / "out", progress=False, report=lines.append)
    found = prepared(given(shop), tmp_path / "out")
    photos = {found.documents.ids[row]: found.documents[row]["photo"] for row in range(40)}
    assert len(photos) == 40 and {name for name, photo in photos.items() if photo is None} == BAD.keys()
    assert all(found.documents[row]["title"] for row in range(40)) and len(found.pairs) == 240
    assert quarantined(folder) == []
    listed = bad_images(folder)
    assert {row["id"]: row["reason"] for row in listed} == REASONS
    assert all(row["field"] == "document.photo" and row["table"] == "products.csv" for row in listed)
    assert [row["row"] for row in listed] == ["3", "6", "8", "12"]
    assert found.counts["bad_images"] == {"document.photo": {"unreadable image": 3, "no such image": 1}}
    assert found.counts["images"] == {"document.photo": {"given": 40, "absent": 4, "several": 0, "most": 1}}
    assert str(shop / "none.jpg") in listed[0]["detail"]
    assert all(BAD[row["id"]] in row["detail"] for row in listed), "each with the path that was tried"
    assert "a web page" in listed[2]["detail"] and "HEIC" in listed[3]["detail"]
    (line,) = [line for line in lines if "document.photo" in line]
    assert "unreadable image 3, no such image 1; 4 of 40 records" in line and "bad_images.csv" in line


def test_drop_leaves_the_product_out_up_to_max_bad(shop, tmp_path):
    with pytest.raises(ValueError, match=r"4 of 40 rows of products.csv.*row 3, '0002': no such image: photo: /"):
        prepare(given(shop, bad_images="drop"), tmp_path / "out", progress=False)
    found = prepared(given(shop, bad_images="drop", max_bad=0.1), tmp_path / "out")
    assert len(found.documents) == 36 and BAD.keys().isdisjoint(found.documents.ids)
    assert {row["id"]: row["reason"] for row in quarantined(found.folder) if row["id"] in BAD} == REASONS
    assert {row["id"]: row["reason"] for row in bad_images(found.folder)} == REASONS


def test_refuse_stops_at_the_first(shop, tmp_path):
    with pytest.raises(ValueError, match=r"products.csv, row 3, '0002': no such image: .*none.jpg.*bad_images=absent"):
        prepare(given(shop, bad_images="refuse", max_bad=1.0), tmp_path / "out", progress=False)


def test_that_no_image_can_be_used_is_the_first_cause(shop, tmp_path):
    rows = products(40)
    for row in rows:
        row["photo"] = f"elsewhere/{row['product_id']}.jpg"
    write_table(shop / "products.csv", rows)
    with pytest.raises(ValueError) as error:
        prepare(given(shop), tmp_path / "out", progress=False)
    message = str(error.value)
    assert message.startswith("None of the 40 images of data.document.photo can be used. Most frequent reasons: ")
    assert "no such image: 40. The first: products.csv, row 1: no such image: " in message
    (listed,) = (tmp_path / "out").glob("*.bad_images.csv")
    assert str(listed) in message and len(listed.read_text().splitlines()) == 41


def test_a_product_of_its_image_alone_is_left_out_and_told(shop, tmp_path):
    """However many: where a tenth of all images is dead, the rest is still a catalog."""
    found = prepared(given(shop, document={"photo": image()}), tmp_path / "out")
    assert len(found.documents) == 36
    left_out = {row["id"]: (row["reason"], row["detail"]) for row in quarantined(found.folder) if row["id"]}
    assert left_out.keys() == BAD.keys() and "no such image" in left_out["0002"][1]
    assert found.counts["pairs_of_quarantined_products"] == sum(
        row["product_id"] in BAD for row in pairs(40, 40)
    )  # fmt: skip


def test_queries_follow_the_same_rule(shop, tmp_path):
    log = [row | {"shot": f"{n % 40}.jpg"} for n, row in enumerate(pairs(10, 20))]
    log[0]["shot"] = log[1]["shot"] = "none.jpg"
    log[1]["query"] = None
    write_table(shop / "pairs.csv", log)
    found = prepared(given(shop, query={"query": text(), "shot": image()}), tmp_path / "out")
    assert len(found.pairs) == 59 and found.queries[0] == {"query": "query 0", "shot": None}
    assert [row["row"] for row in bad_images(found.folder) if row["field"] == "query.shot"] == ["1", "2"]
    (row,) = quarantined(found.folder)
    assert (row["table"], row["row"]) == ("pairs.csv", "2") and "none.jpg" in row["detail"]


@pytest.mark.parametrize("form", ["separator", "JSON in a cell", "list column", "columns"])
@pytest.mark.parametrize("which", ["first", "all"])
def test_several_images_of_a_product(tmp_path, form, which):
    rows, table = products(8), "products.csv"
    for number in range(24):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
    options = {"images": which}
    for number, row in enumerate(rows):
        names = [f"{3 * number + step}.jpg" for step in range(number % 3 + 1)]
        if form == "separator":
            row["photo"], options["separator"] = " | ".join(names) + "|", "|"
        elif form == "JSON in a cell":
            row["photo"] = json.dumps(names)
        elif form == "list column":
            row["photo"], table = names, "products.parquet"
        else:
            row |= {f"photo{step}": name for step, name in enumerate(names)}
            options["columns"] = ["photo0", "photo1", "photo2"]
    write_table(tmp_path / table, rows)
    write_table(tmp_path / "pairs.csv", pairs(8, 8))
    lines = []
    one = given(tmp_path, products=table, document={"photo": image(**options), "title": text()})
    prepare(one, tmp_path / "out", progress=False, report=lines.append)
    found = prepared(one, tmp_path / "out")
    for number in range(8):
        expected = tuple(drawn(3 * number + step) for step in range(number % 3 + 1))
        assert found.documents[number]["photo"] == (expected if which == "all" else expected[0])
    told = [line for line in lines if "name several images" in line]
    assert len(told) == (which == "first") and all("5 of 8 records" in line and "up to 3" in line for line in told)
    assert found.counts["images"]["document.photo"] == {"given": 8, "absent": 0, "several": 5, "most": 3}
