"""A small shop that models are trained on: products with pictures, and graded pairs. And a training that dies."""

import csv
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 200), "white": (240, 240, 240)}
THINGS = ("shirt", "mug", "lamp", "shoe")


def write_shop(folder: Path, products: int = 48) -> Path:
    """products.csv, pairs.csv and images/: coloured things, graded pairs; some fields missing."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows, pairs = [], []
    for number in range(products):
        colour = list(COLOURS)[number % 4]
        thing = THINGS[number // 4 % 4]
        pixels = np.full((40, 32, 3), COLOURS[colour]) + random.integers(-9, 10, (40, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(folder / "images" / f"{number}.jpg")
        title = "" if number % 11 == 10 else f"{colour} {thing} no {number}"
        image = "" if number % 13 == 12 else f"images/{number}.jpg"
        rows.append(
            {"product_id": f"p{number:03}", "title": title, "brand": ["Nord", "", "Sud"][number % 3], "image": image}
        )
        for query, score in ((f"{colour} {thing}", 100), (thing, 50), (f"{colour} things", 20 + number % 3)):
            pairs.append({"query": query, "product_id": f"p{number:03}", "score": score})
    for name, table in (("products", rows), ("pairs", pairs)):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    conf = folder / "conf" / "data"
    conf.mkdir(parents=True)
    (conf / "shop.yaml").write_text(
        f"name: shop\nroot: {folder}\nproducts: products.csv\npairs: pairs.csv\nscore: score\n"
        "query:\n  query: {modality: text}\n"
        "document:\n  image: {modality: image, weight: 0.6}\n  title: {modality: text, weight: 0.4}\n"
        "  brand: {modality: text, weight: 0.1}\n"
        "split: {queries: 0.6, documents: 0.6}\n"
    )
    return folder


def write_named_shop(folder: Path) -> Path:
    """A shop whose queries are the titles of products: images say nothing."""
    write_shop(folder, products=160)
    with open(folder / "products.csv", newline="", encoding="utf-8") as file:
        titled = [row for row in csv.DictReader(file) if row["title"]]
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["query", "product_id", "score"])
        table.writerows([f"the {row['title']}", row["product_id"], 100] for row in titled)
    return folder


class Stop(Exception):
    """The training process dies."""


@contextmanager
def dies_after(batch):
    """The training in this block ends with an exception right after the step of this batch, counted from 0."""
    from gcl.lit.module import GCLModule

    ends = GCLModule.on_train_batch_end

    def dies(self, outputs, data, batch_idx):
        ends(self, outputs, data, batch_idx)
        if batch_idx == batch:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(GCLModule, "on_train_batch_end", dies)
        yield


def weights_of(run, which="given"):
    """Words that set the document's weights: those that the run began with, or (`used`) chose at its end."""
    weights = json.loads(run.field_weights.read_text())[which]["document"]
    return [f"data.document.{name}.weight={weight}" for name, weight in weights.items()]
