"""What columns are called that hold an id, a title, an image, a search …, in the languages that shops write.

The first names of a role are the surest. A name is compared in lower case, with what is no letter or digit as "_".
"""

from __future__ import annotations

import re

from gcl.data.importers.layouts.layout import COLOR

_PREFIX = re.compile(r"(product|produkt|prod|article|artikel|item|variant|main|web|shop|catalog)_+")
NAMES: dict[str, tuple[str, ...]] = {
    "id": (
        "product_id", "productid", "document_id", "doc_id", "docid", "item_id", "article_id", "artikel_id",
        "produkt_id", "uniq_id", "unique_id", "id",
        "sku", "artikelnummer", "artikelnr", "artikel_nr", "article_number", "product_number",
        "product_code", "code", "asin", "uid", "pid", "entity_id", "item_number", "nummer", "nr", "number", "ref",
        "reference", "référence", "referencia", "codigo", "código", "key", "handle", "slug", "ean", "gtin", "upc",
        "mpn", "barcode", "isbn", "product", "document", "item",
    ),
    "parent": (
        "parent", "parent_id", "parent_sku", "parent_asin", "item_group_id", "group_id", "parent_product_id",
        "master_id", "master_sku", "model_id", "style_id", "configurable_sku", "elternartikel", "vaterartikel",
        "hauptartikel", "variantengruppe",
        "mainnumber", "main_number", "main_sku", "base_sku", "product_code", "group", "model", "style", "family",
    ),
    "title": (
        "title", "name", "titel", "bezeichnung", "artikelbezeichnung", "artikelname", "produktname", "product_name",
        "display_name", "nom", "nombre", "titre", "titolo", "titulo", "título", "nome", "naam", "headline", "label",
        "caption", "short_name", "product",
    ),
    "description": (
        "description", "beschreibung", "body_html", "body", "long_description", "description_long", "langtext",
        "artikelbeschreibung", "langbeschreibung", "short_description", "kurzbeschreibung", "kurztext", "details",
        "desc", "text", "descripcion", "descripción", "descrizione", "omschrijving", "summary", "content", "features",
        "bullet_point", "bullet_points",
    ),
    "image": (
        "image", "image_url", "image_link", "image_path", "img", "img_url", "image_file", "picture", "picture_url",
        "photo", "photo_url", "bild", "bild_url", "bildurl", "bilder", "images", "image_urls", "pictures", "photos",
        "foto", "imagen", "immagine", "afbeelding", "imageurl", "thumbnail", "media", "pic", "file", "filename",
        "path", "url", "jpg", "bilddatei",
    ),
    "brand": ("brand", "vendor", "manufacturer", "marke", "hersteller", "marque", "marca", "merk", "maker"),
    "category": (
        "category", "kategorie", "categories", "kategorien", "type", "class", "product_type", "categorie", "catégorie",
        "categoria", "warengruppe", "department", "category1", "taxonomy",
    ),
    "color": COLOR,
    "price": ("price", "preis", "prix", "precio", "prezzo", "prijs", "vk", "sale_price", "regular_price", "msrp"),
    "language": ("language", "lang", "locale", "sprache", "langue", "idioma", "lingua"),
    "query": (
        "query", "search_query", "search_term", "searchterm", "search_terms", "query_text", "search_text",
        "suchbegriff", "suchanfrage", "suchwort", "suche", "search", "requete", "requête", "consulta", "busqueda",
        "zoekterm", "keyword", "keywords", "term", "phrase", "q",
    ),
    "query_id": (
        "query_id", "queryid", "qid", "q_id", "search_id", "topic_id", "topic", "suchanfrage_id", "anfrage_id",
        "query_number",
    ),
    "score": (
        "score", "relevance", "relevance_score", "grade", "esci_label", "label", "judgment", "judgement", "rating",
        "relevanz", "bewertung", "note", "gain", "weight", "rel", "relevancy", "value", "points", "punkte", "clicks",
        "purchases", "orders", "pertinence",
    ),
    "position": ("position", "rank", "place", "pos", "platz", "rang", "slot"),
    "clicks": ("clicks", "click", "clicked", "klicks", "is_clicked"),
    "impressions": ("impressions", "views", "shown", "impressionen", "displays"),
    "purchases": ("purchases", "orders", "bought", "sales", "käufe", "bestellungen", "conversions"),
}  # fmt: skip


def plain(name: str) -> str:
    """
    >>> plain("Product Title"), plain("imageURL"), plain("Bild-URL 1")
    ('product_title', 'image_url', 'bild_url_1')
    """
    split = re.sub(r"(?<=[a-zäöü0-9])(?=[A-ZÄÖÜ])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", split.lower()).strip("_")


def fit(name: str, role: str) -> float:
    """How well a column's name says a role, from 0 to 1.

    >>> fit("product_id", "id") > fit("sku", "id") > fit("ean", "id") > fit("colour", "id")
    True
    """
    names, given = NAMES[role], plain(name)
    for candidate, whole in ((given, 1.0), (_PREFIX.sub("", given, count=1), 0.95), (given.rstrip("0123456789_"), 0.9)):
        if candidate in names:
            return whole - 0.5 * names.index(candidate) / len(names)
    parts = given.split("_")
    if role == "id":  # what a name ends with counts: product_category is not one
        return 0.4 if parts[-1] in ("id", *names[:20]) else 0.0
    inside = [number for number, known in enumerate(names) if len(known) > 3 and known in parts]
    return 0.4 - 0.2 * inside[0] / len(names) if inside else 0.0
