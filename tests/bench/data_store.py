"""`prepare` with store.image_side=512 against its floor: the same photos decoded, resized and encoded, nothing else.

Both on two threads, interleaved, by the wall. Beside decoding and encoding, `prepare` reads the tables and files,
hashes, writes shards, index, pairs and tasks, syncs all of it to the disk and reads it again for its checksums.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from gcl.data.catalog import Catalog, Split, Store
from gcl.data.prepare.prepare import prepare
from gcl.schema import Field, Modality

GOAL, SIDE = 0.8, 512


def write(folder: Path, count: int, side: int) -> None:
    rng = np.random.default_rng(0)
    products, pairs = [["product_id", "image"]], [["query", "product_id"]]
    for number in range(count):
        small = Image.fromarray(rng.integers(40, 216, (side // 12, side // 12, 3), dtype=np.uint8))
        small.resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        products.append([str(number), f"{number}.jpg"])
        pairs.append([f"query {number % 20}", str(number)])
    for name, rows in (("products", products), ("pairs", pairs)):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as target:
            csv.writer(target).writerows(rows)


def decoded_and_encoded(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        scale = SIDE / min(image.size)
        small = image.resize(tuple(round(n * scale) for n in image.size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    target = io.BytesIO()
    small.save(target, "JPEG", quality=92)
    return target.tell()


def run(count: int = 200, side: int = 1200, rounds: int = 3) -> bool:
    best = {"floor": float("inf"), "prepare": float("inf")}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, count, side)
        files = [(folder / f"{number}.jpg").read_bytes() for number in range(count)]
        given = Catalog(name="photos", root=place, products="products.csv", pairs="pairs.csv", query={"query": Field()},
                        document={"image": Field(Modality.image)}, split=Split(1.0, 1.0, 0.0),
                        store=Store(image_side=SIDE, workers=2))  # fmt: skip
        for number in range(rounds):
            begun = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                assert sum(pool.map(decoded_and_encoded, files)) > 0
            best["floor"] = min(best["floor"], time.perf_counter() - begun)
            begun = time.perf_counter()
            prepare(given, folder / f"out{number}", progress=False, report=lambda line: None)
            best["prepare"] = min(best["prepare"], time.perf_counter() - begun)
    ratio = best["floor"] / best["prepare"]
    for name, seconds in best.items():
        print(f"  {name:<8} {count / seconds:6.1f} photos of {side} px a second")
    print(f"  prepare runs at {ratio:.2f}x of the floor; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return ratio >= GOAL
