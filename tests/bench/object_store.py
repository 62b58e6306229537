"""Training data in an object store against the same data on the local disk, and against two streaming libraries.

    python tests/bench/object_store.py [--pictures 4000] [--rounds 3]

A server on the loopback speaks enough of S3 and answers after 20 ms, with 200 MB/s for all connections together. The
cache holds nine tenths of the shards. Samples a second are those of the whole epoch (images decoded to 224 pixels by
the same code, one worker process), starting with an empty cache; rounds are interleaved. Also: samples by second
of CPU (what counts on a busy machine), seconds to the first batch, most bytes on the disk, and the memory that is
not shared with files, at the beginning and at the end.

mosaicml-streaming and litdata are compared where they are installed, with the same records, bytes of a shard, batch and
cache. Goal: at least 0.95 of the local disk.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
LATENCY, BANDWIDTH = 0.020, 200e6  # seconds of an answer, bytes a second
BATCH, WORKERS, SHARD, FORK = 64, 1, 2 << 20, "fork"


class Throttled(BaseHTTPRequestHandler):
    """GET and HEAD of objects (/bucket/key) that are files of a folder."""

    protocol_version = "HTTP/1.1"
    folder = Path()
    lock, free_at = threading.Lock(), 0.0

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        time.sleep(LATENCY)
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        begin, end = 0, size - 1
        if asked := self.headers.get("Range"):
            low, _, high = asked.removeprefix("bytes=").partition("-")
            begin, end = int(low), min(int(high or end), end)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - begin + 1))
        self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
        self.send_header("ETag", f'"{size:x}"')
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(begin)
                left = end - begin + 1
                while left and (block := file.read(min(left, 1 << 18))):
                    self.take_turn(len(block))
                    self.wfile.write(block)
                    left -= len(block)

    @classmethod
    def take_turn(cls, size: int) -> None:
        with cls.lock:
            now = time.monotonic()
            cls.free_at = max(cls.free_at, now) + size / BANDWIDTH
            wait = cls.free_at - now
        if wait > 0.002:
            time.sleep(wait)


def serve(folder: str) -> None:
    Throttled.folder = Path(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Throttled)
    print(server.server_port, flush=True)
    server.serve_forever()


def photos(count: int) -> list[bytes]:
    """Equal in detail, different in bytes: a JPEG's comment is another one."""
    from inputs import photo

    image = photo(400)
    return [image[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + image[2:] for number in range(count)]


def preprocess() -> Callable:
    from data_loader import NoWords

    from gcl.model.preprocess import Preprocess

    return Preprocess((224, 224), (0.0,) * 3, (1.0,) * 3, tokens=NoWords())


def write_ours(folder: Path, images: list[bytes]) -> None:
    from gcl.data.store.shard_writer import ShardWriter
    from gcl.schema import Field, Modality

    for prefix, name, values in (
        ("documents", "image", images),
        ("queries", "query", [f"query {number}" for number in range(len(images))]),
    ):
        side = {name: Field(Modality.image if name == "image" else Modality.text)}
        with ShardWriter(folder, prefix, side=side, shard_bytes=SHARD) as writer:
            for number, value in enumerate(values):
                writer.write(str(number), {name: value})


def ours(folder: Path, most: int | None) -> Iterator[int]:
    """Batch sizes of an epoch; most: bytes of the cache next to the folder."""
    import numpy as np

    from gcl.data.batches.batch import PairDataset, SideReader
    from gcl.data.batches.loader import WatchedLoader
    from gcl.data.batches.plan import Plan
    from gcl.data.batches.read_ahead import read_ahead
    from gcl.data.store.prepared import Pairs
    from gcl.data.store.remote_shards import ShardCache
    from gcl.data.store.store import RecordStore
    from gcl.schema import Field, Modality

    cache = ShardCache(folder.parent / "shards", most)
    sides = {"query": {"query": Field()}, "document": {"image": Field(Modality.image)}}
    stores = {"query": RecordStore(folder, "queries", sides["query"], cache=cache),
              "document": RecordStore(folder, "documents", sides["document"], cache=cache)}  # fmt: skip
    rows = np.arange(len(stores["document"]))
    pairs = Pairs(rows, rows, np.ones(len(rows), np.float32))
    plan = Plan(pairs, batch_size=BATCH, seed=0, shard_of_document=stores["document"].shard)
    readers = {name: SideReader(store, sides[name], preprocess()) for name, store in stores.items()}
    dataset = PairDataset(pairs, plan, **readers)
    steps = range(plan.steps_per_epoch)
    loader = WatchedLoader(dataset, batch_size=None, sampler=steps, num_workers=WORKERS, multiprocessing_context=FORK)
    loader.ahead = read_ahead(dataset, 0)
    for batch in loader:
        yield len(batch.score)


def decoded(items: list, transform) -> object:
    import torch

    return torch.stack([transform.image(bytes(item["image"])) for item in items])


def mosaic(remote: str, local: Path, most: int) -> Iterator[int]:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    data = StreamingDataset(
        remote=remote, local=str(local), shuffle=True, batch_size=BATCH, cache_limit=most, predownload=8 * BATCH,
        shuffle_block_size=1 << 10, num_canonical_nodes=1,
    )  # fmt: skip
    collate = partial(decoded, transform=preprocess())
    options = {"num_workers": WORKERS, "collate_fn": collate, "multiprocessing_context": FORK}
    for batch in DataLoader(data, batch_size=BATCH, **options):
        yield len(batch)


def lit(remote: str, local: Path, most: int) -> Iterator[int]:
    import litdata

    endpoint = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    data = litdata.StreamingDataset(
        remote, cache_dir=str(local), shuffle=True, storage_options=endpoint, max_cache_size=f"{most // 1000}KB"
    )  # fmt: skip
    collate = partial(decoded, transform=preprocess())
    for batch in litdata.StreamingDataLoader(
        data, batch_size=BATCH, num_workers=WORKERS, collate_fn=collate, multiprocessing_context=FORK
    ):
        yield len(batch)


def one_image(number: int, images: list[bytes]) -> dict:
    return {"image": images[number]}


def write_peers(bucket: Path, images: list[bytes]) -> list[str]:
    """Names of those that are installed."""
    names = []
    try:
        from streaming import MDSWriter

        with MDSWriter(out=str(bucket / "mosaic"), columns={"image": "bytes"}, size_limit=SHARD) as writer:
            for image in images:
                writer.write({"image": image})
        names.append("mosaicml-streaming")
    except ImportError as error:
        print(f"mosaicml-streaming is not compared: {error}")
    try:
        import litdata

        litdata.optimize(
            partial(one_image, images=images), list(range(len(images))), str(bucket / "lit"), chunk_bytes=SHARD,
            num_workers=1,
        )  # fmt: skip
        names.append("litdata")
    except ImportError as error:
        print(f"litdata is not compared: {error}")
    return names


def anonymous() -> float:
    """MB of this process and its children that are not pages of files."""
    total = 0
    for pid in [os.getpid(), *children()]:
        try:
            text = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += int(text.partition("RssAnon:")[2].split()[0]) if "RssAnon:" in text else 0
    return total / 1024


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def measure(name: str, batches: Iterator[int], disk: Path | None) -> dict[str, float]:
    begun, spent, seen, memory, most, first = time.perf_counter(), cpu(), 0, [], 0, 0.0
    for number, size in enumerate(batches):
        first = first or time.perf_counter() - begun
        seen += size
        if number % 8 == 0:
            memory.append(anonymous())
            most = max(most, size_of(disk)) if disk else 0
    took, work = time.perf_counter() - begun, cpu() - spent
    quarter = max(1, len(memory) // 4)
    begin, end = (statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    print(f"  {name:<22} {seen / took:8.0f} samples/s  {seen / work:6.0f} per CPU s  first batch {first:6.2f} s  "
          f"disk {most / 1e6:6.1f} MB  memory {begin:5.0f} -> {end:5.0f} MB", flush=True)  # fmt: skip
    return {"rate": seen / took, "after": (seen - BATCH) / (took - first), "work": seen / work, "first": first}


def run(pictures: int, rounds: int) -> None:
    images = photos(pictures)
    with tempfile.TemporaryDirectory() as place:
        root, bucket = Path(place), Path(place) / "server" / "bucket"
        write_ours(bucket / "ours", images)
        peers = write_peers(bucket, images)
        total = size_of(bucket / "ours")
        most = int(0.9 * total)  # two windows for training, and more
        print(f"{pictures:,} photos of {len(images[0]) / 1e3:.0f} kB, {total / 1e6:.0f} MB in shards of "
              f"{SHARD / 1e6:.1f} MB; cache {most / 1e6:.0f} MB")  # fmt: skip
        server = subprocess.Popen([sys.executable, __file__, "--serve", str(bucket.parent)], stdout=-1, text=True)
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        os.environ.update(AWS_ENDPOINT_URL=endpoint, S3_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="x",
                          AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-east-1")  # fmt: skip
        shutil.copytree(bucket / "ours", root / "local")
        (root / "away").mkdir()
        for table in (bucket / "ours").glob("*.parquet"):
            shutil.copy(table, root / "away")
        (root / "away" / "shards_at").write_text("s3://bucket/ours\n")
        caches = {"ours, S3": root / "shards", "mosaicml-streaming": root / "mosaic", "litdata": root / "lit"}
        found: dict[str, list[dict[str, float]]] = {}
        try:
            for number in range(rounds + 1):
                print(f"round {number}" if number else "warming up")
                jobs: dict[str, Callable[[], Iterator[int]]] = {
                    "ours, local disk": lambda: ours(root / "local", None),
                    "ours, S3": lambda: ours(root / "away", most),
                }
                if "mosaicml-streaming" in peers:
                    jobs["mosaicml-streaming"] = lambda: mosaic("s3://bucket/mosaic", root / "mosaic", most)
                if "litdata" in peers:
                    jobs["litdata"] = lambda: lit("s3://bucket/lit", root / "lit", most)
                for name, job in jobs.items():
                    for cache in caches.values():
                        shutil.rmtree(cache, ignore_errors=True)
                    measured = measure(name, job(), caches.get(name))
                    if number:
                        found.setdefault(name, []).append(measured)
        finally:
            server.kill()
            server.wait()
    away = found.pop("ours, S3")
    print("ours on S3, medians over rounds:")
    for name, other in found.items():
        rate = statistics.median(one["rate"] / two["rate"] for one, two in zip(away, other, strict=True))
        first = statistics.median(one["first"] / two["first"] for one, two in zip(away, other, strict=True))
        after = statistics.median(one["after"] / two["after"] for one, two in zip(away, other, strict=True))
        work = statistics.median(one["work"] / two["work"] for one, two in zip(away, other, strict=True))
        print(f"  {rate:5.2f}x the samples a second of {name} ({after:.2f}x after the first batch), "
              f"{work:5.2f}x per second of CPU, {first:5.2f}x its time to the first batch")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
    else:
        run(given.pictures, given.rounds)
