"""A folder of embeddings, found by what they were made of and never by a name.

The key is a SHA-256 over the model (structure and weights), what its preprocessing does, the side's fields (modality,
prompt), the content of every record and the arithmetic: a changed weight, prompt or picture is another key. The weights
of fields are no part of it: they enter after the fields are embedded. Nor are temperature and bias: no embedding knows
them. What was used longest ago goes first when the folder has grown beyond its limit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcl.data.store.records import Records
from gcl.distributed.ranks import agree, gather_objects, world
from gcl.retrieval.embedding.memmap import IN_MEMORY, blank, reserve
from gcl.schema import Field, Modality

Arrays = tuple[np.ndarray, np.ndarray]  # embedding[M, F, D], present[M, F]
Allocate = Callable[[tuple[int, ...]], np.ndarray]  # shape -> zeros, float32

_FORMAT = "gcl-embedding-2"
_ABANDONED = 86_400  # seconds after which a file that was never finished is nobody's
_NOT_IN_EMBEDDINGS = {"logit_scale", "logit_bias"}
_TEXTS = (
    "Women's 2-in-1 rain-jacket, navy/WHITE  (size: XL) \u2013 100% cotton & caf\u00e9",
    "\u00fc\u00df \u4e2d\u6587 \U0001f45f &amp;",
    "",
    "red shoe " * 100,
)


logger = logging.getLogger("gcl")


@dataclass(frozen=True)
class Cache:
    """Where embeddings are kept, and how many bytes of them."""

    folder: Path
    limit: int = 20 << 30


def _picture() -> bytes:
    """97 x 61 noisy pixels as a PPM file, the same everywhere."""
    value = np.arange(97 * 61 * 3, dtype=np.uint32)
    return b"P6 97 61 255\n" + ((value * 2654435761) >> 21).astype(np.uint8).tobytes()


def model_hash(encoder: nn.Module) -> str:
    """SHA-256 over the structure, every parameter and every buffer that is saved, but temperature and bias."""
    digest = hashlib.sha256(repr(encoder).encode())
    for name, value in sorted(_tensors(encoder)):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(
            # A copy: NumPy pins the memory it looks at, and FSDP must be able to give gathered weights back.
            value.detach().cpu().clone().contiguous().reshape(-1).view(torch.uint8).numpy().data
            if value.numel()
            else b""
        )
    return digest.hexdigest()


def _tensors(encoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What `state_dict` holds, without calling it: on a sharded model that would take the gathered weights away."""
    for prefix, module in encoder.named_modules():
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            unsaved = name in module._non_persistent_buffers_set or name in _NOT_IN_EMBEDDINGS
            if value is not None and not unsaved:
                yield f"{prefix}.{name}", value


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


def kept(
    cache: Cache,
    rows: int,
    key: Callable[[], str],
    make: Callable[[Allocate], Arrays],
    *,
    in_memory: int = IN_MEMORY,
) -> Arrays:
    """What `make` returns, from the folder if it is there, otherwise made and put there. Ranks decide together.

    What is larger than `in_memory` bytes is written into the folder's file while it is made: it never is in memory.
    """
    rank, _ = world()
    name, found, error = None, None, None
    if rank == 0:
        try:
            name = key()
            found = load(cache.folder, name, rows)
        except Exception as caught:
            error = caught
    agree(error)
    name, hit = gather_objects((name, found is not None))[0]
    if not hit:
        return _made(cache, name, make, in_memory) if rank == 0 else make(_scratch(cache, in_memory))
    if rank != 0:
        found = load(cache.folder, name, rows)
    agree(None if found is not None else FileNotFoundError(f"The cache {cache.folder} must be seen by every rank."))
    return found


def _scratch(cache: Cache, in_memory: int) -> Allocate:
    return lambda shape: blank(shape, folder=cache.folder, in_memory=in_memory)


def _made(cache: Cache, key: str, make: Callable[[Allocate], Arrays], in_memory: int) -> Arrays:
    growing: list[Path] = []

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        size = 4 * int(np.prod(shape))
        if size <= in_memory or size > cache.limit:
            return _scratch(cache, in_memory)(shape)
        cache.folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=cache.folder, prefix=key, suffix=".partial")
        growing.append(Path(path))
        with os.fdopen(descriptor, "r+b") as file:
            np.lib.format.write_array_header_1_0(
                file,
                {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape},
            )
            start = file.tell()
            reserve(file, start + size, cache.folder)
            return np.memmap(file, dtype=np.float32, mode="r+", shape=shape, offset=start)

    try:
        embedding, present = make(allocate)
        try:
            if growing:
                embedding.flush()
                _write(cache.folder / f"{key}.present.npy", present)
                os.replace(growing.pop(), cache.folder / f"{key}.npy")
            elif embedding.nbytes <= cache.limit:
                save(cache.folder, key, embedding, present)
            prune(cache, key)
        except OSError as problem:  # a cache that cannot be written costs time, not the result
            logger.warning(f"note: embeddings could not be kept in {cache.folder} ({problem.strerror or problem}).")
    finally:
        for path in growing:
            path.unlink(missing_ok=True)
    return embedding, present


def prune(cache: Cache, newest: str | None = None) -> int:
    """Removes what was used longest ago until the folder is within its limit, never `newest`. Bytes removed."""
    now, entries, removed = time.time(), [], 0
    for path in Path(cache.folder).iterdir():
        about = path.stat()
        if path.suffix == ".partial" and now - about.st_mtime > _ABANDONED:
            path.unlink(missing_ok=True)
        elif path.suffix == ".npy" and not path.name.endswith(".present.npy"):
            entries.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= cache.limit:
            break
        if path.stem != newest:
            path.unlink(missing_ok=True)  # who has it mapped keeps it
            path.with_suffix(".present.npy").unlink(missing_ok=True)
            total, removed = total - size, removed + size
    return removed


def load(folder: str | Path, key: str, rows: int) -> Arrays | None:
    """(embedding[M, F, D] memory-mapped, present[M, F]) or None if they are not there whole."""
    try:
        present = np.load(Path(folder) / f"{key}.present.npy")
        embedding = np.load(Path(folder) / f"{key}.npy", mmap_mode="c")
        os.utime(Path(folder) / f"{key}.npy")
    except (OSError, ValueError, EOFError):
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
