"""What is prepared is what the tables say, in every form and format; every bad row is written down with its reason."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.data.catalog import Split, Store
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import SITUATIONS, open_prepared
from helpers.small_catalog import (
    catalog,
    contents,
    drawn,
    image,
    pairs,
    prepared,
    products,
    quarantined,
    text,
    write_table,
)

SPLIT = Split(queries=0.7, documents=0.6)


@pytest.fixture
def shop(tmp_path):
    """40 products with pictures, 60 queries of 6 pairs each."""
    rows = products(40)
    for number, row in enumerate(rows):
        row["image"] = f"images/{number}.jpg"
        row["brand"] = None if number % 3 else f"brand {number % 2}"
        path = tmp_path / "shop" / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn(number))
    write_table(tmp_path / "shop" / "products.csv", rows)
    write_table(tmp_path / "shop" / "pairs.csv", pairs(60, 40))
    return tmp_path / "shop"


def shop_catalog(root, **options):
    fields = {"image": image(weight=0.9), "title": text(weight=0.1), "brand": text()}
    given = {"products": "products.csv", "pairs": "pairs.csv", "document": fields, "score": "score", "split": SPLIT}
    return catalog(root, **given | options)


def test_what_was_written_is_what_is_read(shop, tmp_path):
    found = prepared(shop_catalog(shop), tmp_path / "out")
    said = contents(found)
    assert said["documents"] == {
        f"{number:04d}": {
            "image": drawn(number),
            "title": f"thing number {number}",
            "brand": None if number % 3 else f"brand {number % 2}",
        }
        for number in range(40)
    }
    assert {record["query"] for record in said["queries"].values()} == {f"query {number}" for number in range(60)}
    written = {(row["query"], row["product_id"]): float(row["score"]) for row in pairs(60, 40)}
    seen = {}
    for query, document, score in [*said["pairs"], *(row for _, rows in said["tasks"].values() for row in rows)]:
        seen[said["queries"][query]["query"], document] = score
    assert seen == written  # nothing is lost between training and the four situations
    assert [row for row, _ in zip(said["pairs"], said["pairs"][1:], strict=False) if row[2] not in range(1, 7)] == []
    assert found.schema.document["image"].weight == 0.9
    assert quarantined(found.folder) == []


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "parquet.gz"])
def test_all_formats_prepare_the_same(shop, tmp_path, suffix):
    expected = contents(prepared(shop_catalog(shop), tmp_path / "out"))
    for name in ("products", "pairs"):
        rows = list(parquet.read_table(_as_parquet(shop / f"{name}.csv")).to_pylist())
        write_table(shop / f"{name}.{suffix}", rows)
    given = shop_catalog(shop, products=f"products.{suffix}", pairs=f"pairs.{suffix}")
    assert contents(prepared(given, tmp_path / "other")) == expected


def _as_parquet(path):
    from gcl.data.tables.table import open_table

    table = open_table(path.name, root=path.parent, setting="")
    blocks = [block.columns for block in table.blocks(table.columns)]
    target = path.with_suffix(".temporary.parquet")
    parquet.write_table(
        pa.table({name: [cell for block in blocks for cell in block[name]] for name in table.columns}), target
    )
    return target


def test_images_in_a_parquet_column_are_the_same_images(shop, tmp_path):
    expected = contents(prepared(shop_catalog(shop), tmp_path / "out"))
    rows = parquet.read_table(_as_parquet(shop / "products.csv")).to_pylist()
    for as_struct in (False, True):
        for row in rows:
            data = (shop / f"images/{int(row['product_id'])}.jpg").read_bytes()
            row["image"] = {"bytes": data, "path": None} if as_struct else data
        write_table(tmp_path / "elsewhere" / "products.parquet", rows)
        given = shop_catalog(shop, products=str(tmp_path / "elsewhere" / "products.parquet"))
        assert contents(prepared(given, tmp_path / f"other{as_struct}")) == expected


def test_image_paths_start_at_the_table_or_the_image_root(shop, tmp_path):
    expected = contents(prepared(shop_catalog(shop), tmp_path / "out"))
    (tmp_path / "photos").mkdir()
    shutil.move(shop / "images", tmp_path / "photos" / "images")
    given = shop_catalog(shop, image_root=str(tmp_path / "photos"))
    assert contents(prepared(given, tmp_path / "other")) == expected
    (shop / "tables").mkdir()
    for name in ("products.csv", "pairs.csv"):
        text_of = (shop / name).read_text().replace("images/", f"{tmp_path}/photos/../photos/images/")
        (shop / "tables" / name).write_text(text_of)
    given = shop_catalog(shop, products="tables/products.csv", pairs="tables/pairs.csv")
    assert contents(prepared(given, tmp_path / "third")) == expected


def test_pairs_alone_hold_the_products_too(shop, tmp_path):
    expected = contents(prepared(shop_catalog(shop), tmp_path / "out"))
    known = {row["product_id"]: row for row in parquet.read_table(_as_parquet(shop / "products.csv")).to_pylist()}
    rows = [row | known[row["product_id"]] for row in pairs(60, 40)]
    write_table(shop / "log.csv", rows)
    found = contents(prepared(shop_catalog(shop, products=None, pairs="log.csv"), tmp_path / "other"))
    assert found["documents"] == expected["documents"]
    assert found["pairs"] == expected["pairs"]
    for row in rows:
        del row["product_id"]
    write_table(shop / "log.csv", rows)
    unnamed = prepared(shop_catalog(shop, products=None, pairs="log.csv"), tmp_path / "third")
    assert len(unnamed.documents) == 40
    assert sorted(unnamed.documents[row]["title"] for row in range(40)) == sorted(
        row["title"] for row in known.values()
    )
    with pytest.raises(KeyError, match="no column 'sku'"):  # only the default name may be missing
        prepare(shop_catalog(shop, products=None, pairs="log.csv", document_id="sku"), tmp_path / "third")


def test_products_alone_ask_for_themselves(shop, tmp_path):
    given = shop_catalog(shop, pairs=None, score=None, query={"title": text()}, split=Split(1, 1, 0))
    found = contents(prepared(given, tmp_path / "out"))
    assert len(found["pairs"]) == 40
    for query, document, score in found["pairs"]:
        assert found["queries"][query]["title"] == found["documents"][document]["title"] and score == 1


def test_image_queries(shop, tmp_path):
    rows = [
        {"photo": f"images/{n}.jpg", "words": None if n % 2 else f"like {n}", "product_id": f"{n:04d}"}
        for n in range(40)
    ]
    rows += [
        rows[0] | {"product_id": "0001"},
        {"photo": f"{shop}/images/0.jpg", "words": "like 0", "product_id": "0002"},
    ]
    write_table(shop / "pairs.csv", rows)
    query = {"picture": image(column="photo"), "words": text()}
    given = shop_catalog(shop, query=query, score=None, split=Split(1, 1, 0))
    found = contents(prepared(given, tmp_path / "out"))
    assert len(found["queries"]) == 40  # the same photograph under another path is the same query
    first = next(key for key, record in found["queries"].items() if record == {"picture": drawn(0), "words": "like 0"})
    assert [document for query, document, _ in found["pairs"] if query == first] == ["0000", "0001", "0002"]


def test_query_ids_are_kept_and_stand_for_one_query(shop, tmp_path):
    rows = [row | {"qid": f" Q{row['query'].split()[1]} "} for row in pairs(60, 40)]
    write_table(shop / "pairs.csv", rows)
    found = contents(prepared(shop_catalog(shop, query_id="qid"), tmp_path / "out"))
    assert {key: record["query"] for key, record in found["queries"].items()} == {
        f"Q{n}": f"query {n}" for n in range(60)
    }
    rows[100]["query"] = "another"
    write_table(shop / "pairs.csv", rows)
    with pytest.raises(ValueError, match=r"query id is repeated with other content.*'Q16' \(pairs.csv row 97 and"):
        prepare(shop_catalog(shop, query_id="qid"), tmp_path / "out", progress=False)


def test_repeated_products_are_merged_or_refused(shop, tmp_path):
    rows = parquet.read_table(_as_parquet(shop / "products.csv")).to_pylist()
    shutil.copy(shop / "images/0.jpg", shop / "images/copy.jpg")
    write_table(shop / "products.csv", [*rows, rows[3], rows[0] | {"image": "images/copy.jpg"}])
    found = prepared(shop_catalog(shop), tmp_path / "out")
    assert len(found.documents) == 40 and found.counts["merged_product_rows"] == 2
    write_table(shop / "products.csv", [*rows, rows[3] | {"title": "changed"}])
    with pytest.raises(
        ValueError, match=r"product id is repeated.*'0003' \(products.csv row 4 and products.csv row 41\)"
    ):
        prepare(shop_catalog(shop), tmp_path / "out", progress=False)


def test_every_bad_row_is_written_down_with_its_reason(shop, tmp_path):
    rows = parquet.read_table(_as_parquet(shop / "products.csv")).to_pylist()
    for number, name in [(1, "none.jpg"), (2, "cut.jpg"), (4, "page.jpg"), (5, "ftp://shop.example/5.jpg")]:
        rows[number]["image"] = name
    (shop / "cut.jpg").write_bytes(drawn(2)[:300])
    (shop / "page.jpg").write_bytes(b"<html>")
    rows[7] |= {"image": None, "title": " ", "brand": ""}
    rows[8]["product_id"] = " "
    write_table(shop / "products.csv", rows)
    log = pairs(60, 40)
    scores = ["high", "-1", "nan", "inf", "", "1e39", "0"]
    untouched = [
        n for n, row in enumerate(log) if row["product_id"] not in ("0001", "0002", "0004", "0005", "0007", "0008")
    ]
    for number, score in zip(untouched, scores, strict=False):
        log[number]["score"] = score
    log[untouched[10]]["product_id"] = "9999"
    log[untouched[11]]["product_id"] = None
    log[untouched[12]]["query"] = " "
    write_table(shop / "pairs.csv", log)
    with open(shop / "pairs.csv", "a") as target:
        target.write("one cell\n")
    found = prepared(shop_catalog(shop, max_bad=1.0, bad_images="drop"), tmp_path / "out")
    listed = {(row["table"], int(row["row"])): (row["id"], row["reason"]) for row in quarantined(found.folder)}
    assert all(row["detail"] for row in quarantined(found.folder)), "each with what was tried"
    expected = {
        ("products.csv", 2): ("0001", "no such image"),
        ("products.csv", 3): ("0002", "unreadable image"),
        ("products.csv", 5): ("0004", "unreadable image"),
        ("products.csv", 6): ("0005", "URL of a kind that is not read"),
        ("products.csv", 8): ("0007", "empty record"),
        ("products.csv", 9): ("", "no product id"),
    }
    reasons = [
        "score is not a number",
        "negative score",
        "no score",
        "score is not finite",
        "no score",
        "score is not finite",
    ]
    for number, reason in zip(untouched, reasons, strict=False):
        expected["pairs.csv", number + 1] = (log[number]["product_id"], reason)
    expected["pairs.csv", untouched[10] + 1] = ("9999", "unknown product id")
    expected["pairs.csv", untouched[11] + 1] = ("", "no product id")
    expected["pairs.csv", untouched[12] + 1] = ("", "empty query")
    expected["pairs.csv", len(log) + 1] = ("", "wrong number of cells")
    unknown = {
        ("pairs.csv", n + 1): ("0008", "unknown product id") for n, row in enumerate(log) if row["product_id"] == "0008"
    }
    assert listed == expected | unknown
    lost = {"0001", "0002", "0004", "0005", "0007"}
    assert found.counts["pairs_of_quarantined_products"] == sum(row["product_id"] in lost for row in log)
    assert found.counts["bad_rows"] == {"products.csv": 6, "pairs.csv": 10 + len(unknown)}
    assert found.counts["rows"] == {"products.csv": 40, "pairs.csv": 361}
    assert lost.isdisjoint(found.documents.ids)


def test_too_many_bad_rows_stop_with_their_reasons(shop, tmp_path):
    for number in range(4):
        (shop / f"images/{number}.jpg").unlink()
    (shop / "images/9.jpg").write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(ValueError) as error:
        prepare(shop_catalog(shop, bad_images="drop"), out, progress=False)
    message = str(error.value)
    assert "5 of 40 rows of products.csv cannot be used (12.5%, data.max_bad allows 1.0%)" in message
    assert "no such image: 4; unreadable image: 1" in message
    (written,) = out.glob("*.quarantine.csv")
    assert str(written) in message and len(written.read_text().splitlines()) == 6
    assert [path for path in out.iterdir() if path.is_dir()] == []
    assert prepare(shop_catalog(shop, max_bad=0.125, bad_images="drop"), out, progress=False).is_dir()


def test_rows_bad_on_both_sides_count_once(shop, tmp_path):
    (shop / "images/0.jpg").unlink()
    given = shop_catalog(shop, pairs=None, score=None, query={"image": image()}, max_bad=1 / 40, split=Split(1, 1, 0))
    found = prepared(given, tmp_path / "out")
    assert found.counts["bad_rows"] == {"products.csv": 1} and found.counts["pairs_of_quarantined_products"] == 0


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"products": None, "pairs": None}, ValueError, "names no table"),
        ({"name": "a/b"}, ValueError, "data.name is 'a/b'"),
        ({"products": "product.csv"}, FileNotFoundError, "Did you mean products.csv"),
        ({"document": {"title": text(), "colour": text()}}, KeyError, r"'colour' \(data.document.colour\)"),
        ({"query": {"query": text(column="Query")}}, KeyError, "Did you mean 'query'"),
        ({"score": "relevance"}, KeyError, "'relevance' .data.score."),
        ({"query_id": "qid"}, KeyError, "'qid' .data.query_id."),
        ({"document_id": "sku"}, KeyError, "'sku' .data.document_id."),
        (
            {"document": {"empty": text()}},
            ValueError,
            r"products.csv: no value in any of its 40 rows.*'empty' \(data.docu",
        ),
        ({"max_bad": 2.0}, ValueError, "data.max_bad is 2.0"),
        ({"store": Store(workers=0)}, ValueError, "data.store.workers is 0"),
        ({"store": Store(image_side=0)}, ValueError, "data.store.image_side is 0"),
        ({"split": Split(queries=1e-9)}, ValueError, "There is no training pair"),
        ({"split": Split(dev=1)}, ValueError, "data.split.dev is 1"),
    ],
)
def test_mistakes_are_sentences(shop, tmp_path, options, kind, message):
    rows = [row | {"empty": " "} for row in parquet.read_table(_as_parquet(shop / "products.csv")).to_pylist()]
    write_table(shop / "products.csv", rows)
    with pytest.raises(kind, match=message):
        prepare(shop_catalog(shop, **options), tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("split", "left_out"),
    [(Split(0.99999, 0.5), {"novel_query", "zero_shot"}), (Split(0.8, 0.99999), {"novel_document", "zero_shot"})],
)
def test_a_situation_without_a_query_to_test_on_is_left_out_and_told(shop, tmp_path, split, left_out):
    folder = prepare(shop_catalog(shop, split=split), tmp_path / "out", progress=False)
    found = open_prepared(folder)
    assert {*found.task_names, *left_out} == set(SITUATIONS) and not left_out & {*found.task_names}
    told = [note for note in found.counts["notes"] if "is left out: it has no query in its test half" in note]
    assert told and all("data.split" in note for note in told)


def test_a_table_without_rows_is_a_mistake(shop, tmp_path):
    (shop / "pairs.csv").write_text("query,product_id,score\n")
    with pytest.raises(ValueError, match="pairs.csv has a header but no rows"):
        prepare(shop_catalog(shop), tmp_path / "out", progress=False)


def test_zero_scores_are_judged_but_not_trained_on(shop, tmp_path):
    rows = [row | {"score": "0" if n % 6 == 2 else row["score"]} for n, row in enumerate(pairs(60, 40))]
    write_table(shop / "pairs.csv", rows)
    found = prepared(shop_catalog(shop, split=Split(1, 1)), tmp_path / "out")
    assert (found.pairs.score > 0).all() and len(found.pairs) == 300
    assert found.task_names == ["in_domain"]
    judged = np.concatenate([found.task("in_domain", part).relevance for part in ("dev", "test")])
    assert (judged == 0).sum() == 60 and len(judged) == 360


def test_repeated_pairs_train_as_often_but_are_judged_once(shop, tmp_path):
    rows = pairs(60, 40)
    write_table(shop / "pairs.csv", [*rows, *(row | {"score": "9"} for row in rows)])
    found = prepared(shop_catalog(shop), tmp_path / "out")
    once = prepared(shop_catalog(shop, split=SPLIT, pairs=write_table(shop / "once.csv", rows).name), tmp_path / "out")
    assert len(found.pairs) == 2 * len(once.pairs)
    task = found.task("in_domain", "test")
    assert len(task.query) == len(once.task("in_domain", "test").query) and (task.relevance == 9).all()


def test_stored_images_are_shrunk_only_on_request(shop, tmp_path):
    (shop / "images/0.jpg").write_bytes(drawn(0, (90, 60)))
    plain = contents(prepared(shop_catalog(shop), tmp_path / "out"))
    small = contents(prepared(shop_catalog(shop, store=Store(image_side=30)), tmp_path / "out"))
    assert plain["documents"]["0000"]["image"] == drawn(0, (90, 60))
    assert len(small["documents"]["0000"]["image"]) < len(plain["documents"]["0000"]["image"])
    del plain["documents"]["0000"], small["documents"]["0000"]
    assert small == plain  # smaller images are untouched, and no split moves


def test_index_says_what_is_there(shop, tmp_path):
    folder = prepare(shop_catalog(shop), tmp_path / "out", progress=False)
    index = json.loads((folder / "index.json").read_text())
    assert {shard["name"] for shard in index["shards"]} == {path.name for path in folder.glob("*.tar")}
    assert set(index["tables"]) == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".parquet", ".npy")
    }
    found = open_prepared(folder)
    with pytest.raises(KeyError, match="no task 'zero_shots'; its tasks: in_domain"):
        found.task("zero_shots")
    with pytest.raises(KeyError, match="'dev' or 'test'"):
        found.task("zero_shot", "train")
    with pytest.raises(ValueError, match="was prepared with the document fields"):
        open_prepared(folder, shop_catalog(shop, document={"title": text()}).schema)
    heavier = shop_catalog(shop)
    heavier.document["title"].weight = 0.7
    assert open_prepared(folder, heavier.schema).schema.document["title"].weight == 0.7


def test_a_text_that_is_a_file_by_mistake_is_left_out(tmp_path):
    rows = products(20)
    rows[3]["title"] = "long " * 200_001
    write_table(tmp_path / "products.jsonl", rows)
    write_table(tmp_path / "pairs.csv", pairs(30, 20))
    given = catalog(tmp_path, products="products.jsonl", pairs="pairs.csv", score="score", max_bad=0.1)
    lines = []
    found = open_prepared(prepare(given, tmp_path / "out", progress=False, report=lines.append))
    assert [(row["id"], row["reason"]) for row in quarantined(found.folder)] == [("0003", "text is too long")]
    assert found.counts["bad_reasons"] == {"products.jsonl": {"text is too long": 1}}
    assert "  products.jsonl: text is too long 1" in lines and len(found.documents) == 19
