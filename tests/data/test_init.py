"""`gcl init` takes tables for what they are: its guess is right on exports of every layout and of many handwritings."""

import csv
import gzip
import io
import json
import re
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.cli import main
from gcl.config.compose import catalog_of
from gcl.data.check import check_catalog
from gcl.data.importers.layouts.registry import LAYOUTS
from gcl.data.init.draft import draft_tables, relative
from gcl.data.init.inputs import find_inputs
from gcl.data.init.tables import LIKE, check_like
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared
from helpers import exports
from helpers.small_catalog import drawn

SHOP = ["Warm hoodie", "Red mug", "Desk lamp", "Wool scarf", "Oak table", "Tea kettle", "Green tent", "Steel clock"]
GERMAN = ["Warmer Pulli für Männer", "Rote Tasse", "Tischlampe", "Wollschal", "Eichentisch", "Teekessel", "Zelt, grün",
          "Küchenuhr"]  # fmt: skip
LONG = "This one is made by hand in a small workshop, number {}, and lasts a very long time."


def table(path: Path, columns: dict[str, list], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    target = io.StringIO()
    writer = csv.writer(target, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(target.getvalue().encode(encoding))
    return path


def several(count: int = 40, names=SHOP) -> dict[str, list]:
    """Columns of products, without images."""
    return {
        "product_id": [f"P{number:03}" for number in range(count)],
        "title": [f"{names[number % len(names)]} {number}" for number in range(count)],
        "description": [LONG.format(number) for number in range(count)],
    }


def renamed(columns: dict[str, list], *names: str) -> dict[str, list]:
    return dict(zip(names, columns.values(), strict=True))


def pairs(ids: list[str], **names: str) -> dict[str, list]:
    rows = [(f"search {number % 7}", identifier, 1 + number % 4) for number, identifier in enumerate(ids)]
    keys = [names.get("query", "query"), names.get("document", "product_id"), names.get("score", "score")]
    return dict(zip(keys, map(list, zip(*rows, strict=True)), strict=True))


@pytest.fixture
def init(tmp_path, monkeypatch):
    """init(files…, like=…): (the catalog of the YAML that is written, the draft)."""
    monkeypatch.chdir(tmp_path)

    def call(*files: Path, like: str | None = None):
        inputs = find_inputs([str(file) for file in files], tmp_path / "copies")
        target = tmp_path / "conf" / "data" / "mine.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_tables(
            inputs, name="mine", like=like, place=lambda path: relative(path, target.parent), begin="Written."
        )
        target.write_text(draft.text, encoding="utf-8")
        catalog = catalog_of(str(target))
        if draft.trainable:
            check_catalog(catalog)
        return catalog, draft

    return call


def prepared(catalog, tmp_path):
    return open_prepared(prepare(catalog, tmp_path / "prepared", progress=False))


def test_a_plain_table(init, tmp_path):
    columns = several()
    columns["image"] = [f"pics/{number}.jpg" for number in range(40)]
    exports.images(tmp_path, columns["image"])
    catalog, draft = init(table(tmp_path / "products.csv", columns))
    assert (catalog.products, catalog.document_id, catalog.pairs) == ("../../products.csv", "product_id", None)
    assert (catalog.encoding, catalog.delimiter, catalog.decimal, catalog.image_root) == (None, None, ".", None)
    assert list(catalog.document) == ["image", "title", "description"]
    assert catalog.query["query"].column == "title" and "own_field: hidden" in draft.text
    assert sum(spec.weight for spec in catalog.document.values()) == pytest.approx(1)
    assert len(prepared(catalog, tmp_path).documents) == 40


@pytest.mark.parametrize(
    "delimiter, encoding, suffix, said",
    [
        (";", "utf-8", ".csv", {"delimiter": ";"}),
        ("\t", "utf-8", ".csv", {"delimiter": "\t"}),
        ("|", "utf-8", ".csv", {"delimiter": "|"}),
        ("\t", "utf-8", ".tsv", {}),
        ("\t", "utf-8", ".txt", {}),
        (",", "cp1252", ".csv", {"encoding": "cp1252"}),
        (";", "cp1252", ".csv", {"encoding": "cp1252", "delimiter": ";"}),
        (",", "utf-8-sig", ".csv", {}),
        ("\t", "utf-16", ".txt", {}),
        ("\t", "cp1252", ".txt", {"encoding": "cp1252"}),
        (";", "utf-16-le", ".csv", {"encoding": "utf-16-le", "delimiter": ";"}),
    ],
)
def test_german_exports_in_every_handwriting(init, tmp_path, delimiter, encoding, suffix, said):
    columns = renamed(several(names=GERMAN), "Artikelnummer", "Bezeichnung", "Beschreibung")
    columns["Preis"] = [f"{number},90" for number in range(40)]
    catalog, _ = init(table(tmp_path / f"artikel{suffix}", columns, delimiter=delimiter, encoding=encoding))
    assert {"encoding": catalog.encoding, "delimiter": catalog.delimiter} == {
        "encoding": None,
        "delimiter": None,
    } | said
    assert (catalog.document_id, catalog.query["query"].column) == ("Artikelnummer", "Bezeichnung")
    assert catalog.decimal == ",", "as the prices are written"
    found = prepared(catalog, tmp_path)
    assert "Warmer Pulli für Männer 0" in {record["query"] for record in map(found.queries.__getitem__, range(40))}


def test_pairs_that_call_the_product_otherwise(init, tmp_path):
    columns = several()
    catalog, _ = init(
        table(tmp_path / "products.csv", columns),
        table(
            tmp_path / "log.csv", pairs(columns["product_id"], query="search_term", document="sku", score="relevance")
        ),
    )
    assert (catalog.pairs_document_id, catalog.query["query"].column) == ("sku", "search_term")
    assert (catalog.score, catalog.document_id) == ("relevance", "product_id")


def test_columns_without_a_telling_name_are_told_by_their_content(init, tmp_path):
    ids = [f"{number:05}" for number in range(40)]
    columns = {"A": ids, "B": several()["title"], "C": [f"x/{number}.png" for number in range(40)]}
    asked = {
        "one": [f"search {number % 7}" for number in range(40)],
        "two": ids,
        "three": [number % 4 for number in range(40)],
    }
    catalog, draft = init(table(tmp_path / "products.csv", columns), table(tmp_path / "other.csv", asked))
    assert (catalog.document_id, catalog.pairs_document_id) == ("A", "two") and "leading zeros" in draft.text
    assert catalog.document["image"].column == "C" and catalog.document["title"].column == "B"
    assert (catalog.query["query"].column, catalog.score) == ("one", "three")


def test_of_two_ids_the_one_that_the_pairs_name_counts(init, tmp_path):
    columns = {"id": [str(number) for number in range(1, 41)]} | renamed(several(), "sku", "name", "text")
    products = table(tmp_path / "products.csv", columns)
    assert init(products)[0].document_id == "id"
    catalog, _ = init(products, table(tmp_path / "pairs.csv", pairs(columns["sku"], document="product")))
    assert (catalog.document_id, catalog.pairs_document_id) == ("sku", "product")


@pytest.mark.parametrize(
    "header, said",
    [
        ("ordernumber;mainnumber;name;description_long;imageUrl", ("ordernumber", "mainnumber", "name", "imageUrl")),
        (
            "Product ID;Reference #;Name *;Description;Image URLs (x,y,z...)",
            ("Product ID", None, "Name *", "Image URLs (x,y,z...)"),
        ),
        (
            "item_sku;parent_sku;item_name;product_description;main_image_url",
            ("item_sku", "parent_sku", "item_name", "main_image_url"),
        ),
        ("uniq_id;product_category_tree;product_name;description;image", ("uniq_id", None, "product_name", "image")),
        ("article_id;product_code;prod_name;detail_desc;img", ("article_id", "product_code", "prod_name", "img")),
    ],
    ids=lambda value: value.partition(";")[0] if isinstance(value, str) else None,
)
def test_headers_of_other_systems(init, tmp_path, header, said):
    rows = [
        [f"A{n}", f"G{n // 4}", f"Oak table {n // 4}", LONG.format(n), f"https://x.example/{n}.jpg"] for n in range(40)
    ]
    columns = dict(zip(header.split(";"), map(list, zip(*rows, strict=True)), strict=True))
    catalog, _ = init(table(tmp_path / "products.csv", columns, delimiter=";"))
    parent = catalog.split.group[0] if catalog.split.group else None
    named = catalog.document_id, parent, catalog.query["query"].column, catalog.document["image"].column or "image"
    assert named == said and "description" in catalog.document


def test_variants_stay_together_and_repeated_ids_do_not_stop(init, tmp_path):
    columns = several()
    columns["parent"] = [f"S{number // 3}" for number in range(40)]
    catalog, _ = init(table(tmp_path / "products.csv", columns))
    assert (catalog.split.group, str(catalog.duplicates.products)) == (["parent"], "refuse")
    columns["product_id"][7] = columns["product_id"][3]
    catalog, draft = init(table(tmp_path / "products.csv", columns))
    assert str(catalog.duplicates.products) == "first" and "other content, 40 rows have 39 of it" in draft.notes[0]


@pytest.mark.parametrize(
    "cells, said",
    [
        ({"image": "{0}.jpg"}, {}),
        ({"Bild 1": "{0}.jpg", "Bild 2": "{1}.jpg"}, {"columns": ["Bild 1", "Bild 2"]}),
        ({"images": "{0}.jpg,{1}.jpg"}, {"column": "images", "separator": ","}),
        ({"pictures": "{0}.jpg | {1}.jpg"}, {"column": "pictures", "separator": "|"}),
        ({"photo": "https://cdn.example/{0}?w=1"}, {"column": "photo"}),
        ({"image_link": "https://cdn.example/{0}.jpg"}, {"column": "image_link"}),
        ({"media": '["{0}.jpg", "{1}.jpg"]'}, {"column": "media"}),
        ({"gallery": "['{0}.jpg', '{1}.jpg']"}, {"column": "gallery"}),
        ({"whatever": "{0}.webp"}, {"column": "whatever"}),
        ({"image": "{0}.jpg", "thumbnail": "{0}.jpg"}, {}),
    ],
    ids=lambda value: next(iter(value), "plain") if isinstance(value, dict) else None,
)
def test_images_are_found_by_what_is_in_the_cells(init, tmp_path, cells, said):
    columns = several()
    for name, form in cells.items():
        columns[name] = [form.format(number, number + 50) for number in range(40)]
    image = init(table(tmp_path / "products.csv", columns))[0].document["image"]
    named = {"column": image.column, "columns": image.columns, "separator": image.separator}
    assert {key: value for key, value in named.items() if value} == said


def test_image_files_in_another_folder(init, tmp_path):
    columns = several()
    columns["image"] = [f"{number}.jpg" for number in range(40)]
    exports.images(tmp_path / "export" / "bilder", columns["image"])
    path = table(tmp_path / "export" / "tables" / "products.csv", columns)
    assert init(path)[0].image_root == "../../export/bilder"
    for file in (tmp_path / "export" / "bilder").iterdir():
        file.unlink()
    catalog, draft = init(path)
    assert catalog.image_root is None and "set image_root" in " ".join(draft.notes)


def test_html_words_for_missing_and_grades_in_words(init, tmp_path):
    columns = several()
    columns["description"] = [f"<p>{text}</p>" for text in columns["description"]]
    columns["brand"] = ["unbekannt", "Acme"] * 20
    asked = pairs(columns["product_id"])
    asked["score"] = [["Perfect", "Good", "Bad"][number % 3] for number in range(40)]
    catalog, _ = init(table(tmp_path / "products.csv", columns), table(tmp_path / "pairs.csv", asked))
    assert str(catalog.document["description"].text) == "html" and "unbekannt" in catalog.missing
    assert catalog.grades == {"Perfect": 4, "Good": 2, "Bad": 0}


def test_marks_that_backslashes_escape_are_read_so(init, tmp_path):
    (tmp_path / "products.csv").write_text("id,title\n" + "".join(f'{n},"desk {n}\\" wide"\n' for n in range(30)))
    assert init(tmp_path / "products.csv")[0].quote == "backslash"


def test_titles_with_tags_are_titles(init, tmp_path):
    columns = several() | {"title": [f"<b>Red mug</b> {n}" for n in range(40)]}
    title = init(table(tmp_path / "products.csv", columns))[0].document["title"]
    assert (title.column, title.text) == (None, "html")


def test_ids_may_be_urls(init, tmp_path):
    columns = several() | {"product_id": [f"https://shop.example/things/a-very-long-name/{n}" for n in range(40)]}
    asked = table(tmp_path / "pairs.csv", pairs(columns["product_id"]))
    catalog, _ = init(table(tmp_path / "products.csv", columns), asked)
    assert (catalog.document_id, catalog.pairs_document_id) == ("product_id", None)


def test_tables_without_a_row_to_read_are_named(init, tmp_path):
    products = table(tmp_path / "products.csv", several())
    (tmp_path / "pairs.csv").write_text("query,product_id\n")
    with pytest.raises(ValueError, match=r"pairs.csv has a header \(query, product_id\) and no rows below it"):
        init(products, tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("query,product_id\na,b,c\n")
    with pytest.raises(ValueError, match="No row of pairs.csv can be read. Row 1: wrong number of cells: 3 cells"):
        init(products, tmp_path / "pairs.csv")


def test_a_click_log(init, tmp_path):
    columns = several()
    log = pairs(columns["product_id"]) | {"position": list(range(1, 41)), "clicks": [1, 0] * 20}
    del log["score"]
    catalog, _ = init(table(tmp_path / "products.csv", columns), table(tmp_path / "log.csv", log))
    assert catalog.clicks is not None and (catalog.clicks.position, catalog.clicks.clicks) == ("position", "clicks")
    assert catalog.score is None


def test_queries_and_judgments_are_a_task_and_the_folder_of_them_is_enough(init, tmp_path):
    columns, folder = several(), tmp_path / "shop"
    asked = {"query_id": [f"q{number}" for number in range(8)], "text": SHOP, "kind": ["short", "long"] * 4}
    judged = {
        "query_id": [f"q{number % 8}" for number in range(40)],
        "doc": columns["product_id"],
        "grade": [1, 2] * 20,
    }
    table(folder / "products.csv", columns)
    table(folder / "train_pairs.csv", pairs(columns["product_id"]))
    table(folder / "queries.csv", asked)
    table(folder / "qrels.csv", judged)
    catalog, _ = init(folder)
    task = catalog.tasks["judged"]
    assert (task.queries, task.qrels, task.kind) == ("../../shop/queries.csv", "../../shop/qrels.csv", "kind")
    assert (task.document_id, task.score, task.query_columns) == ("doc", "grade", {"query": "text"})
    assert catalog.pairs == "../../shop/train_pairs.csv" and prepared(catalog, tmp_path).counts["tasks"]["short"]


def test_judgments_of_trec_and_a_ground_truth(init, tmp_path):
    columns = several()
    products = table(tmp_path / "products.csv", columns)
    log = table(tmp_path / "pairs.csv", pairs(columns["product_id"]))
    asked = table(tmp_path / "queries.tsv", {"qid": ["1", "2"], "query": SHOP[:2]}, delimiter="\t")
    qrels = tmp_path / "judged.qrels"
    qrels.write_text("1 0 P001 1\n2 0 P002 2\n")
    task = init(products, log, asked, qrels)[0].tasks["judged"]
    assert (task.queries, task.qrels, task.query_id) == ("../../queries.tsv", "../../judged.qrels", "qid")
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"warm hoodie": {"P001": 3}, "mug": {"P002": 1}}))
    assert init(products, log, truth)[0].tasks["judged"].qrels == "../../truth.json"


def test_one_table_of_searches_with_the_products_columns(init, tmp_path):
    columns = {"query": [f"search {number % 7}" for number in range(40)]} | several() | {"score": [1, 2] * 20}
    catalog, _ = init(table(tmp_path / "all.csv", columns))
    assert (catalog.products, catalog.pairs) == (None, "../../all.csv")
    assert list(catalog.document) == ["title", "description"]


@pytest.mark.parametrize("kind", exports.EXPORTS)
def test_every_layout_is_recognised_and_prepared(init, tmp_path, kind):
    layout = kind.partition("-")[0]
    catalog, draft = init(exports.EXPORTS[kind](tmp_path))
    assert (catalog.layout, catalog.split.group, catalog.document_id) == (layout, ["parent"], "product_id")
    assert {"image", "title", "description"} <= set(catalog.document)
    wanted = dict.fromkeys(("magento", "magento1"), "../../media/catalog/product")
    assert catalog.image_root == wanted.get(layout)
    found = prepared(catalog, tmp_path)
    assert len(found.documents) == found.counts["products"] and found.counts["products"] > len(exports.MORE)
    with_image = sum(found.documents[row]["image"] is not None for row in range(len(found.documents)))
    assert with_image == len(found.documents), draft.text


def test_a_log_of_a_layouts_other_ids(init, tmp_path):
    path = exports.woocommerce(tmp_path)
    skus = ["hoodie-black", "lamp", *(f"M{number}" for _, number in exports.MORE)]
    catalog, _ = init(path, table(tmp_path / "pairs.csv", pairs(skus, document="sku")))
    assert (catalog.document_id, catalog.pairs_document_id) == ("sku", None)


def test_parquet_with_images_in_it_and_json_lists(init, tmp_path):
    columns = several()
    columns["picture"] = [{"bytes": drawn(number), "path": None} for number in range(40)]
    parquet.write_table(pa.table(columns), tmp_path / "products.parquet")
    catalog, _ = init(tmp_path / "products.parquet")
    assert catalog.document["image"].column == "picture" and len(prepared(catalog, tmp_path).documents) == 40
    rows = [{"product_id": f"{number}", "title": f"thing {number}", "image": ["a.jpg", "b.jpg"], "more": {"x": 1}}
            for number in range(9)]  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(rows))
    assert init(tmp_path / "p.json")[0].document["image"].column is None


def test_parts_of_one_table_and_an_excel_sheet(init, tmp_path):
    pytest.importorskip("openpyxl")
    import openpyxl

    columns = several()
    for part in (0, 1):
        half = {name: cells[part * 20 : part * 20 + 20] for name, cells in columns.items()}
        parquet.write_table(pa.table(half), tmp_path / f"part-0000{part}.parquet")
    assert init(tmp_path / "part-*.parquet")[0].products == "../../part-*.parquet"
    book = openpyxl.Workbook()
    for row in [list(columns), *zip(*columns.values(), strict=True)]:
        book.active.append(row)
    book.save(tmp_path / "shop.xlsx")
    assert init(tmp_path / "shop.xlsx")[0].document_id == "product_id"


def wands(folder: Path) -> list[Path]:
    count = range(40)
    named = {"product_id": [str(n) for n in count], "product_name": [f"oak table {n}" for n in count],
             "product_class": ["Tables"] * 40, "category hierarchy": ["Furniture / Tables"] * 40,
             "product_description": [LONG.format(n) for n in count],
             "rating_count": [f"{n}.0" for n in count]}  # fmt: skip
    asked = {"query_id": ["0", "1"], "query": ["salon chair", "smart coffee table"], "query_class": ["A", "B"]}
    labels = {"id": list(count), "query_id": [str(n % 2) for n in count], "product_id": [str(n) for n in count],
              "label": [("Exact", "Partial", "Irrelevant")[n % 3] for n in count]}  # fmt: skip
    named_tables = (("product", named), ("query", asked), ("label", labels))
    return [table(folder / f"{name}.csv", columns, delimiter="\t") for name, columns in named_tables]


def test_wands(init, tmp_path):
    catalog, _ = init(*wands(tmp_path), like="wands")
    task = catalog.tasks["judged"]
    assert (catalog.delimiter, catalog.query["query"].column, task.score) == ("\t", "product_name", "label")
    assert task.grades == {"Exact": 2, "Partial": 1, "Irrelevant": 0} and task.query_columns == {"query": "query"}
    assert prepared(catalog, tmp_path).counts["tasks"]["judged"]


def test_esci(init, tmp_path):
    examples = {
        "example_id": list(range(60)), "query": [f"search {n % 12}" for n in range(60)],
        "query_id": [n % 12 for n in range(60)], "product_id": [f"B00{n % 40:03}" for n in range(60)],
        "product_locale": ["us"] * 60, "esci_label": ["ESCI"[n % 4] for n in range(60)],
        "small_version": [1] * 60, "large_version": [1] * 60,
        "split": ["test" if n % 12 < 4 else "train" for n in range(60)],
    }  # fmt: skip
    named = {
        "product_id": [f"B00{n:03}" for n in range(40)], "product_title": [f"oak table {n}" for n in range(40)],
        "product_description": [f"<b>{LONG.format(n)}</b>" for n in range(40)], "product_brand": ["Acme"] * 40,
        "product_locale": ["us", "jp"] * 20,
    }  # fmt: skip
    for name, columns in (("examples", examples), ("products", named)):
        parquet.write_table(pa.table(columns), tmp_path / f"shopping_queries_dataset_{name}.parquet")
    catalog, draft = init(*sorted(tmp_path.glob("*.parquet")), like="esci")
    assert catalog.grades == {"E": 1, "S": 0.1, "C": 0.01, "I": 0} and catalog.score == "esci_label"
    assert (catalog.tasks["test"].kinds, catalog.tasks["test"].query_id) == (["test"], "query_id")
    assert str(catalog.document["description"].text) == "html" and "multilingual" in draft.text
    assert prepared(catalog, tmp_path).counts["tasks"]["test"]["corpus"] == 40


def test_a_set_that_the_files_are_not_is_refused(init, tmp_path):
    path = table(tmp_path / "products.csv", several())
    with pytest.raises(ValueError, match="like=wands is WANDS: .*, but no table has the columns query, query_id"):
        init(path, like="wands")
    with pytest.raises(ValueError, match="is not Shopify's product export"):
        init(path, like="shopify")
    with pytest.raises(ValueError, match="no layout or set 'shopfy'. Did you mean shopify"):
        check_like("shopfy")
    assert set(LIKE) == {*LAYOUTS, "marqtune", "esci", "wands", "img2dataset"}


def test_files_that_cannot_be_a_catalog_are_answered_in_sentences(init, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*gone.csv"):
        init(tmp_path / "gone.csv")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(ValueError, match="notes.pdf is nothing gcl reads"):
        init(tmp_path / "notes.pdf")
    (tmp_path / "shop.xml").write_text("<products><product><id>1</id></product></products>")
    with pytest.raises(ValueError, match="shop.xml begins with <products>: of XML, product feeds are read"):
        init(tmp_path / "shop.xml")
    numbers = table(tmp_path / "numbers.csv", {"a": [1, 2, 3], "b": [4, 5, 6]})
    with pytest.raises(ValueError, match="No table of products was found"):
        init(numbers)
    (tmp_path / "headed.csv").write_text("Export of 3 May\nsku,title\n1,red shirt\n2,blue mug\n")
    with pytest.raises(ValueError, match="Export of 3 May alone .*stand further down, delete what is above them"):
        init(tmp_path / "headed.csv")
    (tmp_path / "by_sku.json").write_text('{"A1": {"title": "red shirt"}, "A2": {"title": "blue mug"}}')
    with pytest.raises(ValueError, match="is one JSON object of objects .A1, A2.; .*each with its id"):
        init(tmp_path / "by_sku.json")
    asked = table(tmp_path / "asked.csv", pairs([f"{number}" for number in range(20)]))
    with pytest.raises(
        ValueError, match="asked.csv holds searches .*No table of products .* Given: headed.csv: Export"
    ):
        init(tmp_path / "headed.csv", asked)
    with pytest.raises(ValueError, match="asked.csv holds searches .* no table of products was given"):
        init(asked)
    (tmp_path / "picture.csv").write_bytes(drawn())
    with pytest.raises(ValueError, match=r"picture.csv is a picture"):
        init(tmp_path / "picture.csv")
    titles = table(tmp_path / "titles.csv", {"product_id": ["1", "2", "3"], "title": SHOP[:3]})
    assert "titles alone" in init(titles)[1].notes[0]


def test_the_command_writes_a_yaml_once_and_says_what_to_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "shoes.csv", several())
    main(["init", "shoes.csv", "doctor=false"])
    said = capsys.readouterr().out
    assert "Next: gcl doctor --config-dir conf data=shoes" in said and (tmp_path / "conf/data/shoes.yaml").is_file()
    with pytest.raises(SystemExit):
        main(["init", "shoes.csv", "doctor=false"])
    assert "overwrite=true" in capsys.readouterr().err
    main(["init", "shoes.csv", "doctor=false", "overwrite=true", "name=demo2", "--config-dir", "mine"])
    assert (tmp_path / "mine/data/demo2.yaml").is_file()
    command = re.search(r"Next: gcl (.*)", capsys.readouterr().out)[1].split()
    main(["prepare", *command[1:]])


def test_no_file_keeps_the_password_of_a_tables_url(tmp_path, monkeypatch, capsys):
    table(tmp_path / "web" / "shop" / "products.csv", several())
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://ann:s3cr3t@127.0.0.1:{server.server_port}/shop/products.csv?token=t0k3n"
        monkeypatch.setenv("GCL_SHOP_PRODUCTS_CSV", "")  # what the command sets is gone after the test
        monkeypatch.chdir(tmp_path)
        main(["init", url, "name=far", "doctor=false"])
        said = capsys.readouterr().out
        found = prepare(catalog_of(str(tmp_path / "conf" / "data" / "far.yaml")), tmp_path / "prepared", progress=False)
        server.shutdown()
    assert len(open_prepared(found).documents) == 40
    assert "before other commands, export GCL_SHOP_PRODUCTS_CSV='https://…'" in said
    kept = [said.encode(), *(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())]
    assert len(kept) > 5 and not any(secret in data for data in kept for secret in (b"s3cr3t", b"t0k3n"))


def test_shards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number in range(3):
            about = {"caption": "a mug", "url": "https://a.example/1", "key": f"{number}", "product_id": f"P{number}",
                     "title": f"Mug {number}", "width": 24}  # fmt: skip
            for kind, data in (("jpg", drawn(number)), ("txt", b"a mug"), ("json", json.dumps(about).encode())):
                member = tarfile.TarInfo(f"{number:09}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    main(["init", "--like", "img2dataset", "00000.tar", "name=web", "doctor=false"])
    catalog = catalog_of("conf/data/web.yaml")
    assert (catalog.shards, catalog.document_id) == ("../../00000.tar", "product_id")
    assert catalog.query["query"].column == "txt" and catalog.document["image"].column == "jpg"
    (tmp_path / "00000.tar.gz").write_bytes(gzip.compress((tmp_path / "00000.tar").read_bytes()))
    with pytest.raises(SystemExit):
        main(["init", "00000.tar.gz", "doctor=false"])
    assert "shard is compressed" in capsys.readouterr().err and len(list((tmp_path / "conf/data").iterdir())) == 1


def test_marqtunes_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "train.csv", {"q": SHOP, "doc": list("abcdefgh"), "t": SHOP, "s": [1, 2] * 4})
    settings = {
        "name": "theirs", "training": "train.csv", "weightKey": "s",
        "schema": {"q": "text", "doc": "doc_id", "t": "text", "s": "score"},
        "leftKeys": ["q"], "leftWeights": [1], "rightKeys": ["t"], "rightWeights": [1],
    }  # fmt: skip
    (tmp_path / "words.json").write_text(json.dumps(settings))
    main(["init", "words.json", "doctor=false"])
    assert catalog_of("conf/data/words.yaml").score == "s"


@pytest.mark.slow
@pytest.mark.parametrize("kind", exports.EXPORTS)
def test_from_an_export_to_a_model(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    path = exports.EXPORTS[kind](tmp_path)
    main(["init", path.name, "name=shop"])
    said = capsys.readouterr().out
    command = re.search(r"Next: gcl (train .*) model=lite", said)
    assert command, said
    main([*command[1].split(), "model=tiny", "trainer=cpu", "train.workers=0", "train.max_steps=3", "run_dir=run"])
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_score_that_sounds_like_a_rank_is_to_be_looked_at(init, tmp_path):
    given = table(
        tmp_path / "products.csv", {"sku": [f"s{n}" for n in range(20)], "title": [f"red mug {n}" for n in range(20)]}
    )
    rows = {
        "query": [f"mug {n}" for n in range(20)],
        "sku": [f"s{n}" for n in range(20)],
        "rank": [1 + n % 4 for n in range(20)],
    }
    catalog, draft = init(given, table(tmp_path / "pairs.csv", rows))
    assert catalog.score == "rank" and any("rank sounds like a rank" in note for note in draft.notes)
