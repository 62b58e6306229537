"""Reading raw samples: ours against stock webdataset (and litdata, where it is installed) over the same records.

Process CPU time a sample, rounds interleaved, medians. webdataset reads the very tars we read; litdata keeps a format
of its own, so it gets the same records written in it. Goal: at least 8 times as fast as webdataset, level with litdata.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset

from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.schema import Field, Modality

GOAL = 8.0
SIDE = {"image": Field(Modality.image), "title": Field()}


def write(folder: Path, samples: int, size: int) -> list[dict]:
    rng = np.random.default_rng(0)
    records = [{"image": b"\xff\xd8\xff" + rng.bytes(size), "title": f"product number {n}"} for n in range(samples)]
    with ShardWriter(folder, "documents", side=SIDE, shard_bytes=16 << 20) as writer:
        for number, record in enumerate(records):
            writer.write(f"sku-{number}", record)
    return records


def readers(folder: Path, records: list[dict]) -> dict[str, Callable[[], int]]:
    """Each opens the shards, reads every sample once and returns how many bytes of image it saw."""
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    shuffled = np.random.default_rng(0).permutation(len(records))

    def ours_in_order() -> int:
        store = RecordStore(folder, "documents", SIDE)
        return sum(len(store[row]["image"]) for row in range(len(store)))

    def ours_shuffled() -> int:
        store = RecordStore(folder, "documents", SIDE)
        return sum(len(store[row]["image"]) for row in shuffled)

    def ours_by_batch() -> int:
        store, total = RecordStore(folder, "documents", SIDE), 0
        for start in range(0, len(store), 256):
            rows = np.sort(shuffled[start : start + 256])
            columns = {name: store.column(name, rows) for name in SIDE}
            total += sum(map(len, columns["image"]))
        return total

    def theirs() -> int:
        return sum(len(sample["image.jpg"]) for sample in webdataset.WebDataset(tars, shardshuffle=False))

    found = {"gcl in order": ours_in_order, "gcl shuffled": ours_shuffled, "gcl in batches": ours_by_batch}
    return found | {"webdataset": theirs} | litdata_reader(folder, records)


def litdata_reader(folder: Path, records: list[dict]) -> dict[str, Callable[[], int]]:
    try:
        from litdata import StreamingDataset
        from litdata.streaming.writer import BinaryWriter
    except ImportError:
        return {}
    target = folder / "litdata"
    with contextlib.redirect_stdout(io.StringIO()):
        writer = BinaryWriter(str(target), chunk_bytes=16 << 20)
        for number, record in enumerate(records):
            writer[number] = {"image": record["image"], "title": record["title"], "id": f"sku-{number}"}
        writer.done()
        writer.merge()

    def theirs() -> int:
        return sum(len(sample["image"]) for sample in StreamingDataset(str(target), shuffle=False))

    return {"litdata": theirs}


def run(samples: int = 4000, size: int = 15_000, rounds: int = 7) -> bool:
    """Prints times and ratios; whether the goals are reached."""
    with tempfile.TemporaryDirectory() as folder:
        records = write(Path(folder), samples, size)
        passes = readers(Path(folder), records)
        expected = sum(len(record["image"]) for record in records)
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, read in passes.items():
                start = time.process_time()
                assert read() == expected, f"{name} did not read every byte"
                times.setdefault(name, []).append((time.process_time() - start) / samples * 1e6)
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f"  {name:<16} {value:8.1f} us a sample")
    ours = median["gcl in batches"]
    for name in ("webdataset", "litdata"):
        if name in median:
            print(f"  {name} / gcl: {median[name] / ours:.1f}x")
    return median["webdataset"] / ours >= GOAL and median.get("litdata", ours) >= ours
