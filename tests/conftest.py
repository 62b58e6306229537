"""What every test stands on: no hub, one thread, and (once a session) a small shop with a finished run on it."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")

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


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def train(shop, tmp_path_factory):
    """train(*words, run_dir=…): a training run on the shop in this process, on one CPU core; returns its folder."""
    from gcl.cli import main
    from gcl.runs import RunFolder

    cache = tmp_path_factory.mktemp("cache")

    def call(*words: str, run_dir: Path | None = None) -> RunFolder:
        run_dir = run_dir or tmp_path_factory.mktemp("runs") / "run"
        main(
            ["train", "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", "trainer=cpu",
             "optim.learning_rate=3e-4",
             f"run_dir={run_dir}", f"cache_dir={cache}", "train.batch_size=16", "train.max_steps=6", "train.workers=0",
             "trainer.log_every_n_steps=1", *words]
        )  # fmt: skip
        return RunFolder(run_dir)

    return call


@pytest.fixture(scope="session")
def finished(train):
    """The folder of a finished run of 6 steps."""
    return train("train.validate_every=3 steps")
