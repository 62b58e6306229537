"""Magento's product export (version 2, CSV): a row for each SKU, and one more for each store view that differs.

A store view's cells stand in place of the default's. Where the export holds several store views, titles and
descriptions of each become columns of their own (title_de), and the default's stay. A simple product that a
configurable one lists is its variant, with what it lacks from there; a configurable product is not a document itself
if the export holds its variants.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from gcl.data.importers.layouts.layout import Export, Layout, Product, Row, options_of, separate, with_options

_TRANSLATED = {"title": "name", "description": "description"}
_NO_IMAGE = "no_selection"
_SHARED = ("description", "short_description", "categories", "base_image", "additional_images", "url_key", "name")


def _views(export: Export) -> list[str]:
    return list(dict.fromkeys(row["store_view_code"] for row in export.rows() if _view(row)))


def _view(row: Row) -> str:
    view = row["store_view_code"]
    return "" if view in ("default", "admin") else view


def _more(export: Export) -> Sequence[str]:
    views = _views(export)
    return [f"{column}_{view}" for view in views for column in _TRANSLATED] if len(views) > 1 else []


def _translate(export: Export) -> Iterator[tuple[Product, Row]]:
    views = _views(export)
    others: dict[str, dict[str, Row]] = {}  # rows of store views: SKU -> view -> row
    default: set[str] = set()
    parents: dict[str, Row] = {}
    variants: dict[str, tuple[str, list[tuple[str, str]]]] = {}  # SKU -> its parent's, and its options
    for row in export.rows():
        sku = row["sku"]
        if _view(row):
            others.setdefault(sku, {})[_view(row)] = row
            continue
        default.add(sku)
        if listed := row["configurable_variations"]:
            parents[sku] = row
            for variant, options in _listed(listed):
                variants[variant] = sku, options
    whole = {parent for variant, (parent, _) in variants.items() if variant in default}
    seen: set[str] = set()
    for row in export.rows():
        sku = row["sku"]
        if not sku:
            export.refuse(row, "", "no sku", row["name"])
            continue
        if sku in whole or (_view(row) and (sku in default or sku in seen)):
            continue
        if sku in seen:
            export.refuse(row, sku, "repeated sku", f"store view {row['store_view_code'] or 'default'!r}")
            continue
        seen.add(sku)
        parent, options = variants.get(sku, ("", []))
        product = _product(row, others.get(sku, {}), parents.get(parent), options, views)
        if product["title"]:
            yield product, row
        else:
            export.refuse(row, sku, "no name", "in no store view")


def _product(
    row: Row, others: dict[str, Row], parent: Row | None, options: list[tuple[str, str]], views: list[str]
) -> Product:
    cells = dict(row.cells)
    if len(views) == 1 and views[0] in others:
        cells |= others[views[0]].cells
    for other in others.values():  # what no default row says
        cells = other.cells | cells
    inherited = {name: parent[name] for name in _SHARED if parent is not None and parent[name]}
    cells = inherited | cells
    images = _images(cells) or _images(inherited)
    attributes = dict(_pairs(cells.get("additional_attributes", "")))
    named = options or [(name, attributes[name]) for name in ("color", "size") if name in attributes]
    product: Product = {
        "product_id": row["sku"],
        "parent": parent["sku"] if parent is not None else row["sku"],
        "sku": row["sku"],
        "title": with_options(cells.get("name", ""), [value for _, value in options]) if cells.get("name") else "",
        "description": cells.get("description") or cells.get("short_description"),
        "image": images,
        "brand": attributes.get("manufacturer") or attributes.get("brand") or cells.get("manufacturer"),
        "category": cells.get("categories"),
        "tags": cells.get("meta_keywords"),
        "price": cells.get("special_price") or cells.get("price"),
        "url": cells.get("url_key"),
        **options_of(named),
    }
    if not options:
        product["option"] = ""
    if len(views) > 1:
        for view in views:
            for column, name in _TRANSLATED.items():
                product[f"{column}_{view}"] = others[view][name] if view in others else None
    return product


def _images(cells: dict[str, str]) -> list[str]:
    """Paths begin with a slash, and start at pub/media/catalog/product all the same."""
    listed = [cells.get("base_image", ""), *separate(cells.get("additional_images", ""))]
    found = [image if image.startswith("//") else image.lstrip("/") for image in listed if image != _NO_IMAGE]
    return list(dict.fromkeys(image for image in found if image))


def _listed(cell: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(SKU, options) of each variant of "sku=A-S,size=S|sku=A-M,size=M"."""
    for variant in cell.split("|"):
        (name, sku), *options = [*_pairs(variant), ("", "")]
        if name == "sku":
            yield sku, [option for option in options if option[0]]


def _pairs(cell: str) -> Iterator[tuple[str, str]]:
    """(name, value) of "color=Red,size=M", in which a pair with a comma is in quotation marks."""
    for pair in next(csv.reader([cell.replace("\n", " ")], skipinitialspace=True), []):
        name, equals, value = pair.partition("=")
        if equals:
            yield name.strip(), value.strip()


MAGENTO = Layout(
    name="magento",
    description="Magento's product export of version 2 (CSV)",
    known_by=(
        frozenset({"sku", "product_type", "attribute_set_code"}),
        frozenset({"sku", "store_view_code", "name"}),
        frozenset({"sku", "name", "base_image", "product_type"}),
    ),
    reads=frozenset((
        "sku", "store_view_code", "product_type", "additional_attributes", "configurable_variations",
        "manufacturer", "meta_keywords", "special_price", "price", *_SHARED,
    )),
    translate=_translate,
    more=_more,
    images=("pub/media/catalog/product", "media/catalog/product", "catalog/product", "media/import", "product"),
)  # fmt: skip
