"""Magento's product export of version 1 (CSV), told in the columns of version 2, which magento.py translates.

A product's first row has its SKU. The rows below without one add an image, a category or a variant, or hold the texts
of the store view that `_store` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gcl.data.importers.layouts.layout import Export, Layout, Product, Row
from gcl.data.importers.layouts.magento import MAGENTO

_SAME = ("name", "description", "short_description", "manufacturer", "price", "special_price", "url_key")
_OPTIONS = ("color", "size")


def _version_2(export: Export) -> Export:
    def rows() -> Iterator[Row]:
        for group in _products(export):
            yield from _told(group)

    return replace(export, rows=rows)


def _products(export: Export) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in export.rows():
        if row["sku"] and group:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _told(group: list[Row]) -> Iterator[Row]:
    first = group[0]
    variants: dict[str, list[str]] = {}
    for row in group:
        if sku := row["_super_products_sku"]:
            name, value = row["_super_attribute_code"], row["_super_attribute_option"]
            variants.setdefault(sku, []).extend([f'"{name}={value}"'] if name else [])
    cells = {name: first[name] for name in _SAME} | {
        "base_image": first["image"],
        "additional_images": ",".join(image for row in group if (image := row["_media_image"])),
        "categories": next((row["_category"] for row in group if row["_category"]), ""),
        "meta_keywords": first["meta_keyword"],
        "additional_attributes": ",".join(f'"{name}={first[name]}"' for name in _OPTIONS if first[name]),
        "configurable_variations": "|".join(",".join([f"sku={sku}", *said]) for sku, said in variants.items()),
    }
    views = {row["_store"]: {name: row[name] for name in _SAME if row[name]} for row in group if row["_store"]}
    cells |= views.pop("default", {})
    for view, told in {"": cells, **views}.items():
        named = told | {"sku": first["sku"], "store_view_code": view}
        yield Row({name: cell for name, cell in named.items() if cell}, first.file, first.number)


def _translate(export: Export) -> Iterator[tuple[Product, Row]]:
    return MAGENTO.translate(_version_2(export))


def _more(export: Export) -> Sequence[str]:
    return MAGENTO.more(_version_2(export))


MAGENTO1 = Layout(
    name="magento1",
    description="Magento's product export of version 1 (CSV)",
    known_by=(frozenset({"sku", "_type", "_attribute_set"}), frozenset({"sku", "_store", "_product_websites"})),
    reads=frozenset((
        "sku", "_store", "_category", "image", "_media_image", "meta_keyword", "_super_products_sku",
        "_super_attribute_code", "_super_attribute_option", *_SAME, *_OPTIONS,
    )),
    translate=_translate,
    more=_more,
    images=MAGENTO.images,
)  # fmt: skip
