"""One table of products as folders that other tools leave: Parquet, Hive partitions, save_to_disk, Lance, Iceberg."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from helpers.small_catalog import drawn, products

ROWS = [row | {"photo": drawn(number), "brand": f"b{number % 3}"} for number, row in enumerate(products(24))]
COLUMNS = ["product_id", "title", "photo", "brand"]


def table(rows=ROWS, *, struct=False) -> pa.Table:
    cells = [row | {"photo": {"bytes": row["photo"], "path": None}} if struct else row for row in rows]
    return pa.Table.from_pylist(cells).select(COLUMNS)


def parquet_folder(place: Path) -> Path:
    """As data sets of the hub have them: below data/, images as structs."""
    (place / "data").mkdir(parents=True)
    for number in range(2):
        file = place / "data" / f"train-{number:05d}-of-00002.parquet"
        parquet.write_table(table(ROWS[12 * number :][:12], struct=True), file)
    (place / "README.md").touch()
    return place


def partitions(place: Path) -> Path:
    for number, brand in enumerate(["b0", "b1", "b2"]):
        folder = place / f"brand={brand}" / "dt=2024-01-01"
        folder.mkdir(parents=True)
        parquet.write_table(table(ROWS[number::3]).drop_columns(["brand"]), folder / "part-0.parquet")
    (place / "_SUCCESS").touch()
    return place


def saved(place: Path) -> Path:
    """As `save_to_disk` of Hugging Face's datasets writes it."""
    place.mkdir(parents=True)
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    for number, name in enumerate(names):
        part = table(ROWS[12 * number :][:12], struct=True)
        with pa.OSFile(str(place / name), "wb") as target, pa.ipc.new_stream(target, part.schema) as writer:
            writer.write_table(part, max_chunksize=5)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (place / "dataset_info.json").write_text("{}")
    (place / "data-left-over.arrow").write_bytes(b"of another version")
    return place


def lance_set(place: Path) -> Path:
    lance = pytest.importorskip("lance")
    gone = [row | {"product_id": f"gone-{row['product_id']}"} for row in ROWS[:5]]
    lance.write_dataset(table(ROWS[:10] + gone + ROWS[10:]), place, max_rows_per_file=7)
    lance.dataset(str(place)).delete("product_id LIKE 'gone-%'")
    return place


def iceberg_table(place: Path) -> Path:
    catalogs = pytest.importorskip("pyiceberg.catalog.sql")
    place.mkdir(parents=True)
    shop = catalogs.SqlCatalog("shop", uri="sqlite:///:memory:", warehouse=place.absolute().as_uri())
    shop.create_namespace("shop")
    old = table().rename_columns(["product_id", "title", "photo", "label"])
    written = shop.create_table("shop.products", schema=old.schema)
    written.append(pa.concat_tables([old.slice(0, 2).set_column(1, "title", pa.array(["old", "old"])), old.slice(2)]))
    with written.update_schema() as change:
        change.rename_column("label", "brand")
    written.overwrite(table(ROWS[:2]), overwrite_filter="title = 'old'")
    shop.destroy_tables()
    shop.engine.dispose()
    return place / "shop" / "products"
