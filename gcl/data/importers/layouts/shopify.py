"""Shopify's product export (CSV): rows of one handle are a product, its variants, and its further images.

The first row has what the product's variants share; a row with an option, SKU or price is a variant; a row with an
image alone adds it to the product. In rows after the first the handle may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from gcl.data.importers.layouts.layout import Export, Layout, Product, Row, options_of, with_options

_OPTIONS = ("Option1", "Option2", "Option3")
_VARIANT = ("Option1 Value", "Variant SKU", "Variant Price")
_NO_OPTION = "Default Title"


def _translate(export: Export) -> Iterator[tuple[Product, Row]]:
    seen: set[str] = set()
    renamed = 0
    for handle, rows in groupby(_filled(export), key=lambda item: item[0]):
        product = [row for _, row in rows]
        if not any(row["Title"] for row in product):
            for row in product:
                export.refuse(
                    row, handle, "no title", "none of the rows of this handle has one; they follow each other"
                )
            continue
        for translated, row in _variants(handle, product):
            identifier = str(translated["product_id"])
            if identifier in seen:
                renamed += 1
                identifier = translated["product_id"] = "/".join([handle, *_values(row)])
            if identifier in seen:
                export.refuse(row, identifier, "repeated variant", "its handle and options are those of an earlier row")
                continue
            seen.add(identifier)
            yield translated, row
    if renamed:
        export.notes.append(f"{renamed:,} variants have the SKU of an earlier one; they are called handle/options")


def _filled(export: Export) -> Iterator[tuple[str, Row]]:
    """(handle, row), the handle filled down."""
    handle = ""
    for row in export.rows():
        handle = row["Handle"] or handle
        if handle:
            yield handle, row
        else:
            export.refuse(row, row["Variant SKU"], "no handle", "and no row above it has one")


def _variants(handle: str, rows: list[Row]) -> Iterator[tuple[Product, Row]]:
    first = next(row for row in rows if row["Title"])
    variants = [row for row in rows if row.first(*_VARIANT)] or [first]
    placed = sorted((row for row in rows if row["Image Src"]), key=_position)
    gallery = list(dict.fromkeys(row["Image Src"] for row in placed))
    of_variants = {row["Variant Image"] for row in variants}
    names = [first[f"{option} Name"] for option in _OPTIONS]
    for row in variants:
        values, own = _values(row), row["Variant Image"]
        images = [own, *(image for image in gallery if image not in of_variants)] if own else gallery
        sku = row["Variant SKU"].lstrip("'")  # which keeps a spreadsheet from making a number of it
        several = len(variants) > 1 and values
        yield (
            {
                "product_id": sku or "/".join([handle, *(values if several else [])]),
                "parent": handle,
                "sku": sku,
                "title": with_options(first["Title"], values),
                "description": first["Body (HTML)"],
                "image": images,
                "brand": first["Vendor"],
                "category": first.first("Product Category", "Type"),
                "tags": first["Tags"],
                "price": row["Variant Price"],
                "url": f"/products/{handle}",
                **options_of(zip(names, (row[f"{option} Value"] for option in _OPTIONS), strict=True))
                | ({} if values else {"option": ""}),
            },
            row,
        )


def _values(row: Row) -> list[str]:
    return [row[f"{option} Value"] for option in _OPTIONS if row[f"{option} Value"] not in ("", _NO_OPTION)]


def _position(row: Row) -> float:
    digits = row["Image Position"]
    return int(digits) if digits.isdecimal() else float("inf")


SHOPIFY = Layout(
    name="shopify",
    description="Shopify's product export (CSV)",
    known_by=(
        frozenset({"Handle", "Title", "Body (HTML)"}),
        frozenset({"Handle", "Variant SKU"}),
        frozenset({"Handle", "Title", "Image Src"}),
    ),
    reads=frozenset((
        "Handle", "Title", "Body (HTML)", "Vendor", "Product Category", "Type", "Tags", "Variant SKU",
        "Variant Price", "Image Src", "Image Position", "Variant Image",
        *(f"{option} Name" for option in _OPTIONS), *(f"{option} Value" for option in _OPTIONS),
    )),
    translate=_translate,
    aliases={  # the names of the template that Shopify offers today
        "URL handle": "Handle",
        "Description": "Body (HTML)",
        "SKU": "Variant SKU",
        "Price": "Variant Price",
        "Product category": "Product Category",
        "Product image URL": "Image Src",
        "Image position": "Image Position",
        "Variant image URL": "Variant Image",
        **{f"{option} {word}": f"{option} {word.title()}" for option in _OPTIONS for word in ("name", "value")},
    },
)  # fmt: skip
