"""Tables, shards and pictures in an object store: a real S3 server on the loopback, prepared as if they lay here."""

from dataclasses import replace

import pytest

from gcl.data.catalog import Download, Split
from gcl.data.prepare.prepare import prepare
from gcl.data.tables.table import open_table
from helpers.bucket import s3_bucket
from helpers.small_catalog import catalog, contents, drawn, image, pairs, prepared, products, shard, text, write_table

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def store():
    with s3_bucket() as files:
        yield files


def test_tables_and_pictures_of_a_bucket_prepare_like_local_ones(store, tmp_path):
    rows = products(20)
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
        store.pipe(f"shop/images/{number}.jpg", drawn(number))
        row["photo"] = f"{number}.jpg"
    write_table(tmp_path / "products.csv", rows)
    far = [row | {"photo": f"s3://shop/images/{row['photo']}"} for row in rows]
    for part in range(2):
        half = write_table(tmp_path / f"part{part}.csv", far[part * 10 :][:10])
        store.put(str(half), f"shop/tables/products-{part}.csv")
    table = write_table(tmp_path / "pairs.csv", pairs(30, 20))
    store.put(str(table), "shop/tables/pairs.csv")
    fields = {"photo": image(), "title": text()}
    near = catalog(tmp_path, products="products.csv", pairs="pairs.csv", score="score", document=fields)
    away = replace(near, products="s3://shop/tables/products-*.csv", pairs="s3://shop/tables/pairs.csv", root=None)
    found = prepared(away, tmp_path / "away")
    assert contents(found) == contents(prepared(near, tmp_path / "near"))
    assert prepare(away, tmp_path / "away", progress=False) == found.folder
    store.put(str(write_table(tmp_path / "more.csv", pairs(31, 20))), "shop/tables/pairs.csv")
    assert prepare(away, tmp_path / "away", progress=False) != found.folder  # another table lies there now


def test_what_is_not_there_is_said(store, tmp_path):
    given = catalog(None, pairs="s3://shop/none.csv")
    with pytest.raises(FileNotFoundError, match="data.pairs: there is nothing at s3://shop/none.csv"):
        prepare(given, tmp_path, progress=False)
    rows = [row | {"photo": f"s3://shop/none/{row['product_id']}.jpg"} for row in products(5)]
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", pairs(6, 5))
    given = catalog(tmp_path, products="products.csv", pairs="pairs.csv", document={"photo": image()})
    given = replace(given, download=Download(retries=0), max_bad=0.1)
    with pytest.raises(ValueError, match="image cannot be downloaded: 5"):
        prepare(given, tmp_path / "out", progress=False)


def test_shards_of_a_bucket(store, tmp_path):
    for number in range(3):
        store.pipe(f"shop/shards/{number:03}.tar", shard(number, rows=30, queries=20))
    given = catalog(
        None,
        shards="s3://shop/shards/{000..002}.tar",
        query={"query": text(column="txt")},
        document={"photo": image(column="jpg")},
        split=Split(queries=1.0, documents=1.0, dev=0.0),
    )
    found = prepared(given, tmp_path)
    assert len(found.documents) == 90 and len(found.queries) == 20 and found.documents[31]["photo"] == drawn(31)


def test_a_table_s_password_is_in_no_message(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        open_table(
            "http://ann:hunter2@127.0.0.1:9/p.csv?token=hunter2",
            root=tmp_path,
            setting="data.products",
            copies=tmp_path,
        )
    assert "hunter2" not in str(error.value) and "127.0.0.1:9" in str(error.value)
