"""A prepared folder as a WebDataset pipeline holds what our own reader reads, sample for sample."""

import shutil

import numpy as np
import pytest
import webdataset

from gcl.data.catalog import Catalog, Store
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared
from gcl.data.store.webdataset import open_webdataset, open_webdataset_pairs
from gcl.schema import SIDES
from tests.helpers.small_catalog import drawn, image, shard, text, write_table

ROWS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 products in several shards; some have no title, some no image, field names have capitals and a dash."""
    root = tmp_path_factory.mktemp("webdataset")
    (root / "images").mkdir()
    products = []
    for row in range(ROWS):
        (root / "images" / f"{row}.jpg").write_bytes(drawn(row, size=(40 + row, 30)))
        products.append(
            {
                "product_id": f"sku/{row}",
                "picture": None if row % 5 == 0 else f"images/{row}.jpg",
                "title": None if row % 7 == 3 else f"Größe {row} <b>.txt",
                "json": f"note {row}",
            }
        )
    write_table(root / "products.csv", products)
    pairs = [{"query": f"query {row % 23}", "product_id": f"sku/{row}", "score": 1 + row % 3} for row in range(ROWS)]
    write_table(root / "pairs.csv", pairs)
    catalog = Catalog(
        name="small", root=str(root), products="products.csv", pairs="pairs.csv", document_id="product_id",
        score="score", query={"query": text()},
        document={"Main-Image": image(column="picture"), "title": text(), "json": text()},
        store=Store(shard_bytes=20 << 10, image_side=None),
    )  # fmt: skip
    return prepare(catalog, root / "prepared")


def same_records(samples, store):
    seen = set()
    for sample in samples:
        row = int(sample["__key__"])
        assert sample["__id__"] == store.ids[row]
        assert {name: value for name, value in sample.items() if not name.startswith("__")} == store[row]
        seen.add(row)
    return seen


@pytest.mark.parametrize("side", SIDES)
def test_records_are_the_stores_in_the_order_of_their_rows(folder, side):
    prepared = open_prepared(folder)
    store = prepared.documents if side == "document" else prepared.queries
    samples = list(open_webdataset(folder, side))
    assert [int(sample["__key__"]) for sample in samples] == list(range(len(store)))
    same_records(samples, store)
    if side == "document":
        assert len(np.unique(store.shard)) > 3
        assert any(sample["title"] is None for sample in samples)
        assert any(sample["Main-Image"] is None for sample in samples)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 9 worker:UserWarning")
@pytest.mark.parametrize("workers", [1, 2, 9])
def test_workers_divide_the_shards(folder, workers):
    dataset = open_webdataset(folder, "document")
    samples = list(webdataset.WebLoader(dataset, batch_size=None, num_workers=workers))
    store = open_prepared(folder).documents
    assert len(samples) == len(store) == len(same_records(samples, store))


def test_ranks_divide_the_shards(folder, monkeypatch):
    rows = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        rows += [int(sample["__key__"]) for sample in open_webdataset(folder, "document", shuffle=8, seed=5)]
    assert sorted(rows) == list(range(len(open_prepared(folder).documents)))


def test_a_shuffle_is_the_seeds(folder):
    def order(seed):
        return [sample["__key__"] for sample in open_webdataset(folder, "document", shuffle=16, seed=seed)]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == [f"{row:09d}" for row in range(len(order(1)))] != order(1)


@pytest.mark.parametrize(("shuffle", "workers"), [(0, 0), (16, 2)])
def test_pairs_come_with_their_records(folder, shuffle, workers):
    prepared = open_prepared(folder)
    pairs, seen = prepared.pairs, set()
    dataset = open_webdataset_pairs(folder, shuffle=shuffle)
    for sample in webdataset.WebLoader(dataset, batch_size=None, num_workers=workers):
        row = int(sample["__key__"])
        for side, rows, store in (
            ("query", pairs.query, prepared.queries),
            ("document", pairs.document, prepared.documents),
        ):
            assert sample[side] == {"__id__": store.ids[int(rows[row])], **store[int(rows[row])]}
        assert sample["score"] == pairs.score[row]
        seen.add(row)
    assert seen == set(range(len(pairs))) and len(pairs) > 20


def test_ready_shards_are_told_apart_and_their_pairs_can_be_read(tmp_path):
    (tmp_path / "s").mkdir()
    for number in range(2):
        (tmp_path / "s" / f"{number}.tar").write_bytes(shard(number, rows=12, queries=6))
    catalog = Catalog(
        name="ready", root=str(tmp_path), shards="s/*.tar", query={"txt": text()}, document={"jpg": image()}
    )
    folder = prepare(catalog, tmp_path / "prepared")
    with pytest.raises(ValueError, match="prepared from ready shards"):
        open_webdataset(folder, "document")
    prepared = open_prepared(folder)
    samples = list(open_webdataset_pairs(folder))
    assert len(samples) == len(prepared.pairs) > 0
    assert all(sample["document"]["jpg"][:2] == b"\xff\xd8" for sample in samples)


def test_a_table_whose_bytes_changed_is_refused_with_the_way_out(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    open_prepared(copy)
    table = copy / "tasks" / min(path.name for path in (copy / "tasks").glob("*.npy"))
    data = bytearray(table.read_bytes())
    data[-1] ^= 1
    table.write_bytes(data)
    with pytest.raises(ValueError, match=f"{table.name} has SHA-256 .* index says .*prepare the catalog again"):
        open_prepared(copy)
