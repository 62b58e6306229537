"""The end of every export: a fresh, offline process loads each format by its own library and compares it with the run.

What must hold, or the export fails: every text and picture has a cosine of at least 0.9999 with the run's vector, and
every query of the run's dev tasks the same top 10. int8 is measured and stated. Documents whose scores in the run are
closer than `NEAR` count as tied, because two libraries' resizing rounds pixels differently, which
leaves a cosine of 0.99997.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import gcl
from gcl.export.formats.registry import Format
from gcl.export.verify.case import Case
from gcl.export.verify.compare import K
from gcl.export.verify.diagnose import first_difference
from gcl.export.verify.worker import VERDICT
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Modality

LEAST_COSINE = 0.9999
NEAR = 2e-3  # scores in the run closer than this may change places
_PICTURES = "Pictures that transformers would read otherwise were resized for it, as the notes above say. "
STATED = ("int8",)  # precisions whose difference is measured and said, not refused


class RoundTripError(ValueError):
    """An exported format is not the run's model."""


def round_trip(
    encoder: DualEncoder, folder: Path, formats: Sequence[Format], case: Case, *, embeddings: bool = False
) -> dict[str, dict[str, Any]]:
    """{format, or format and precision: what was found}; see `round_trip_process.compare`.

    embeddings: the folder's vectors of the tasks' products are read and compared, too.

    Raises RoundTripError naming format, input and the first place that differs.
    """
    with tempfile.TemporaryDirectory(prefix="gcl-round-trip-") as scratch:
        case.write(Path(scratch))
        names = [format.name for format in formats]
        orders = {
            "formats": names,
            "near": NEAR,
            "threads": torch.get_num_threads(),
            "embeddings": [*encoder.schema.document] if embeddings else [],
        }
        (Path(scratch) / "orders.json").write_text(json.dumps(orders), encoding="utf-8")
        words = [sys.executable, "-m", "gcl.export.verify.worker", scratch, str(folder.resolve())]
        done = subprocess.run(words, cwd=scratch, env=offline(), capture_output=True, text=True)
        verdict = Path(scratch) / VERDICT
        if done.returncode or not verdict.is_file():
            raise RoundTripError(
                f"The export cannot be loaded again in a fresh process: {last_line(done.stderr, done.returncode)}"
            )
        found = json.loads(verdict.read_text("utf-8"))
    by_name = {format.name: format for format in formats}
    for label, about in found.items():
        if about["precision"] in STATED:
            continue
        if why := _difference(about):
            known = about["precision"] == "fp32"
            where = _where(encoder, folder, by_name[label.split()[0]], case, about) if known else ""
            raise RoundTripError(f"The export as {label} is not the run's model: {why}{where}")
    return found


def offline(**more: str) -> dict[str, str]:
    """An environment in which nothing is downloaded, and in which this very gcl is found from any folder."""
    here = str(Path(gcl.__file__).parent.parent)
    paths = os.pathsep.join(path for path in (here, os.environ.get("PYTHONPATH")) if path)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("WANDB_")
    }  # it greets on stdout
    return {
        **inherited, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
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
        what = one.get("shape") or (
            "its vector is not finite" if math.isnan(one["lowest"])
            else f"cosine {one['lowest']:.5f} with the run's vector, at least {LEAST_COSINE} is asked"
        )  # fmt: skip
        return f"for the {kind} {one['name']!r}: {what}."
    for name, task in about.get("tasks", {}).items():
        if task["different"]:
            one = task["shown"][0]
            return (
                f"{task['different']} of {task['queries']} queries of {name} find another top {K}, for example "
                f"{one['query']!r}: place {one['place']} is {one['export']!r} instead of {one['run']!r}."
            )
    return ""


def _where(encoder: DualEncoder, folder: Path, format: Format, case: Case, about: Mapping[str, Any]) -> str:
    """Loads the format here, beside the run's model, and follows the worst input of each kind through both."""
    loaded = format.load(folder)
    kinds = sorted((kind for kind in ("text", "image") if kind in about), key=lambda kind: about[kind]["lowest"])
    for kind in kinds:
        value = (case.texts if kind == "text" else case.images)[about[kind]["row"]]
        if why := first_difference(encoder, loaded, Modality(kind), value):
            return " " + why
    return " Beside the run, in one process, no layer differs: look for what the two processes do not share."


def round_trip_table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown for the card: what was compared, and how near each format came."""
    found, stored = {key: about for key, about in found.items() if key != "embeddings"}, found.get("embeddings")
    if not found:
        return _stored(stored)
    first = next(iter(found.values()))
    texts, images = first["text"]["count"], first.get("image", {}).get("count", 0)
    resized = _PICTURES if any("transformers" in label for label in found) else ""
    lines = [
        f"Each format was loaded by its own library in a fresh process without network and compared with the trained "
        f"model: {texts} texts{f' and {images} pictures' if images else ''} (every mode and orientation of a file, "
        f"upper case, emoji, empty, beyond the context length, CJK among them), and the top {K} of the dev tasks. "
        f"{resized}Documents whose scores are closer than {NEAR:g} count as tied.",
        "",
        "| format | lowest cosine, texts | lowest cosine, pictures | dev task | same top 10 | ties swapped | other |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for label, about in found.items():
        picture = f"{about['image']['lowest']:.6f}" if "image" in about else "–"
        cosines = f"| {label} | {about['text']['lowest']:.6f} | {picture} |"
        tasks = about.get("tasks", {})
        for name, task in tasks.items():
            part = "" if task["whole"] else f" ({task['queries']} queries, {task['documents']} documents drawn)"
            same = f"{task['equal']} of {task['queries']}"
            lines.append(f"{cosines} {name}{part} | {same} | {task['tied']} | {task['different']} |")
        if not tasks:
            lines.append(f"{cosines} not compared | | | |")
    damaged = {
        label: about["damaged"]
        for label, about in found.items()
        if about["precision"] not in STATED and min(about["damaged"].values()) < LEAST_COSINE
    }
    for label, cosines in damaged.items():
        said = ", ".join(f"{name} {cosine:.2f}" for name, cosine in cosines.items())
        lines += ["", f"Not refused but measured: texts in need of a repair, as {label} reads them: cosine {said}."]
    return lines + (["", *_stored(stored)] if stored else [])


def _stored(about: Mapping[str, Any] | None) -> list[str]:
    if not about or "text" not in about:
        return ["The files of vectors were not compared: the catalog has no dev task."]
    tops = about["tasks"].values()
    same, asked = sum(task["equal"] for task in tops), sum(task["queries"] for task in tops)
    return [
        f"embeddings: the files' vectors of {about['text']['count']} products were read and compared with the "
        f"model's: lowest cosine {about['text']['lowest']:.6f}, same top {K} for {same} of {asked} dev searches."
    ]
