"""Exports of shop systems become one row for each thing that can be bought, with its parent, images and options."""

import gzip

import pyarrow.parquet as parquet
import pytest

from gcl.data.check import check_catalog
from gcl.data.importers.layouts.feed import read_items, root_of
from gcl.data.importers.layouts.registry import LAYOUTS, layout_of
from gcl.data.importers.layouts.translate import catalog_of_export
from gcl.data.prepare.sources import open_sources, opened_catalog
from gcl.data.tables.table import Table
from helpers import exports
from helpers.small_catalog import catalog, text


def translated(path, layout, folder, **options) -> tuple[dict[str, dict], object]:
    """({product id: row}, the catalog)."""
    document = {"title": text(), "description": text()}
    query = {"query": text(column="title")}
    given = catalog(path.parent, products=path.name, layout=layout, query=query, document=document, **options)
    found, _, _ = opened_catalog(given, folder)
    rows = parquet.read_table(found.products).to_pylist()
    assert len({row["product_id"] for row in rows}) == len(rows)
    return {row["product_id"]: row for row in rows}, found


def test_shopify_rows_of_one_handle_are_variants_and_images(tmp_path):
    rows, _ = translated(exports.shopify(tmp_path), "shopify", tmp_path / "out")
    black, blue, lamp = rows["00017"], rows["00018"], rows["lamp"]
    assert (black["title"], black["option"], black["color"], black["size"]) == (
        "Chaz Hoodie, Black, M", "Black / M", "Black", "M",
    )  # fmt: skip
    assert (blue["title"], blue["parent"], blue["brand"]) == ("Chaz Hoodie, Blue, M", "hoodie", "Acme")
    assert blue["description"] == "<p>Warm &amp; soft</p>" and blue["price"] == "49.90"
    assert black["image"] == ["hoodie-black.jpg", "hoodie-back.jpg"], "its own, then what belongs to no variant"
    assert blue["image"] == ["hoodie-blue.jpg", "hoodie-back.jpg"]
    assert (lamp["title"], lamp["option"], lamp["color"]) == ("Desk Lamp", None, None)
    assert lamp["image"] == ["lamp.jpg", "mug.jpg"], "the handle is filled down"
    assert len(rows) == 3 + len(exports.MORE)


def test_a_shopify_sku_of_two_variants_names_the_first(tmp_path):
    rows = [
        {"Handle": "shirt", "Title": "Shirt", "Option1 Name": "Size", "Option1 Value": "S", "Variant SKU": "A"},
        {"Handle": "shirt", "Option1 Value": "M", "Variant SKU": "A"},
    ]
    path = exports.write(tmp_path / "p.csv", exports.SHOPIFY, rows)
    assert list(translated(path, "shopify", tmp_path / "out")[0]) == ["A", "shirt/M"]


def test_shopifys_newer_template_is_the_same_layout(tmp_path):
    columns = ["Title", "URL handle", "Description", "SKU", "Option1 name", "Option1 value", "Price",
               "Product image URL", "Image position", "Variant image URL"]  # fmt: skip
    rows = [
        {"Title": "Mug", "URL handle": "mug", "SKU": "M1", "Option1 name": "Color", "Option1 value": "Red",
         "Product image URL": "https://cdn.example/1.jpg"},
    ]  # fmt: skip
    path = exports.write(tmp_path / "p.csv", columns, rows)
    assert layout_of(columns).name == "shopify"
    row = translated(path, "shopify", tmp_path / "out")[0]["M1"]
    assert (row["title"], row["image"]) == ("Mug, Red", ["https://cdn.example/1.jpg"])


def test_woocommerce_variations_have_what_they_lack_from_their_parent(tmp_path):
    rows, _ = translated(exports.woocommerce(tmp_path), "woocommerce", tmp_path / "out")
    assert "10" not in rows, "its variations stand for it"
    black, blue, lamp = rows["11"], rows["12"], rows["13"]
    assert (black["title"], black["parent"], black["sku"]) == ("Chaz Hoodie - Black, M", "10", "hoodie-black")
    assert black["image"] == ["2024/01/hoodie.jpg", "2024/01/hoodie-back.jpg"]
    assert black["description"] == "<p>Warm</p>\n<p>soft</p>" and black["category"] == "Clothing > Hoodies"
    assert (blue["title"], blue["color"], blue["price"]) == ("Chaz Hoodie, Blue", "Blue", "39.90")
    assert blue["image"] == ["2024/01/hoodie-blue.jpg"]
    assert (lamp["description"], lamp["parent"]) == ("Bright", "13")


def test_a_german_woocommerce_export_is_recognised(tmp_path):
    columns = [
        "ID",
        "Typ",
        "Artikelnummer",
        "Name",
        "Beschreibung",
        "Regulärer Preis",
        "Bilder",
        "Übergeordnetes Produkt",
    ]
    rows = [{"ID": "1", "Typ": "simple", "Artikelnummer": "L1", "Name": "Lampe", "Regulärer Preis": "20,00",
             "Bilder": "https://a.de/1.jpg, https://a.de/2,3.jpg"}]  # fmt: skip
    path = exports.write(tmp_path / "p.csv", columns, rows)
    assert layout_of(columns).name == "woocommerce"
    row = translated(path, "woocommerce", tmp_path / "out")[0]["1"]
    assert row["image"] == ["https://a.de/1.jpg", "https://a.de/2,3.jpg"] and row["price"] == "20,00"


def test_magento_variants_and_one_store_view(tmp_path):
    rows, _ = translated(exports.magento(tmp_path), "magento", tmp_path / "out")
    assert "MH01" not in rows
    black, blue, lamp = rows["MH01-XS-Black"], rows["MH01-XS-Blue"], rows["LAMP"]
    assert black["title"] == "Kapuzenpullover Chaz-XS-Black", "the store view overrides the default"
    assert (black["parent"], black["description"], black["color"]) == ("MH01", "<p>Warm</p>", "Black")
    assert black["image"] == ["m/h/mh01-black.jpg", "m/h/mh01-back.jpg"]
    assert blue["image"] == ["m/h/mh01-back.jpg"], "no_selection is no image, so it has its parent's"
    assert (lamp["brand"], lamp["parent"], lamp["image"]) == ("Lux", "LAMP", ["l/a/lamp.jpg"])


def test_magentos_first_version_takes_several_rows_for_a_product(tmp_path):
    rows, _ = translated(exports.magento1(tmp_path), "magento1", tmp_path / "out")
    medium, large, lamp = rows["H-M-Red"], rows["H-L-Red"], rows["LAMP"]
    assert len(rows) == 3 + len(exports.MORE) and "H" not in rows
    assert (medium["title"], medium["option"], medium["size"]) == ("Hoodie M, Red", "M / Red", "M")
    assert (large["parent"], large["description"], large["category"]) == ("H", "<p>Warm</p>", "Men/Hoodies")
    assert medium["image"] == large["image"] == ["h/o/front.jpg", "h/o/back.jpg"], "no_selection is no image"
    assert (lamp["title"], lamp["brand"], lamp["image"]) == ("Tischlampe", "Lux", ["l/a/lamp.jpg"])


def test_magentos_several_store_views_are_columns(tmp_path):
    rows = [
        {"sku": "A", "product_type": "simple", "attribute_set_code": "x", "name": "Lamp"},
        {"sku": "A", "store_view_code": "de", "name": "Lampe"},
        {"sku": "A", "store_view_code": "fr", "name": "Lampe (fr)", "description": "claire"},
    ]
    path = exports.write(tmp_path / "p.csv", exports.MAGENTO, rows)
    row = translated(path, "magento", tmp_path / "out")[0]["A"]
    assert (row["title"], row["title_de"], row["title_fr"]) == ("Lamp", "Lampe", "Lampe (fr)")
    assert row["description"] == "claire", "what no other row says"


@pytest.mark.parametrize("write", [exports.google_tsv, exports.google_txt, exports.google_rss, exports.google_atom])
def test_google_feeds_are_the_same_in_every_form(tmp_path, write):
    rows, found = translated(write(tmp_path), "google", tmp_path / "out")
    assert (rows["G1"]["image"], rows["G1"]["parent"]) == (["black.jpg", "back.jpg"], "hoodie")
    assert (rows["G1"]["description"], rows["G1"]["url"]) == ("Warm & soft", "https://shop.example/g1")
    assert rows["G2"]["price"] == "49.90 EUR", "of the item, not of its shipping"
    assert rows["0003"]["parent"] == "0003" and len(rows) == 3 + len(exports.MORE)
    assert found.image_root == str(tmp_path)


@pytest.mark.parametrize("kind", exports.EXPORTS)
def test_each_export_tells_its_layout_by_itself(tmp_path, kind):
    path, name = exports.EXPORTS[kind](tmp_path), kind.partition("-")[0]
    if path.suffix == ".xml":
        assert root_of(path) in LAYOUTS[name].roots
    else:
        assert layout_of(Table("export", [path]).columns) is LAYOUTS[name]


def test_ordinary_tables_are_no_export():
    for columns in (
        ["product_id", "title", "image"],
        ["id", "title", "description", "price"],
        ["sku", "name", "image"],
    ):
        assert layout_of(columns) is None


def test_an_export_is_translated_once_by_content(tmp_path):
    path = exports.shopify(tmp_path)
    first = translated(path, "shopify", tmp_path / "out")[1].products
    assert translated(path, "shopify", tmp_path / "out")[1].products == first
    path.write_text(path.read_text().replace("Desk Lamp", "Floor Lamp"))
    rows, found = translated(path, "shopify", tmp_path / "out")
    assert found.products != first and rows["lamp"]["title"] == "Floor Lamp"
    assert not list((tmp_path / "out").glob(".*")), "neither a lock nor half a table is left"


def test_rows_that_cannot_be_used_are_listed_with_their_reason(tmp_path):
    rows = [
        {"ID": "1", "Type": "simple", "Name": "Lamp"},
        {"ID": "2", "Type": "variation", "Parent": "gone", "Name": "Hoodie - Black"},
        {"Type": "simple", "Name": "Nameless"},
    ]
    path = exports.write(tmp_path / "p.csv", exports.WOOCOMMERCE, rows)
    with pytest.raises(
        ValueError, match="2 of 3 rows of p.csv cannot be used .* unknown parent: 1; neither ID nor SKU"
    ):
        translated(path, "woocommerce", tmp_path / "out")
    translated(path, "woocommerce", tmp_path / "out", max_bad=0.7)
    listed = (tmp_path / "out").glob("small-woocommerce-*/quarantine.csv")
    assert "no variable product is called 'gone'" in next(iter(listed)).read_text()


def test_an_export_of_another_system_is_refused_by_what_it_lacks(tmp_path):
    path = exports.shopify(tmp_path)
    with pytest.raises(ValueError, match="is not WooCommerce's product export .*: it has no column Images"):
        translated(path, "woocommerce", tmp_path / "out")
    feed = exports.google_rss(tmp_path)
    with pytest.raises(ValueError, match="is XML: expected Shopify's product export"):
        translated(feed, "shopify", tmp_path / "out")
    with pytest.raises(ValueError, match="data.layout is 'shopfy': there is shopify: Shopify's"):
        check_catalog(catalog(tmp_path, products="p.csv", layout="shopfy"))


def test_a_feed_as_shops_write_them(tmp_path):
    """Blank lines before the declaration, a prefix that nobody declares, a value said twice."""
    path = tmp_path / "feed.xml"
    item = "<item><g:id>1</g:id><title>a</title><g:title>a</g:title></item>"
    path.write_text(f'\ufeff\n\n<?xml version="1.0"?><rss><channel>{item}</channel></rss>', encoding="utf-8")
    assert root_of(path) == "rss" and list(read_items(path)) == [(1, {"id": "1", "title": "a"})]


BOMB = '<!DOCTYPE rss [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><rss><item><id>&b;</id></item></rss>'
OUTSIDE = '<!DOCTYPE rss [<!ENTITY a SYSTEM "secret.txt">]><rss><item><id>&a;</id></item></rss>'


@pytest.mark.parametrize(
    "content, said",
    [
        (BOMB, "declares a document type"),
        (OUTSIDE, "declares a document type"),
        ("<html><body>Log in</body></html>", "begins with <html>"),
        ("<rss><channel></channel></rss>", "has no <item>"),
        ("<rss><channel><item><id>1</id>", "cut off: it ends within an element .line 1"),
    ],
)
def test_xml_that_is_no_feed_is_refused(tmp_path, content, said):
    (tmp_path / "secret.txt").write_text("secret")
    path = tmp_path / "feed.xml"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        list(read_items(path))


@pytest.mark.parametrize(
    ("title", "said"),
    [
        (b"Salt & pepper", r"at '.*Salt & pepper.*': & is written &amp; \(line 2, column"),
        (b"Caf&eacute;", "Caf&eacute;.* is an entity that XML does not have: write the letter itself"),
        (
            "Größe".encode("cp1252"),
            "is not in its encoding: name the true one in its first line, say enc",
        ),
        (None, "it ends within an element"),
    ],
)
def test_what_a_feed_fails_of_is_shown(tmp_path, title, said):
    end = b"" if title is None else title + b"</title></item></channel></rss>"
    (tmp_path / "feed.xml").write_bytes(b'<?xml version="1.0"?>\n<rss><channel><item><title>' + end)
    with pytest.raises(ValueError, match=f"feed.xml is not XML, or is cut off: .*{said}"):
        list(read_items(tmp_path / "feed.xml"))


def test_a_feed_is_read_item_by_item(tmp_path):
    path = tmp_path / "feed.xml.gz"
    with gzip.open(path, "wt") as target:
        target.write("<rss><channel>")
        for number in range(3000):
            target.write(f"<item><id>{number}</id><image_link>a</image_link><image_link>b</image_link></item>")
        target.write("</channel></rss>")
    items = read_items(path)
    assert next(items) == (1, {"id": "0", "image_link": "a\nb"})
    assert sum(1 for _ in items) == 2999


def test_a_catalog_of_an_export_names_gcls_own_columns(tmp_path):
    given = catalog(
        tmp_path, products=exports.shopify(tmp_path).name, layout="shopify", query={"query": text(column="titel")}
    )
    found, root, folder = opened_catalog(given, tmp_path / "out")
    with pytest.raises(KeyError, match="Did you mean 'title'"):
        open_sources(found, root, folder)
    assert catalog_of_export(given, tmp_path, tmp_path / "out").products == found.products
