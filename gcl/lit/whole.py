"""Which checkpoint counts: a file whose DONE names its size, SHA-256 and step. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

from gcl.files.digest import file_sha256


def checkpoint_step(path: Path) -> int | None:
    """The optimiser step a complete checkpoint was made at; None where it has no DONE file that fits."""
    if not path.is_file():
        return None
    size = path.stat().st_size
    for done in (done_file(path), done_file(path.with_name(path.name + ".new"))):
        try:
            said = json.loads(done.read_text())
            if said["size"] == size and said["sha256"] == file_sha256(path):
                return int(said["step"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return None


def checkpoint_sha256(path: Path) -> str:
    """Of a whole checkpoint, as its DONE file has it."""
    return json.loads(done_file(path).read_text(encoding="utf-8"))["sha256"]


def not_whole(path: Path) -> str:
    """Why a checkpoint does not count, and what to do: for one whose step is None."""
    done = done_file(path)
    try:
        size, written = path.stat().st_size, int(json.loads(done.read_text(encoding="utf-8"))["size"])
        why = f"it has {size:,} of {written:,} bytes" if size != written else "its content is not what was written"
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        why = "there is no such file" if missing == path.name else f"{missing}, which is written after it, is missing"
    except (OSError, ValueError, LookupError, TypeError):
        why = f"{done.name} cannot be read"
    return f"{path} is not a complete checkpoint: {why}. Copy both files again, or take another checkpoint of the run."


def done_file(path: Path) -> Path:
    return path.with_name(path.name + ".DONE")
