"""What an export costs and loses: each format's latency on this machine, each precision's quality on dev tasks."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.store.records import Stored, images_of
from gcl.data.titles import title_of
from gcl.exports.folder import write_json
from gcl.exports.formats.registry import Format, Loaded, Reduced
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import compare
from gcl.schema import Field, Modality, fields_of
from gcl.table import Table

_LEAST_CALLS = 3
_LEAST_BATCH = 2
_MOST_CALLS = 500
_IMAGES = 64
_WORDS = "red running shoes for men with a soft sole and white laces size 42 breathable light cotton blue dress".split()


@dataclass(frozen=True)
class Timing:
    """One tower of one format, `batch` items per call; p50, p95: milliseconds per call; throughput: items/second."""

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
    no two alike. A batch that would take longer than its share of the time is made smaller, which its row shows.
    """
    towers: dict[str, tuple[Callable[[Sequence], np.ndarray], Sequence]] = {"text": (loaded.texts, _texts(batch))}
    if images:
        towers["image"] = (loaded.images, _photos(batch))
    share, timings = seconds / (2 * len(towers)), []
    for tower, (encode, items) in towers.items():
        encode(items[:1])  # the first call allocates
        single = _time(name, tower, encode, [[item] for item in items], share)
        fits = min(batch, max(_LEAST_BATCH, int(share / _LEAST_CALLS / (single.p50 / 1000))))
        encode(items[:fits])
        timings += [single, _time(name, tower, encode, [items[:fits]], share)]
    return timings


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


def latency_table(timings: Sequence[Timing]) -> Table:
    """A row per timing."""
    return Table(
        ["format", "tower", "batch", "p50 ms", "p95 ms", "items/s"],
        [[t.format, t.tower, t.batch, t.p50, t.p95, t.throughput] for t in timings],
        align="ll", formats={"p50 ms": ".1f", "p95 ms": ".1f", "items/s": ".0f"},
    )  # fmt: skip


def latency_record(timings: Sequence[Timing]) -> dict[str, Any]:
    """Plain values for a JSON file: the machine, what was timed, and every row."""
    return {
        "machine": machine(),
        "measured": "from strings and encoded files to vectors, milliseconds per call on the CPU",
        "rows": [asdict(timing) for timing in timings],
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


def images_of_all(documents: Stored, fields: Mapping[str, Field]) -> list[bytes]:
    """Images from all over a catalog, with which int8 convolutions are calibrated."""
    names = fields_of(fields, Modality.image)
    rows = np.unique(np.linspace(0, max(len(documents) - 1, 0), 4 * _IMAGES).astype(np.int64))
    images = [image for name in names for value in documents.column(name, rows) for image in images_of(value)]
    return images[:: max(1, len(images) // _IMAGES)][:_IMAGES]


def measure_precisions(
    format: Format,
    folder: Path,
    encoder: DualEncoder,
    measure: Callable[[Any], Mapping[str, TaskResult]],
    *,
    metric: str = "ndcg@10",
) -> dict[str, Any]:
    """What each precision loses, per dev task: {metric, tasks: {task: {precision: {mean, change, low, high, p}}}}.

    measure: a DualEncoder, or a module that embeds as one, -> {task: TaskResult} on the dev half, without cached
        features (they would be the model's own).
    change is measured against the model itself (torch, fp32), paired by query; low and high: its 95 % interval.
    Also written to the format's quality file, onnx/quality.json.
    """
    if not isinstance(format.precisions, Reduced):
        raise ValueError(f"{format.name} makes no precision besides fp32.")
    reference = measure(encoder)
    tasks: dict[str, dict[str, Any]] = {
        task: {"torch": {"mean": result.means[metric], "queries": result.queries}} for task, result in reference.items()
    }
    for precision in format.written(folder):
        exported = format.precisions.as_encoder(format.load_as(folder, precision), encoder)
        for task, result in measure(exported).items():
            change = compare(reference[task].values[metric], result.values[metric])
            tasks[task][precision.value] = {
                "mean": change.after, "change": change.change, "low": change.low, "high": change.high, "p": change.p,
                "top_10_equal": float(np.mean((reference[task].row[:, :10] == result.row[:, :10]).all(axis=1))),
            }  # fmt: skip
    quality = {"metric": metric, "part": "dev", "compared_with": "torch, fp32", "tasks": tasks}
    write_json(folder / format.precisions.quality, quality)
    return quality


def quality_table(quality: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    """A row per task and precision, the torch model first. titles: of `task_titles`."""
    rows = []
    for task, by_precision in quality["tasks"].items():
        for precision, row in by_precision.items():
            changed = "change" in row
            change = f"{row['change']:+.4f} ({row['low']:+.4f} … {row['high']:+.4f})" if changed else ""
            same = f"{row['top_10_equal']:.1%}" if changed else ""
            rows.append([title_of(task, titles), precision, row["mean"], change, same])
    header = ["task", "precision", quality["metric"], "change (95 % interval)", "same top 10"]
    return Table(header, rows, align="ll", grouped=True)
