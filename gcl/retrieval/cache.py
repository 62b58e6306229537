"""A folder of embeddings, found by what they were made of and never by a name.

The key is a SHA-256 over the model (structure and weights), what its preprocessing does, the side's fields (modality,
prompt), the content of every record and the arithmetic: a changed weight, prompt or picture is another key. The weights
of fields are no part of it: they enter after the fields are embedded.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gcl.data.store import Records
from gcl.retrieval.ranks import agree, gather_objects, rank_and_world
from gcl.schema import Field, Modality

Arrays = tuple[np.ndarray, np.ndarray]  # embedding[M, F, D], present[M, F]

_FORMAT = "gcl-embedding-1"
_TEXTS = (
    "Women's 2-in-1 rain-jacket, navy/WHITE  (size: XL) \u2013 100% cotton & caf\u00e9",
    "\u00fc\u00df \u4e2d\u6587 \U0001f45f &amp;",
    "",
    "red shoe " * 100,
)


def _picture() -> bytes:
    """97 x 61 noisy pixels as a PPM file, the same everywhere."""
    value = np.arange(97 * 61 * 3, dtype=np.uint32)
    return b"P6 97 61 255\n" + ((value * 2654435761) >> 21).astype(np.uint8).tobytes()


def model_hash(encoder: nn.Module) -> str:
    """SHA-256 over the structure, every parameter and every buffer."""
    digest = hashlib.sha256(repr(encoder).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data if value.numel() else b""
        )
    return digest.hexdigest()


def records_hash(records: Records, side: Mapping[str, Field]) -> str:
    """SHA-256 over the content of all records."""
    digest = hashlib.sha256()
    for name in side:
        digest.update(name.encode())
        for value in records.hashes(name):
            digest.update(b"\0" if value is None else b"\1" + value)
    return digest.hexdigest()


def preprocess_hash(preprocess: Any, side: Mapping[str, Field]) -> str:
    """SHA-256 over the plain settings of a preprocess and what it makes of a fixed text and a fixed picture.

    Not over its pickle: a tokenizer's pickle differs from process to process.
    """
    plain = {k: v for k, v in vars(preprocess).items() if isinstance(v, (str, int, float, bool, tuple, type(None)))}
    digest = hashlib.sha256(repr(sorted(plain.items())).encode())
    modalities = {field.modality for field in side.values()}
    if Modality.text in modalities:
        digest.update(preprocess.text(list(_TEXTS)).numpy().tobytes())
    if Modality.image in modalities:
        digest.update(preprocess.image(_picture()).numpy().tobytes())
    return digest.hexdigest()


def embedding_key(encoder: nn.Module, records: Records, side: Mapping[str, Field], **arithmetic: Any) -> str:
    """The name of these embeddings. `arithmetic`: what changes their last bits (block, type, device)."""
    parts = [
        _FORMAT,
        torch.__version__,
        model_hash(encoder),
        preprocess_hash(encoder.preprocess, side),
        repr([(name, spec.modality.value, spec.prompt) for name, spec in side.items()]),
        records_hash(records, side),
        repr(sorted(arithmetic.items())),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def kept(folder: str | Path, rows: int, key: Callable[[], str], make: Callable[[], Arrays]) -> Arrays:
    """What `make` returns, from the folder if it is there, otherwise made and put there. Ranks decide together."""
    rank, _ = rank_and_world()
    name, found, error = None, None, None
    if rank == 0:
        try:
            name = key()
            found = load(folder, name, rows)
        except Exception as caught:
            error = caught
    agree(error)
    name, hit = gather_objects((name, found is not None))[0]
    if not hit:
        found = make()
        if rank == 0:
            save(folder, name, *found)
        return found
    if rank != 0:
        found = load(folder, name, rows)
    agree(None if found is not None else FileNotFoundError(f"The embedding cache {folder} must be seen by every rank."))
    return found


def load(folder: str | Path, key: str, rows: int) -> Arrays | None:
    """(embedding[M, F, D] memory-mapped, present[M, F]) or None if they are not there whole."""
    try:
        present = np.load(Path(folder) / f"{key}.present.npy")
        embedding = np.load(Path(folder) / f"{key}.npy", mmap_mode="c")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return (embedding, present) if len(embedding) == len(present) == rows else None


def save(folder: str | Path, key: str, embedding: np.ndarray, present: np.ndarray) -> Path:
    """Writes both arrays, the embeddings last: they are what says that the entry is complete."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{key}.present.npy", present)
    return _write(folder / f"{key}.npy", embedding)


def _write(path: Path, array: np.ndarray) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
