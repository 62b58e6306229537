"""A picture that stands for a missing one is nobody's image; a photo that variants share is theirs."""

import numpy as np
import pytest

from gcl.data.prepare.placeholders import find_placeholders
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.store.webdataset import open_webdataset
from helpers.small_catalog import bad_images, catalog, drawn, image, pairs, prepared, text, write_table

SIDE = {"photo": image(), "title": text(), "brand": text()}
WORDS = "lamp shoe table mug tent scarf kettle chair hammer drill bottle glove hat belt rug fork spoon plate bowl knife"


def title(number):
    rng = np.random.default_rng(number)
    return " ".join(rng.choice(WORDS.split(), 4)) + f" {number}"


def found(folder, records, called_so=()):
    with ShardWriter(folder, "documents", side=SIDE) as writer:
        for number, (photo, name) in enumerate(records):
            writer.write(str(number), {"photo": photo and drawn(photo), "title": name, "brand": "own"})
    return [one.rows.tolist() for one in find_placeholders(RecordStore(folder, "documents", SIDE), "photo", called_so)]


def test_a_picture_of_unlike_products_is_a_placeholder(tmp_path):
    records = [(1 if number % 5 == 0 else 2 + number, title(number)) for number in range(60)]
    assert found(tmp_path, records) == [list(range(0, 60, 5))]


def test_a_photo_of_variants_is_not(tmp_path):
    records = [(1 + number // 10, f"{title(number // 10)} size {number % 10}") for number in range(60)]
    assert found(tmp_path, records) == []


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([(1, title(number)) for number in range(30)], id="the only picture there is"),
        pytest.param([(1 + number % 4 if number < 4 else 9, title(number)) for number in range(7)], id="of three"),
        pytest.param([(1 + number % 6, title(number)) for number in range(60)], id="one of many that are shared"),
        pytest.param([(1 if number < 9 else number, None) for number in range(30)], id="without a text"),
        pytest.param([(1 if number < 9 else number, "SML"[number % 3]) for number in range(30)], id="few words"),
    ],
)
def test_when_in_doubt_it_is_an_image(tmp_path, records):
    assert found(tmp_path, records) == []


def test_what_is_called_so_needs_two(tmp_path):
    records = [(1 if number in (3, 7) else 2 + number, title(number)) for number in range(20)]
    assert found(tmp_path / "two", records, called_so=[3, 7]) == [[3, 7]]
    assert found(tmp_path / "one", records, called_so=[3]) == []


@pytest.fixture
def shop(tmp_path):
    """40 products, of which each fourth has the same placeholder under its own path, and 1 and 2 "no_image.png"; 8 has
    nothing but the placeholder."""
    rows = []
    for number in range(40):
        placeholder, called = number % 4 == 0, number in (1, 2)
        name = "no_image.png" if called else f"{number}.jpg"
        (tmp_path / name).write_bytes(drawn(99 if placeholder else 98 if called else number))
        rows.append({"product_id": f"{number:04d}", "title": title(number) if number != 8 else None, "photo": name})
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", pairs(40, 40))
    return tmp_path


def given(shop, **options):
    document = {"photo": image(), "title": text()}
    return catalog(shop, products="products.csv", pairs="pairs.csv", document=document, **options)


def test_placeholders_are_absent_wherever_records_are_read(shop, tmp_path):
    lines = []
    folder = prepare(given(shop), tmp_path / "out", progress=False, report=lines.append)
    opened = open_prepared(folder)
    absent = {*range(0, 40, 4), 1, 2} - {8}
    documents = opened.documents
    assert {row for row in range(40) if documents[row]["photo"] is None} == absent
    assert {row for row, value in enumerate(documents.hashes("photo")) if value is None} == absent
    assert documents.present(np.arange(40))[:, 0].tolist() == [row not in absent for row in range(40)]
    assert documents.column("photo", np.array([4, 5])) == [None, drawn(5)]
    assert {int(one["__key__"]) for one in open_webdataset(folder, "document") if one["photo"] is None} == absent
    documents.verify()
    listed = bad_images(folder)
    assert {int(row["id"]) for row in listed} == absent and {row["reason"] for row in listed} == {"placeholder"}
    assert {row["row"] for row in listed} == {str(number + 1) for number in absent}
    assert opened.counts["bad_images"] == {"document.photo": {"placeholder": 11}}
    assert opened.counts["images"]["document.photo"]["absent"] == 11
    assert any("placeholder 11; 11 of 40 records" in line for line in lines)


def test_the_same_bytes_whatever_the_number_of_threads(shop, tmp_path):
    from gcl.data.catalog import Store

    one = prepared(given(shop, store=Store(workers=1)), tmp_path / "one").folder
    four = prepared(given(shop, store=Store(workers=4)), tmp_path / "four").folder
    for name in ("documents.parquet", "bad_images.csv", "index.json"):
        assert (one / name).read_bytes() == (four / name).read_bytes()


def test_refuse_refuses_placeholders_as_well(shop, tmp_path):
    with pytest.raises(ValueError, match=r"products.csv, row \d+: placeholder: .* products have the same picture"):
        prepare(given(shop, bad_images="refuse"), tmp_path / "out", progress=False)
