"""Synthetic data sets of the layout that Marqo published its e-commerce benchmark in, of any size.

The columns, several files, row groups of 100, repeated titles, a few pictures that cannot be read.

    python tests/bench/published.py FOLDER 200000            # both sets together, the hard size
    python evaluate.py evaluate=marqo_ecommerce evaluate.benchmark.root=FOLDER evaluate.benchmark.size=hard
    python tests/bench/published.py FOLDER 200000 --kills 5  # the proof

The proof: what one process gives, and what two ranks give that are killed so many times (kill -9 of everything, at
drawn moments, the last time when all is embedded and the search begins), are the same files, byte for byte.
"""

import argparse
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

SETS = {"google-shopping-general-eval": 0.25, "amazon-products-eval": 0.75}  # the share of all rows
FILES = ("metrics.json", "results.csv", "results.md", "queries.parquet", "published.md", "report.html")  # the same
CATEGORIES = 50
PER_FILE, PER_GROUP = 20_000, 100


def picture(rng, pixels):
    """PNG of one colour with noise: cheap to make and to read, and hardly two alike."""
    value = rng.integers(0, 256, 3) + rng.integers(-20, 20, (pixels, pixels, 3))
    target = io.BytesIO()
    Image.fromarray(np.clip(value, 0, 255).astype(np.uint8)).save(target, "PNG", compress_level=1)
    return target.getvalue()


def rows_of(first, count, pixels, rng):
    for n in range(first, first + count):
        broken = n % 5000 == 17
        yield {
            "image": {"bytes": b"no picture" if broken else picture(rng, pixels), "path": f"{n}.png"},
            "item_ID": f"item{n}",
            "query": f"category {n % CATEGORIES}",
            "title": f"product {n if n % 7 else n // 700}",
            "position": n % 100,
        }


def write_published(root, rows, *, size="", pixels=16, per_file=PER_FILE, per_group=PER_GROUP):
    """Both sets below `root`, `rows` in all. size: "" for the hard ones, "-100k" for the easy ones."""
    first = 0
    for name, share in SETS.items():
        count = round(rows * share)
        folder = Path(root) / f"{name}{size}" / "data"
        folder.mkdir(parents=True)
        files = -(-count // per_file)
        for number in range(files):
            part = min(per_file, count - number * per_file)
            rng = np.random.default_rng([first, number])
            table = pa.Table.from_pylist(list(rows_of(first + number * per_file, part, pixels, rng)))
            target = folder / f"test-{number:05d}-of-{files:05d}.parquet"
            parquet.write_table(table, target, row_group_size=per_group)
        first += count


def command(root, out, cache, *more):
    return [
        "evaluate", "evaluate=marqo_ecommerce", f"evaluate.benchmark.root={root}", "models=[tiny]",
        "evaluate.benchmark.size=hard", f"out={out}", f"cache_dir={cache}", "train.workers=0", *more,
    ]  # fmt: skip


def torchrun(ranks, words):
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "gcl", *words,
    ]  # fmt: skip


def environment(**more):
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more


def kept(cache):
    """Entries of embeddings and results that a killed job leaves to the next one."""
    return len(list((cache / "embeddings").glob("*.npy")))


def kill_after(words, cache, parts):
    """Begins on two ranks and kills everything, as a machine that is gone does, when so many parts more are kept."""
    from helpers.training_jobs import children_of

    job = subprocess.Popen(torchrun(2, words), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    enough = kept(cache) + parts
    while kept(cache) < enough:
        assert job.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    for process in [*children_of(job.pid), job.pid]:
        os.kill(process, signal.SIGKILL)
    job.wait()


def prove(root, kills):
    """Prints what was kept at each kill, and how long everything took."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    whole, killed, alone, cache = (root / name for name in ("whole", "killed", "alone", "cache"))
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "gcl", *command(root, whole, alone)], env=environment(), check=True, stdout=sys.stderr
    )
    entries = kept(alone)
    print(f"one process: {time.monotonic() - begun:.0f} s, {entries} parts and results", flush=True)
    draw = random.Random(0)
    at = [*sorted(draw.sample(range(2, entries - 4), kills - 1)), entries - 2]
    begun = time.monotonic()
    for number in at:
        kill_after(command(root, killed, cache), cache, max(1, number - kept(cache)))
        assert not (killed / "metrics.json").exists()
        print(f"killed with {kept(cache)} of {entries} kept after {time.monotonic() - begun:.0f} s", flush=True)
    subprocess.run(torchrun(2, command(root, killed, cache)), env=environment(), check=True, stdout=sys.stderr)
    print(f"two ranks, killed {kills} times: {time.monotonic() - begun:.0f} s", flush=True)
    for name in FILES:
        same = (killed / name).read_bytes() == (whole / name).read_bytes()
        print(f"{name}: {'the same bytes' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("rows", type=int)
    arguments.add_argument("--kills", type=int, default=0)
    given = arguments.parse_args()
    write_published(given.folder, given.rows)
    if given.kills:
        prove(given.folder.absolute(), given.kills)
