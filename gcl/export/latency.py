"""How fast an exported model answers on this machine: from strings and files to vectors, each tower, each format."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcl.export.formats.base import Loaded

_LEAST_CALLS = 3
_LEAST_BATCH = 2
_MOST_CALLS = 500
_WORDS = "red running shoes for men with a soft sole and white laces size 42 breathable light cotton blue dress".split()


@dataclass(frozen=True)
class Timing:
    """One tower of one format, `batch` items a call; p50, p95: milliseconds a call; throughput: items a second."""

    format: str
    tower: str
    batch: int
    p50: float
    p95: float
    throughput: float
    calls: int


def measure_latency(
    name: str, loaded: Loaded, *, images: bool = True, batch: int = 32, seconds: float = 3.0
) -> list[Timing]:
    """Times one item and `batch` items through each tower, `seconds` in all (a few calls more where one takes long).

    Tokenising, decoding and resizing are part of it: texts of four to twelve words, JPEG photos of 640 x 480 pixels,
    no two alike. Where a batch would take longer than its share of the time, it is made smaller, and says so.
    """
    towers: dict[str, tuple[Callable[[Sequence], np.ndarray], Sequence]] = {"text": (loaded.texts, _texts(batch))}
    if images:
        towers["image"] = (loaded.images, _photos(batch))
    share, found = seconds / (2 * len(towers)), []
    for tower, (encode, items) in towers.items():
        encode(items[:1])  # the first call allocates
        single = _time(name, tower, encode, [[item] for item in items], share)
        fits = min(batch, max(_LEAST_BATCH, int(share / _LEAST_CALLS / (single.p50 / 1000))))
        encode(items[:fits])
        found += [single, _time(name, tower, encode, [items[:fits]], share)]
    return found


def _time(name: str, tower: str, encode: Callable, batches: Sequence[Sequence], seconds: float) -> Timing:
    taken: list[float] = []
    while len(taken) < _LEAST_CALLS or (sum(taken) < seconds and len(taken) < _MOST_CALLS):
        items = batches[len(taken) % len(batches)]
        start = time.perf_counter()
        encode(items)
        taken.append(time.perf_counter() - start)
    p50, p95 = np.percentile(taken, [50, 95]) * 1000
    return Timing(name, tower, len(items), float(p50), float(p95), len(items) / (float(p50) / 1000), len(taken))


def machine() -> str:
    """The processor's name, its cores, and the threads that torch may use."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    return f"{name}, {cores} core{'s' * (cores != 1)}, {threads} thread{'s' * (threads != 1)}"


def latency_table(timings: Sequence[Timing]) -> list[str]:
    """Markdown for the card."""
    lines = ["| format | tower | batch | p50 ms | p95 ms | items/s |", "|---|---|---:|---:|---:|---:|"]
    lines += [
        f"| {t.format} | {t.tower} | {t.batch} | {t.p50:.1f} | {t.p95:.1f} | {t.throughput:.0f} |" for t in timings
    ]
    return lines


def latency_record(timings: Sequence[Timing]) -> Mapping[str, object]:
    """Plain values for a JSON file: the machine, what was timed, and every row."""
    return {
        "machine": machine(),
        "measured": "from strings and encoded files to vectors, milliseconds a call on the CPU",
        "rows": [vars(timing) for timing in timings],
    }


def _texts(count: int) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(_WORDS, random.integers(4, 13))) + f" {number}" for number in range(count)]


def _photos(count: int) -> list[bytes]:
    """JPEG files as large and as hard to decode as a shop's: coarse noise, smoothly enlarged."""
    from PIL import Image

    random, photos = np.random.default_rng(0), []
    for _ in range(count):
        noise = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        photos.append(file.getvalue())
    return photos
