"""A feed for Google Merchant Center: tab-separated text, or XML (RSS 2.0 or Atom)."""

from __future__ import annotations

from collections.abc import Iterator

from gcl.data.importers.layouts.layout import Export, Layout, Product, Row, options_of, separate


def _normal(name: str) -> str:
    """Attributes are written "image_link", "image link" or "g:image_link"."""
    return name.strip().lower().removeprefix("g:").replace(" ", "_")


def _translate(export: Export) -> Iterator[tuple[Product, Row]]:
    for row in export.rows():
        identifier = row["id"]
        if not identifier:
            export.refuse(row, "", "no id", row["title"])
        elif not row["title"]:
            export.refuse(row, identifier, "no title", "")
        else:
            yield _product(identifier, row), row


def _product(identifier: str, row: Row) -> Product:
    more = row["additional_image_link"]
    images = [row["image_link"], *(part for line in more.split("\n") for part in separate(line))]
    return {
        "product_id": identifier,
        "parent": row["item_group_id"] or identifier,
        "sku": row["mpn"],
        "title": row["title"],
        "description": row["description"],
        "image": list(dict.fromkeys(image for image in images if image)),
        "brand": row["brand"],
        "category": row.first("product_type", "google_product_category"),
        "price": row.first("sale_price", "price"),
        "url": row["link"],
        **options_of([("color", row["color"]), ("size", row["size"])]),
    }


GOOGLE = Layout(
    name="google",
    description="a feed for Google Merchant Center (TSV, TXT, CSV or XML)",
    known_by=(frozenset({"id", "title", "image_link"}),),
    reads=frozenset((
        "id", "title", "description", "link", "image_link", "additional_image_link", "price", "sale_price",
        "brand", "mpn", "google_product_category", "product_type", "item_group_id", "color", "size",
    )),
    translate=_translate,
    normal=_normal,
    roots=("rss", "feed"),
)  # fmt: skip
