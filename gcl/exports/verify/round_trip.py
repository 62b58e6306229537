"""The end of every export: a fresh, offline process loads each format by its own library and compares it with the run.

What must hold, or the export fails: every text and image has a cosine of at least LEAST_COSINE with the run's vector,
and every query of the run's dev tasks the same top 10. int8 is measured and reported, not refused. Documents whose
scores in the run are closer than NEAR count as tied, because two libraries' resizing rounds pixels differently, which
leaves a cosine of 0.99997.

1. The case (inputs, tasks, the run's vectors) is written into a temporary folder, with what is asked of it.
2. `worker` compares every format there and writes its verdict.
3. A difference is looked up in this process, next to the run's model: `diagnose` names the first place.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gcl.exports.folder import EMBEDDINGS
from gcl.exports.formats.registry import FORMATS, Format
from gcl.exports.node import node_path
from gcl.exports.settings import Precision
from gcl.exports.verify.case import Case, Orders
from gcl.exports.verify.diagnose import first_difference
from gcl.exports.verify.worker import ORDERS, VERDICT, K
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Modality
from gcl.table import Table

LEAST_COSINE = 0.9999
NEAR = 2e-3  # scores in the run closer than this may change places
REPORTED = (Precision.int8,)  # precisions whose difference is measured and reported, not refused


class RoundTripError(ValueError):
    """An exported format is not the run's model."""


def round_trip(
    encoder: DualEncoder, folder: Path, formats: Sequence[Format], case: Case, *, embeddings: bool = False
) -> dict[str, dict[str, Any]]:
    """{format, or format and precision: its verdict}; see `worker.compare`.

    embeddings: the folder's vectors of the tasks' documents are read and compared, too.

    Raises RoundTripError naming format, input and the first place that differs.
    """
    with tempfile.TemporaryDirectory(prefix="gcl-round-trip-") as scratch:
        fields = [*encoder.schema.document] if embeddings else []
        orders = Orders(case, [format.name for format in formats], fields, NEAR, torch.get_num_threads())
        (Path(scratch) / ORDERS).write_bytes(pickle.dumps(orders))  # of our own: nobody else writes into this folder
        command = [sys.executable, "-m", "gcl.exports.verify.worker", scratch, str(folder.resolve())]
        done = subprocess.run(command, cwd=scratch, env=offline(), capture_output=True, text=True)
        verdict = Path(scratch) / VERDICT
        if done.returncode or not verdict.is_file():
            raise RoundTripError(
                f"The export cannot be loaded again in a fresh process: {last_line(done.stderr, done.returncode)}"
            )
        verdicts = json.loads(verdict.read_text("utf-8"))
    for label, about in verdicts.items():
        if about["precision"] not in REPORTED and (why := _difference(about)):
            where = ""
            if about["precision"] == Precision.fp32:
                where = " " + _where(encoder, folder, FORMATS[label], case, about)
            raise RoundTripError(f"The export as {label} is not the run's model: {why}{where}")
    return verdicts


def offline(**more: str) -> dict[str, str]:
    """An environment in which nothing is downloaded, and in which this very gcl is found from any folder."""
    here = str(Path(__file__).parents[3])
    paths = os.pathsep.join(path for path in (here, os.environ.get("PYTHONPATH")) if path)
    # W&B prints a greeting on stdout
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {
        **inherited, "PYTHONPATH": paths, "NODE_PATH": node_path(), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONIOENCODING": "utf-8", **more,
    }  # fmt: skip


def last_line(stderr: str, status: int) -> str:
    """What a failed process said last."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    if status < 0:
        return f"it was ended by signal {-status} (9 means: out of memory)."
    return lines[-1] if lines else f"it ended with status {status} and said nothing."


def _difference(about: Mapping[str, Any]) -> str:
    for kind in ("text", "image"):
        one = about.get(kind)
        if one is None or one["lowest"] >= LEAST_COSINE:
            continue
        how = one.get("shape") or (
            "its vector is not finite" if math.isnan(one["lowest"])
            else f"cosine {one['lowest']:.5f} with the run's vector, at least {LEAST_COSINE} is expected"
        )  # fmt: skip
        return f"for the {kind} {one['name']!r}: {how}."
    for name, task in about.get("tasks", {}).items():
        if task["different"]:
            one = task["shown"][0]
            return (
                f"{task['different']} of {task['queries']} queries of {name} find another top {K}, for example "
                f"{one['query']!r}: place {one['place']} is {one['export']!r} instead of {one['run']!r}."
            )
    return ""


def _where(encoder: DualEncoder, folder: Path, format: Format, case: Case, about: Mapping[str, Any]) -> str:
    """Loads the format in this process and follows the worst input of each kind through both models."""
    loaded = format.load(folder)
    kinds = sorted((kind for kind in ("text", "image") if kind in about), key=lambda kind: about[kind]["lowest"])
    for kind in kinds:
        value = (case.texts if kind == "text" else case.images)[about[kind]["row"]]
        if why := first_difference(encoder, loaded, Modality(kind), value):
            return why
    return "Loaded in one process with the run's model, no layer differs: look for what the two processes do not share."


def round_trip_table(verdicts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown for the card: what was compared, and how close each format came."""
    models = {label: about for label, about in verdicts.items() if label != EMBEDDINGS}
    stored = [_stored(verdicts[EMBEDDINGS])] if EMBEDDINGS in verdicts else []
    if not models:
        return stored
    first = next(iter(models.values()))
    texts, images = first["text"]["count"], first.get("image", {}).get("count", 0)
    resized = dict.fromkeys(FORMATS[label].compared for label in models if label in FORMATS)
    lines = [
        f"Each format was loaded by its own library in a fresh process without network and compared with the trained "
        f"model: {texts} texts{f' and {images} images' if images else ''} (every mode and orientation of a file, "
        f"upper case, emoji, empty, beyond the context length, CJK among them), and the top {K} of the dev tasks. "
        f"{''.join(f'{sentence} ' for sentence in resized if sentence)}Documents whose scores are closer than {NEAR:g} "
        "count as tied.",
        "",
        _closeness(models).markdown(),
    ]
    for label, about in models.items():
        if about["precision"] not in REPORTED and min(about["damaged"].values()) < LEAST_COSINE:
            cosines = ", ".join(f"{name} {cosine:.2f}" for name, cosine in about["damaged"].items())
            lines += [
                "", f"Measured, not refused: texts in need of a repair, as {label} reads them: cosine {cosines}.",
            ]  # fmt: skip
    return [*lines, *(["", *stored] if stored else [])]


def _closeness(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row per format, precision and dev task."""
    header = ["format", "lowest cosine, texts", "lowest cosine, images", "dev task", "same top 10", "ties swapped",
              "other"]  # fmt: skip
    rows: list[list[Any]] = []
    for label, about in models.items():
        image = f"{about['image']['lowest']:.6f}" if "image" in about else "–"
        start = [label, f"{about['text']['lowest']:.6f}", image]
        for name, task in about.get("tasks", {}).items():
            drawn = "" if task["whole"] else f" ({task['queries']} queries, {task['documents']} documents drawn)"
            same = f"{task['equal']} of {task['queries']}"
            rows.append([*start, name + drawn, same, task["tied"], task["different"]])
        if not about.get("tasks"):
            rows.append([*start, "not compared", None, None, None])
    return Table(header, rows, align="lrrl")


def _stored(about: Mapping[str, Any]) -> str:
    if "text" not in about:
        return "The files of vectors were not compared: the catalog has no dev task."
    tops = about["tasks"].values()
    same, queries = sum(task["equal"] for task in tops), sum(task["queries"] for task in tops)
    return (
        f"embeddings: the files' vectors of {about['text']['count']} documents were read and compared with the "
        f"model's: lowest cosine {about['text']['lowest']:.6f}, same top {K} for {same} of {queries} dev queries."
    )
