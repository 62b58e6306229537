"""A path that leads to nothing says what was probably meant, and a million of them cost little."""

import os
import time
import unicodedata
from base64 import b64encode

import pytest

from gcl.data.tables.image_paths import why_missing
from gcl.data.tables.images import image_cells, is_one_url, read_image
from gcl.schema import Field, Modality
from helpers.small_catalog import drawn


@pytest.fixture
def shop(tmp_path):
    """A table's folder with images/a.jpg, "images/b c.JPG", images/é.png (as a Mac writes it), pictures/deep/d.jpg; and
    beside it elsewhere/e.jpg."""
    names = "shop/images/a.jpg", "shop/images/b c.JPG", "shop/pictures/deep/d.jpg", "elsewhere/e.jpg"
    for name in (*names, unicodedata.normalize("NFD", "shop/images/é.png"), "shop/images/É.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(drawn(1))
    return tmp_path / "shop"


HINTS = {
    "images\\a.jpg": "images/a.jpg exists: write / for \\",
    "/images/a.jpg": "images/a.jpg exists: leave out the / at its beginning",
    "images/b%20c.JPG": "images/b c.JPG exists: the name in the table is percent-encoded",
    "images/&#98; c.JPG": "images/b c.JPG exists: the name in the table is written as HTML",
    "images/a.jpg?v=2": "images/a.jpg exists: leave out what follows the ?",
    "images/A.JPG": "a file of that name in other case exists: a.jpg",
    "Images/a.jpg": "a folder of that name in other case exists: images",
    "images/a.png": "a.jpg exists: the suffix differs",
    "images/a": "a.jpg exists: the suffix differs",
    "d.jpg": "set data.image_root={shop}/pictures/deep: it is there",
    "deep/d.jpg": "set data.image_root={shop}/pictures: it is there",
    "e.jpg": "set data.image_root={parent}/elsewhere: it is there",
    "photos/d.jpg": "a file of that name is in {shop}/pictures/deep",
    "C:\\photos\\d.jpg": "a file of that name is in {shop}/pictures/deep",
    "C:\\photos\\x.jpg": "it is a path of a Windows machine",
    "photos/x.jpg": "there is no folder {shop}/photos",
    "www.shop.example/a.jpg": "a URL begins with https://",
    "cdn.shop.example/a/x.jpg": "if cdn.shop.example is a host, begin with https://",
    "https:/shop.example/x.jpg": "a URL begins with https://",
    "http:\\\\shop.example\\x.jpg": "a URL begins with https://",
    "[picture](https://shop.example/x.jpg)": "a URL begins with https://",
    "'images/a.jpg'": "images/a.jpg exists: leave out the signs around it",
    "data:image/png;base64,AAAA": "a data: URI is not read",
    "<img src='a.jpg'>": "it is HTML: write the address that stands in src alone",
}


@pytest.mark.parametrize("cell", HINTS)
def test_what_is_recognisable_is_said_beside_the_path_that_was_tried(shop, cell):
    bad = read_image(cell, shop, setting="data.document.image")
    assert bad.reason == "no such image" and str(shop / cell) in bad.detail
    assert HINTS[cell].format(shop=shop, parent=shop.parent) in bad.detail


@pytest.mark.parametrize("cell", [b64encode(drawn(1)).decode(), "data:image/png;base64," + "A" * 9999, str(drawn(1))])
def test_an_image_that_is_written_as_text_is_not_shown_whole(shop, cell):
    bad = read_image(cell, shop, setting="data.document.image")
    assert len(bad.detail) < 200 + len(str(shop)) + 100
    said = ": write the image into a file)" if cell.startswith("data:") else "bytes into a Parquet column)"
    assert bad.reason == "no such image" and bad.detail.endswith(said)


def test_invisible_marks_around_a_path_are_no_part_of_it():
    spec = Field(Modality.image, separator=",")
    assert image_cells(["\ufeffimages/a.jpg\u200b", "https://shop.example/1.jpg\u200e,\u00a0b.jpg"], spec) == [
        "images/a.jpg", "https://shop.example/1.jpg", "b.jpg",
    ]  # fmt: skip


def test_a_name_in_another_unicode_form_is_opened(shop):
    assert read_image("images/é.png", shop) == drawn(1)
    assert read_image(unicodedata.normalize("NFD", "images/É.webp"), shop) == drawn(1)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("images/a.jpg,images/b.jpg", "the cell has 2 paths: data.document.image.separator=','"),
        ("a.jpg|b.jpg|c.png", "the cell has 3 paths: data.document.image.separator='|'"),
        ("https://a.example/1.jpg; https://a.example/2.jpg", "the cell has 2 URLs: data.document.image.separator=';'"),
        ("//a.example/1, //a.example/2,", "the cell has 2 URLs: data.document.image.separator=','"),
        (
            ",".join(f"images/{n:040}.jpg" for n in range(99)),
            "the cell has 99 paths: data.document.image.separator=','",
        ),
    ],
)
def test_a_cell_of_several_images_says_how_to_separate_them(shop, cell, said):
    (image,) = image_cells([cell], Field(Modality.image))
    assert not is_one_url(image)
    bad = read_image(image, shop, lambda url: pytest.fail(f"{url} was fetched"), "data.document.image")
    assert bad.reason == "cell names several images" and said in bad.detail
    assert len(image_cells([cell], Field(Modality.image, separator=said[-2]))) > 1


def test_one_url_may_have_commas_and_a_file_as_well(shop):
    assert is_one_url("https://img.example/w_300,h_200/a.jpg")
    (shop / "a,b.jpg").write_bytes(drawn(2))
    assert read_image("a,b.jpg", shop) == drawn(2)


def test_many_missing_files_are_looked_for_in_listings_that_are_read_once(shop, monkeypatch):
    listed, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: listed.append(place) or real(place))
    start = time.process_time()
    for number in range(2_000):
        assert why_missing(f"gone/{number}.jpg", shop) == f"there is no folder {shop}/gone"
    assert len(listed) < 20 and time.process_time() - start < 2
