"""`gcl prepare` and `gcl embed` on Ray with 2 workers against plain Ray maps: over a function that reads, checks,
shrinks and packs photos, and over the one that embeds and writes a block.

Ray has begun, and its workers have loaded what they need, before anything is timed. Three rounds, taking turns.

    python tests/bench/engines.py                  # 800 photos of 1,000 pixels, and a small model trained for 4 steps
    python tests/bench/engines.py --run outputs/…  # embeds with that run
"""

from __future__ import annotations

import argparse
import csv
import io
import pickle
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path

import ray
from data_pictures import photo

from gcl.cli import main
from gcl.commands.embed import _block, _planned
from gcl.config.compose import Overrides
from gcl.data.catalog import Catalog, Store
from gcl.data.images import check_image
from gcl.data.prepare.mixed import open_catalog
from gcl.data.prepare.prepare import Pieces, prepare
from gcl.distributed.engines import engine_of
from gcl.exports.vectors.blocks import taken
from gcl.exports.vectors.write import VectorOptions
from gcl.run.folder import config_of
from gcl.schema import Field, Modality

GOAL, PIECES, WORKERS, ROUNDS = 1.10, 16, 2, 3


def plain(function, pieces) -> float:
    """Seconds of Ray alone."""
    begun = time.perf_counter()
    task = ray.remote(lambda piece: function(piece))
    ray.get([task.remote(piece) for piece in pieces])
    return time.perf_counter() - begun


def photos(folder: Path, count: int) -> Catalog:
    data = [photo(1000 + 8 * number) for number in range(8)]
    for name, rows in (
        ("products", [{"product_id": n, "photo": f"{n}.jpg", "title": f"thing {n}"} for n in range(count)]),
        ("pairs", [{"query": f"thing {n}", "product_id": n, "score": 1} for n in range(count)]),
    ):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    for n in range(count):
        (folder / f"{n}.jpg").write_bytes(data[n % 8] + str(n).encode())  # so that no two are equal
    return Catalog(
        name="photos", root=str(folder), products="products.csv", pairs="pairs.csv", score="score",
        query={"query": Field(Modality.text)}, store=Store(image_side=256, workers=1),
        document={"photo": Field(Modality.image), "title": Field(Modality.text)},
    )  # fmt: skip


def shrink(folder: Path, out: Path, numbers: range) -> None:
    """What one would write for Ray alone: photos read, checked, shrunk and packed."""
    with tarfile.open(out / f"{numbers.start}.tar", "w") as shard:
        for number in numbers:
            data = check_image((folder / f"{number}.jpg").read_bytes(), max_pixels=100_000_000, side=256)
            about = tarfile.TarInfo(f"{number}.jpg")
            about.size = len(data)
            shard.addfile(about, io.BytesIO(data))


def preparing(folder: Path, count: int) -> float:
    catalog, on, times = photos(folder, count), engine_of("ray", ("ray",), WORKERS), {"Ray alone": 0.0, "gcl": 0.0}
    chunks = [range(start, min(start + count // PIECES, count)) for start in range(0, count, count // PIECES)]
    for turn in range(ROUNDS + 1):  # the first one warms up
        out = folder / f"turn {turn}"
        out.mkdir()
        alone = plain(partial(shrink, folder, out), chunks)
        begun = time.perf_counter()
        prepare(catalog, out, progress=False, pieces=Pieces(on, PIECES), report=lambda _: None)
        took = time.perf_counter() - begun
        if turn:
            times = {"Ray alone": times["Ray alone"] + alone, "gcl": times["gcl"] + took}
    return told(f"prepare, {count:,} photos in {PIECES} pieces", times)


def embedding(folder: Path, run: str | None) -> float:
    if run is None:
        run = str(folder / "run")
        main(["train", "data=demo", "model=tiny", "trainer=cpu", "train.max_steps=4", f"run_dir={run}",
              f"cache_dir={folder}"])  # fmt: skip
    config = config_of(Overrides([f"run={run}", f"out={folder / 'vectors'}"]))
    prepared, on = open_catalog(config.data, config.cache_dir), engine_of("ray", ("ray",), WORKERS)
    given, wanted = pickle.dumps((config, prepared.documents)), VectorOptions(rows=256)
    times = {"Ray alone": 0.0, "gcl": 0.0}
    for turn in range(ROUNDS + 1):
        plan = _planned(given, folder / f"alone {turn}", wanted, "")
        alone = plain(partial(_block, given, plan.work), plan.blocks)
        begun, out = time.perf_counter(), folder / f"vectors {turn}"
        with taken(out):
            plan = _planned(given, out, wanted, "")
            plan.finish(on.map(partial(_block, given, plan.work), plan.blocks))
        took = time.perf_counter() - begun
        if turn:
            times = {"Ray alone": times["Ray alone"] + alone, "gcl": times["gcl"] + took}
    return told(f"embed, {plan.documents:,} products in {len(plan.blocks)} blocks", times)


def told(what: str, times: dict[str, float]) -> float:
    ratio = times["gcl"] / times["Ray alone"]
    print(f"  {what}: {', '.join(f'{name} {took:.1f} s' for name, took in times.items())}: {ratio:.3f}x (goal {GOAL})")
    return ratio


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run")
    parser.add_argument("--photos", type=int, default=800)
    asked = parser.parse_args()
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ratios = []
    with tempfile.TemporaryDirectory() as place:
        for measure in (lambda: preparing(Path(place), asked.photos), lambda: embedding(Path(place), asked.run)):
            ratios.append(measure())
    raise SystemExit(max(ratios) > GOAL)
