"""WooCommerce's product export (CSV): a row for each product and each variation, which names its parent.

A variation has what it lacks from its parent, which it names by SKU or as "id:" with the ID. A variable product is
not a document itself if the export holds its variations.
"""

from __future__ import annotations

from collections.abc import Iterator

from gcl.data.importers.layouts.layout import Export, Layout, Product, Row, options_of, separate, with_options

_NUMBERS = range(1, 11)  # of attributes


def _translate(export: Export) -> Iterator[tuple[Product, Row]]:
    parents: dict[str, Row] = {}
    with_variations: set[tuple] = set()
    for row in export.rows():
        if "variable" in row["Type"]:
            parents |= dict.fromkeys(_names(row), row)
    for row in export.rows():
        if "variation" in row["Type"] and (parent := parents.get(row["Parent"])):
            with_variations.add((parent.file, parent.number))
    for row in export.rows():
        identifier = row.first("ID", "SKU")
        if not identifier:
            export.refuse(row, "", "neither ID nor SKU", row["Name"])
        elif "variation" in row["Type"] and row["Parent"] not in parents:
            export.refuse(row, identifier, "unknown parent", f"no variable product is called {row['Parent']!r}")
        elif (row.file, row.number) not in with_variations:
            parent = parents[row["Parent"]] if "variation" in row["Type"] else None
            product = _product(identifier, row, parent)
            if product["title"]:
                yield product, row
            else:
                export.refuse(row, identifier, "no name", "neither the row nor its parent has one")


def _names(row: Row) -> list[str]:
    return [name for name in (row["SKU"], row["ID"] and f"id:{row['ID']}") if name]


def _product(identifier: str, row: Row, parent: Row | None) -> Product:
    def inherited(*names: str) -> str:
        return row.first(*names) or (parent.first(*names) if parent else "")

    options = [(inherited(f"Attribute {n} name"), row[f"Attribute {n} value(s)"]) for n in _NUMBERS] if parent else []
    name = inherited("Name")
    return {
        "product_id": identifier,
        "parent": (parent or row).first("ID", "SKU"),
        "sku": row["SKU"],
        "title": with_options(name, [value for _, value in options if value]) if name else "",
        "description": inherited("Description", "Short description").replace("\\n", "\n"),
        "image": separate(inherited("Images")),
        "brand": inherited("Brands"),
        "category": inherited("Categories"),
        "tags": inherited("Tags"),
        "price": row.first("Sale price", "Regular price"),
        "url": inherited("External URL"),
        **options_of(options),
    }


_GERMAN = {
    "Typ": "Type", "Artikelnummer": "SKU", "Kurzbeschreibung": "Short description", "Beschreibung": "Description",
    "Angebotspreis": "Sale price", "Regulärer Preis": "Regular price", "Kategorien": "Categories",
    "Schlagwörter": "Tags", "Bilder": "Images", "Übergeordnetes Produkt": "Parent", "Übergeordnet": "Parent",
    "Externe URL": "External URL", "Marken": "Brands",
    **{f"Attribut {n} Name": f"Attribute {n} name" for n in _NUMBERS},
    **{f"Attribut {n} Wert(e)": f"Attribute {n} value(s)" for n in _NUMBERS},
    **{f"Attribute {n} Name": f"Attribute {n} name" for n in _NUMBERS},
    **{f"Attribute {n} Wert(e)": f"Attribute {n} value(s)" for n in _NUMBERS},
}  # fmt: skip

WOOCOMMERCE = Layout(
    name="woocommerce",
    description="WooCommerce's product export (CSV)",
    known_by=(frozenset({"Type", "SKU", "Name", "Images"}), frozenset({"ID", "Type", "Name", "Parent"})),
    reads=frozenset((
        "ID", "Type", "SKU", "Name", "Description", "Short description", "Sale price", "Regular price",
        "Categories", "Tags", "Images", "Parent", "External URL", "Brands",
        *(f"Attribute {n} name" for n in _NUMBERS), *(f"Attribute {n} value(s)" for n in _NUMBERS),
    )),
    translate=_translate,
    aliases=_GERMAN,
    images=("wp-content/uploads", "uploads"),
)  # fmt: skip
