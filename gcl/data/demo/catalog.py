"""The demo catalog: tables and pictures of a made-up shop, drawn by this package, the same for the same seed.

It is written as anybody's catalog would be: products.csv, pairs.csv and a folder of images. Of a made-up shop all is
known: judgments.csv lists every product that is relevant to a search.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from gcl.data.demo.picture import draw_picture
from gcl.data.demo.products import Product, Row, draw_product, write_row
from gcl.data.demo.queries import draw_judgments, draw_queries
from gcl.files.atomic import replacing
from gcl.files.progress import counted

QUALITY = 88


def draw_catalog(
    folder: str | Path, *, products: int = 1600, queries: int = 480, seed: int = 0, side: int = 224,
    sample: bool = False,
) -> Path:  # fmt: skip
    """Draws the catalog into `folder` and returns it. products.csv is written last: where it is, everything is.

    products, queries: how many (a small catalog answers fewer distinct queries); side: pixels of the square pictures;
    sample: one row of each table, which shows their columns.
    Raises ValueError for a size that cannot be drawn.
    """
    if sample:
        products, queries, side = 1, 1, 32
    if products < 1 or queries < 1:
        raise ValueError(f"products={products}, queries={queries}: a catalog needs at least one of each.")
    if not 32 <= side <= 320:
        raise ValueError(f"side={side}: pictures are drawn with sides of 32 to 320 pixels.")
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    drawn = [draw_product(number, seed=seed) for number in range(products)]
    rows = [write_row(product, seed=seed) for product in drawn]
    for product, row in counted(
        zip(drawn, rows, strict=True), "Drawing a made-up shop", total=products, unit="product"
    ):
        if row.image:
            _write_image(folder / row.image, product, seed=seed, side=side)
    searches = draw_queries(drawn, queries, seed=seed)
    for name, judged in zip(("pairs", "judgments"), draw_judgments(searches, drawn, seed=seed), strict=True):
        lines = ((query.text, product.product_id, score) for query, product, score in judged)
        _write_table(folder / f"{name}.csv", ("query", "product_id", "score"), lines)
    _write_table(folder / "products.csv", tuple(field.name for field in fields(Row)), map(astuple, rows))
    return folder


def _write_image(path: Path, product: Product, *, seed: int, side: int) -> None:
    image, _ = draw_picture(product, seed=seed, side=side)
    image.save(path, "JPEG", quality=QUALITY)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
