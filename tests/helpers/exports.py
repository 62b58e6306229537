"""Exports of shop systems, small and as their documentation lays them out: a hoodie in two variants, a lamp, a mug.

Each function writes one below `folder`, with image files where the system names files, and returns its path.
"""

import csv
from pathlib import Path
from xml.sax.saxutils import escape

from helpers.small_catalog import drawn

KINDS = ("chair", "table", "shelf", "scarf", "kettle", "tent", "rug", "bowl", "clock", "vase", "stool", "plate")
COLORS = ("red", "green", "yellow", "white")
MORE = [(f"{color} {kind}", number) for number, (kind, color) in enumerate((k, c) for k in KINDS for c in COLORS)]
"""(title, number) of products that make a sample large enough to train on."""


def images(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(drawn(seed))


def write(path: Path, columns: list[str], rows: list[dict], *, encoding: str = "utf-8", delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as target:
        writer = csv.DictWriter(target, columns, delimiter=delimiter, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


SHOPIFY = """Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,
Option1 Linked To,Option2 Name,Option2 Value,Option2 Linked To,Option3 Name,Option3 Value,Option3 Linked To,
Variant SKU,Variant Grams,Variant Inventory Tracker,Variant Inventory Policy,Variant Fulfillment Service,
Variant Price,Variant Compare At Price,Variant Requires Shipping,Variant Taxable,Variant Barcode,Image Src,
Image Position,Image Alt Text,Gift Card,SEO Title,SEO Description,Variant Image,Variant Weight Unit,
Variant Tax Code,Cost per item,Status""".replace("\n", "").split(",")


def shopify(folder: Path) -> Path:
    names = ["hoodie-black.jpg", "hoodie-blue.jpg", "hoodie-back.jpg", "lamp.jpg", "mug.jpg"]
    more = [f"more-{number}.jpg" for _, number in MORE]
    images(folder, [*names, *more])
    rows = [
        {"Handle": "hoodie", "Title": "Chaz Hoodie", "Body (HTML)": "<p>Warm &amp; soft</p>", "Vendor": "Acme",
         "Product Category": "Apparel > Hoodies", "Type": "Hoodie", "Tags": "warm, cotton", "Published": "true",
         "Option1 Name": "Color", "Option1 Value": "Black", "Option2 Name": "Size", "Option2 Value": "M",
         "Variant SKU": "'00017", "Variant Price": "49.90", "Image Src": names[0], "Image Position": "1",
         "Variant Image": names[0], "Status": "active"},
        {"Handle": "hoodie", "Option1 Value": "Blue", "Option2 Value": "M", "Variant SKU": "00018",
         "Variant Price": "49.90", "Image Src": names[1], "Image Position": "3", "Variant Image": names[1]},
        {"Handle": "hoodie", "Image Src": names[2], "Image Position": "2"},
        {"Handle": "lamp", "Title": "Desk Lamp", "Body (HTML)": "<ul><li>Bright</li></ul>", "Vendor": "Lux",
         "Option1 Name": "Title", "Option1 Value": "Default Title", "Variant Price": "20.00", "Image Src": names[3],
         "Image Position": "1"},
        {"Handle": "", "Image Src": names[4], "Image Position": "2"},
    ]  # fmt: skip
    rows += [
        {"Handle": f"more-{number}", "Title": title, "Body (HTML)": f"<p>A {title}.</p>", "Vendor": "Acme",
         "Option1 Name": "Title", "Option1 Value": "Default Title", "Variant SKU": f"M{number}",
         "Variant Price": "5.00", "Image Src": f"more-{number}.jpg", "Image Position": "1"}
        for title, number in MORE
    ]  # fmt: skip
    return write(folder / "products_export_1.csv", SHOPIFY, rows)


WOOCOMMERCE = [
    "ID", "Type", "SKU", "GTIN, UPC, EAN, or ISBN", "Name", "Published", "Is featured?", "Visibility in catalog",
    "Short description", "Description", "Tax status", "In stock?", "Stock", "Sale price", "Regular price", "Categories",
    "Tags", "Shipping class", "Images", "Parent", "Grouped products", "Upsells", "External URL", "Position", "Brands",
    "Attribute 1 name", "Attribute 1 value(s)", "Attribute 1 visible", "Attribute 1 global", "Attribute 2 name",
    "Attribute 2 value(s)", "Attribute 2 visible", "Attribute 2 global",
]  # fmt: skip


def woocommerce(folder: Path) -> Path:
    names = ["hoodie.jpg", "hoodie-back.jpg", "hoodie-blue.jpg", "lamp.jpg"]
    more = [f"more-{number}.jpg" for _, number in MORE]
    images(folder, [f"2024/01/{name}" for name in [*names, *more]])
    at = {name: f"2024/01/{name}" for name in [*names, *more]}
    rows = [
        {"ID": "10", "Type": "variable", "SKU": "hoodie", "Name": "Chaz Hoodie", "Published": "1",
         "Description": "<p>Warm</p>\\n<p>soft</p>", "Categories": "Clothing > Hoodies", "Brands": "Acme",
         "Images": f"{at['hoodie.jpg']}, {at['hoodie-back.jpg']}", "Attribute 1 name": "Color",
         "Attribute 1 value(s)": "Black, Blue", "Attribute 2 name": "Size", "Attribute 2 value(s)": "M, L"},
        {"ID": "11", "Type": "variation", "SKU": "hoodie-black", "Name": "Chaz Hoodie - Black", "Parent": "hoodie",
         "Regular price": "49.90", "Attribute 1 name": "Color", "Attribute 1 value(s)": "Black",
         "Attribute 2 name": "Size", "Attribute 2 value(s)": "M"},
        {"ID": "12", "Type": "variation", "SKU": "", "Name": "", "Parent": "id:10", "Sale price": "39.90",
         "Regular price": "49.90", "Images": at["hoodie-blue.jpg"], "Attribute 1 name": "Color",
         "Attribute 1 value(s)": "Blue"},
        {"ID": "13", "Type": "simple", "SKU": "lamp", "Name": "Desk Lamp", "Short description": "Bright",
         "Regular price": "20", "Images": at["lamp.jpg"]},
    ]  # fmt: skip
    rows += [
        {"ID": str(100 + number), "Type": "simple, virtual", "SKU": f"M{number}", "Name": title,
         "Description": f"<p>A {title}.</p>", "Images": f"2024/01/more-{number}.jpg"}
        for title, number in MORE
    ]  # fmt: skip
    return write(folder / "wc-product-export-1-1-2025-1735729200000.csv", WOOCOMMERCE, rows)


MAGENTO = """sku,store_view_code,attribute_set_code,product_type,categories,product_websites,name,description,
short_description,weight,product_online,tax_class_name,visibility,price,special_price,url_key,meta_title,meta_keywords,base_image,
base_image_label,small_image,thumbnail_image,created_at,additional_attributes,additional_images,configurable_variations,
configurable_variation_labels""".replace("\n", "").split(",")


def magento(folder: Path) -> Path:
    names = ["m/h/mh01-black.jpg", "m/h/mh01-back.jpg", "l/a/lamp.jpg"]
    more = [f"m/o/more-{number}.jpg" for _, number in MORE]
    images(folder / "media" / "catalog" / "product", [*names, *more])
    common = {"attribute_set_code": "Top", "product_type": "simple", "product_websites": "base"}
    rows = [
        common | {"sku": "MH01-XS-Black", "name": "Chaz Hoodie-XS-Black", "price": "52.00",
                  "visibility": "Not Visible Individually", "base_image": "/m/h/mh01-black.jpg",
                  "additional_images": "/m/h/mh01-black.jpg,/m/h/mh01-back.jpg",
                  "additional_attributes": 'color=Black,size=XS,"activity=Gym,Yoga"'},
        common | {"sku": "MH01-XS-Blue", "name": "Chaz Hoodie-XS-Blue", "base_image": "no_selection"},
        common | {"sku": "MH01", "product_type": "configurable", "name": "Chaz Hoodie", "description": "<p>Warm</p>",
                  "categories": "Default Category/Men/Hoodies", "base_image": "/m/h/mh01-back.jpg",
                  "configurable_variations": "sku=MH01-XS-Black,size=XS,color=Black|"
                  "sku=MH01-XS-Blue,size=XS,color=Blue",
                  "configurable_variation_labels": "size=Size,color=Color"},
        {"sku": "MH01-XS-Black", "store_view_code": "de", "name": "Kapuzenpullover Chaz-XS-Black"},
        common | {"sku": "LAMP", "name": "Desk Lamp", "base_image": "/l/a/lamp.jpg",
                  "additional_images": "no_selection",
                  "additional_attributes": "manufacturer=Lux"},
    ]  # fmt: skip
    rows += [
        common | {"sku": f"M{number}", "name": title, "description": f"<p>A {title}.</p>",
                  "base_image": f"/m/o/more-{number}.jpg"}
        for title, number in MORE
    ]  # fmt: skip
    return write(folder / "export_catalog_product.csv", MAGENTO, rows)


MAGENTO1 = """sku,_store,_attribute_set,_type,_category,_root_category,_product_websites,color,description,image,
manufacturer,media_gallery,meta_keyword,name,price,short_description,size,small_image,special_price,status,thumbnail,url_key,
visibility,qty,_super_products_sku,_super_attribute_code,_super_attribute_option,_media_attribute_id,_media_image,_media_lable,
_media_position,_media_is_disabled""".replace("\n", "").split(",")


def magento1(folder: Path) -> Path:
    more = [f"m/o/more-{number}.jpg" for _, number in MORE]
    images(folder / "media" / "catalog" / "product", ["h/o/front.jpg", "h/o/back.jpg", "l/a/lamp.jpg", *more])
    common = {"_attribute_set": "Default", "_type": "simple", "_product_websites": "base", "status": "1"}
    none = {"image": "no_selection", "small_image": "no_selection"}
    rows = [
        common | none | {"sku": "H-M-Red", "name": "Hoodie M", "color": "Red", "size": "M", "price": "52.00"},
        common | none | {"sku": "H-L-Red", "name": "Hoodie L", "color": "Red", "size": "L", "price": "52.00"},
        common | {"sku": "H", "_type": "configurable", "name": "Chaz Hoodie", "description": "<p>Warm</p>",
                  "_category": "Men/Hoodies", "image": "/h/o/front.jpg", "small_image": "/h/o/front.jpg",
                  "_super_products_sku": "H-M-Red", "_super_attribute_code": "size", "_super_attribute_option": "M",
                  "_media_image": "/h/o/front.jpg", "_media_position": "1"},
        {"_category": "Sale", "_super_products_sku": "H-M-Red", "_super_attribute_code": "color",
         "_super_attribute_option": "Red", "_media_image": "/h/o/back.jpg", "_media_position": "2"},
        {"_super_products_sku": "H-L-Red", "_super_attribute_code": "size", "_super_attribute_option": "L"},
        common | {"sku": "LAMP", "name": "Desk Lamp", "manufacturer": "Lux", "image": "/l/a/lamp.jpg"},
        {"_store": "german", "name": "Tischlampe"},
    ]  # fmt: skip
    rows += [
        common | {"sku": f"M{number}", "name": title, "description": f"<p>A {title}.</p>",
                  "image": f"/m/o/more-{number}.jpg", "_media_image": f"/m/o/more-{number}.jpg"}
        for title, number in MORE
    ]  # fmt: skip
    return write(folder / "export_all_products.csv", MAGENTO1, rows)


GOOGLE = ["id", "title", "description", "link", "image link", "additional image link", "availability", "price",
          "sale price", "brand", "gtin", "mpn", "google product category", "product type", "item group id", "color",
          "size", "condition"]  # fmt: skip


def _google_items(folder: Path) -> list[dict]:
    names = ["black.jpg", "blue.jpg", "back.jpg", "lamp.jpg", *(f"more-{number}.jpg" for _, number in MORE)]
    images(folder, names)
    items = [
        {"id": "G1", "title": "Chaz Hoodie - Black", "description": "Warm & soft", "link": "https://shop.example/g1",
         "image link": "black.jpg", "additional image link": "back.jpg", "price": "49.90 EUR", "brand": "Acme",
         "product type": "Apparel > Hoodies", "item group id": "hoodie", "color": "Black", "size": "M"},
        {"id": "G2", "title": "Chaz Hoodie - Blue", "description": "Warm & soft", "link": "https://shop.example/g2",
         "image link": "blue.jpg", "price": "49.90 EUR", "brand": "Acme", "item group id": "hoodie", "color": "Blue"},
        {"id": "0003", "title": "Desk Lamp", "description": "Bright", "link": "https://shop.example/3",
         "image link": "lamp.jpg", "price": "20.00 EUR", "brand": "Lux"},
    ]  # fmt: skip
    return items + [
        {"id": f"M{number}", "title": title, "description": f"A {title}.", "link": f"https://shop.example/m{number}",
         "image link": f"more-{number}.jpg", "price": "5.00 EUR"}
        for title, number in MORE
    ]  # fmt: skip


def google_tsv(folder: Path) -> Path:
    return write(folder / "feed.tsv", GOOGLE, _google_items(folder), delimiter="\t")


def google_txt(folder: Path) -> Path:
    return write(folder / "feed.txt", GOOGLE, _google_items(folder), delimiter="\t")


_G = 'xmlns:g="http://base.google.com/ns/1.0"'


def _elements(item: dict, *, atom: bool) -> str:
    lines = []
    for name, value in item.items():
        tag = name.replace(" ", "_")
        own = tag in ("title", "description", "link") and not atom
        if tag == "link" and atom:
            lines.append(f'<link href="{escape(value)}"/>')
        else:
            prefix = "" if own or (atom and tag == "title") else "g:"
            lines += [f"<{prefix}{tag}>{escape(part)}</{prefix}{tag}>" for part in value.split(",")]
    lines.append("<g:shipping><g:country>DE</g:country><g:price>4.95 EUR</g:price></g:shipping>")
    return "\n".join(lines)


def _google_xml(path: Path, start: str, end: str, item: str, *, atom: bool) -> Path:
    items = "".join(f"<{item}>{_elements(one, atom=atom)}</{item}>" for one in _google_items(path.parent))
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n{start}<title>A shop</title>{items}{end}')
    return path


def google_rss(folder: Path) -> Path:
    start = f'<rss {_G} version="2.0"><channel><link>https://shop.example</link>'
    return _google_xml(folder / "feed.xml", start, "</channel></rss>", "item", atom=False)


def google_atom(folder: Path) -> Path:
    start = f'<feed xmlns="http://www.w3.org/2005/Atom" {_G}>'
    return _google_xml(folder / "atom.xml", start, "</feed>", "entry", atom=True)


EXPORTS = {
    "shopify": shopify, "woocommerce": woocommerce, "magento": magento, "magento1": magento1, "google": google_tsv,
    "google-txt": google_txt, "google-rss": google_rss, "google-atom": google_atom,
}  # fmt: skip
