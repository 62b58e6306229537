"""Products with sets of images are searched by texts and by one picture, and shown by their first image."""

import numpy as np
import pytest
import torch

from gcl.model.load import load_model
from gcl.retrieval.page.details import Side
from gcl.retrieval.page.thumbnails import small_picture
from gcl.retrieval.tasks.task import ListRecords, content_groups
from gcl.schema import Field, Images, Modality, Schema
from gcl.serve.app import _picture, build_app
from gcl.serve.engine import Engine
from helpers.tiny_encoder import picture

SETS = Field(Modality.image, images=Images.all)
SCHEMA = Schema(query={"photo": SETS, "text": Field()}, document={"image": SETS, "title": Field(weight=0.1)})
FILES = [tuple(picture(10 * row + n) for n in range(count)) for row, count in enumerate((3, 1, 0, 2))]


@pytest.fixture(scope="module")
def products():
    records = [{"image": files, "title": f"thing {row}"} for row, files in enumerate(FILES)]
    records.append({"image": FILES[0][::-1], "title": "thing 0"})
    records.append({"image": FILES[1][0], "title": "thing 1"})  # a set given as its only image
    return ListRecords([f"p{row}" for row in range(len(records))], records, SCHEMA.document)


@pytest.fixture(scope="module")
def engine(products):
    torch.manual_seed(0)
    return Engine({"tiny": load_model("gcl-tiny", schema=SCHEMA)}, products)


def test_a_picture_finds_the_product_that_it_shows_alone(engine):
    best, *_ = engine.search(image=FILES[1][0], weights={"image": 1.0})["tiny"]
    assert best.row == 1 and best.score == pytest.approx(1, abs=1e-5)
    hits = engine.search(image=FILES[3][1], weights={"image": 1.0})["tiny"]
    assert sorted(hit.row for hit in hits) == [0, 1, 3, 4, 5]  # what has no image is no answer
    assert len(engine.search("thing 2")["tiny"]) == len(engine.documents)


def test_the_first_image_is_shown(engine, products):
    side = Side(products)
    assert [side.picture(row) for row in range(4)] == [files[0] if files else None for files in FILES]
    assert _picture(engine, 0) == small_picture(FILES[0][0], 320)


def test_every_image_of_a_set_is_shown_with_its_product(engine):
    from fastapi.testclient import TestClient

    client = TestClient(build_app(engine, name="sets"), base_url="http://127.0.0.1")
    found = client.get("/api/search", params={"text": "thing"}).json()["models"][0]["results"]
    assert {one["id"]: one["pictures"] for one in found} == {"p0": 3, "p1": 1, "p2": 0, "p3": 2, "p4": 3, "p5": 1}
    shown = client.get("/api/products/p0").json()["pictures"]
    assert [client.get(address).content for address in shown] == [small_picture(file, 320) for file in FILES[0]]


def test_equal_sets_are_twins_and_turned_ones_are_not(products):
    groups = content_groups(products)
    assert groups[5] == groups[1] and groups[4] != groups[0]
    assert np.array_equal(products.present(np.arange(6))[:, 0], [True, True, False, True, True, True])
