"""The vectors of a catalog of any size: in blocks, resumed after a kill, and of a changed catalog only what changed.

1. Every document has a key: a digest of its fields that count. Vectors that are there under that key are taken: those
   of `out`, and those that work which was cut short has left beside it, on this catalog or on an earlier state of it
2. Consecutive documents are a block, one Parquet file. What a block holds depends on the model, its documents and what
   is taken, not on who writes it when: it has the same bytes on every engine, and again after a kill. A file has its
   name when it is whole, in a folder that is named for the model and all documents
3. When all blocks are there, their digests go into vectors.json and the folder takes the place of `out`
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.prepare.earlier import compared
from gcl.data.store.key_table import KEY_BYTES, KeyTable
from gcl.data.store.records import Records
from gcl.data.store.store import RecordStore
from gcl.data.store.vector_files import READS_NULLS, about_vectors, vector_keys, vector_rows, vectors_at
from gcl.errors import ConfigError
from gcl.exports.folder import check_free
from gcl.exports.settings import Content
from gcl.exports.vectors.write import CHUNK, Known, VectorOptions, Vectors, describe, write_vectors
from gcl.files.atomic import PARTIAL, link, remove_unfinished, replacing, synchronize, write_json
from gcl.files.digest import file_sha256
from gcl.files.lock import locked
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import model_hash
from gcl.retrieval.embedding.embed import DEFAULTS, EmbedOptions

INDEX = "vectors.json"
LANCE = "documents.lance"  # made of the blocks, beside them
_MANY = 16  # files that a block may read itself
_MADE_BY = ("model", "model_sha256", "preprocess_sha256", "rotation")  # a change of these is another model


@dataclass(frozen=True)
class Block:
    """Documents start … start + n of a catalog. keys: 16 bytes of each. file, row: int32 [n], where a document's
    vectors lie already, as a position in the work's `earlier` and in that file; -1: nowhere."""

    number: int
    start: int
    keys: bytes
    file: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.file)

    @property
    def name(self) -> str:
        return f"documents-{self.number:05}.parquet"


@dataclass(frozen=True)
class Work:
    """What all blocks share. folder: where they are written. about: what each file says of its vectors. earlier: files
    to take vectors from. in_order: what is taken in the order of the documents, where that is another one (see
    `_in_order`)."""

    folder: Path
    wanted: VectorOptions
    about: Mapping[str, Any]
    earlier: tuple[Path, ...] = ()
    in_order: Path | None = None


@dataclass(frozen=True)
class Written:
    """A block that is there."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Plan:
    """The blocks of a catalog's vectors, and how many documents are new and so on, compared with what `out` holds."""

    out: Path
    digest: str
    data: str
    work: Work
    blocks: Sequence[Block]
    counts: Mapping[str, int]

    @property
    def documents(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def to_embed(self) -> int:
        """Documents whose vectors are nowhere yet, work that was cut short apart."""
        return sum(int((block.file < 0).sum()) for block in self.blocks if not (self.work.folder / block.name).exists())

    def finish(self, written: Iterable[Written]) -> None:
        """Puts the folder in the place of `out`. written: of every block, in any order."""
        blocks = sorted((vars(one) for one in written), key=lambda one: one["name"])
        index = {"format": 1, "digest": self.digest, "data_fingerprint": self.data, "documents": self.documents}
        if self.work.in_order is not None:
            self.work.in_order.unlink()
        remove_unfinished(self.work.folder)
        write_json(self.work.folder / INDEX, {**index, "about": self.work.about, "blocks": blocks}, ascii=False)
        synchronize(self.work.folder)
        if self.out.exists():
            os.replace(self.out, _old(self.out))
        os.replace(self.work.folder, self.out)
        synchronize(self.out.parent)
        for left in (_old(self.out), *_unfinished(self.out)):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def taken(out: Path) -> Iterator[None]:
    """Keeps other processes from writing `out` meanwhile. Raises FileExistsError where it holds something else."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.with_name(f".{out.name}.lock"), waiting_for=f"the vectors in {out}"):
        if _old(out).exists() and not out.exists():  # killed between the two renames
            os.replace(_old(out), out)
        shutil.rmtree(_old(out), ignore_errors=True)  # killed while it was removed
        if not (out / INDEX).exists():
            check_free(out)
        yield


def plan_blocks(
    encoder: DualEncoder, documents: RecordStore, out: Path, wanted: VectorOptions, *, data: str
) -> Plan | None:
    """What has to be written; None where `out` holds it. documents: all of the catalog. data: the prepared catalog's
    fingerprint. Raises ConfigError where `out` holds vectors of another kind or model."""
    about = describe(encoder, "document", wanted, model_hash(encoder))
    counting = RecordStore(documents.folder, documents.prefix, wanted.counting(encoder))
    packed, state = bytearray(), hashlib.sha256(json.dumps([about, wanted.rows], sort_keys=True).encode())
    for name, key in zip(counting.each_id(), counting.content_keys(), strict=True):
        packed += key
        state.update(f"{len(name)},{name}".encode() + key)
    digest = state.hexdigest()
    index = _read_index(out, about)
    there = [block for block in index.get("blocks", ()) if _size(out / block["name"]) == block["bytes"]]
    if index.get("digest") == digest and len(there) == len(index["blocks"]):
        return None
    folder = out.with_name(f".{out.name}.{digest[:12]}{PARTIAL}")
    folder.mkdir(exist_ok=True)
    earlier = [_checked(out / block["name"], block["sha256"]) for block in there]
    now = zip(counting.each_id(), _each(packed), strict=True)
    counts = compared(chain.from_iterable(map(vector_keys, earlier)), now)
    for left in _unfinished(out):
        earlier += [path for path in sorted(left.glob("*.parquet")) if left != folder and about_vectors(path) == about]
    if wanted.content is Content.fields and not READS_NULLS:
        earlier = []
    place = _places(packed, earlier)
    file, row = (place >> 32).astype(np.int32), (place & 0x7FFFFFFF).astype(np.int32)
    blocks = [
        Block(number, start, bytes(packed[KEY_BYTES * start : KEY_BYTES * (start + wanted.rows)]),
              file[start : start + wanted.rows], row[start : start + wanted.rows])
        for number, start in enumerate(range(0, len(place), wanted.rows))
    ]  # fmt: skip
    blocks.sort(key=lambda block: (folder / block.name).exists() or not (block.file < 0).any())  # work comes first
    in_order = None
    if any(len(np.unique(block.file)) > _MANY for block in blocks):
        in_order = folder / "taken.npy"
        _in_order(in_order, earlier, place, wanted.columns(encoder, "document"), wanted.width(encoder))
    return Plan(out, digest, data, Work(folder, wanted, about, tuple(earlier), in_order), blocks, counts)


def _in_order(path: Path, earlier: Sequence[Path], place: np.ndarray, columns: Sequence[str], width: int) -> None:
    """Writes [columns, documents, width], NaN where there is nothing: each file is read once. The blocks of a catalog
    that is sorted in another way would each read most of them."""
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(len(earlier) + 1) << 32)
    taken = np.lib.format.open_memmap(path, "w+", np.float32, (len(columns), len(place), width))
    for file, start, stop in zip(earlier, bounds, bounds[1:], strict=False):
        for some in range(start, stop, CHUNK):
            rows = order[some : min(some + CHUNK, stop)]
            found = vectors_at(file, columns, place[rows] & 0x7FFFFFFF)
            for column, (values, present) in zip(taken, found.values(), strict=True):
                column[rows] = np.where(present[:, None], values, np.nan)


def _places(packed: bytearray, earlier: Sequence[Path]) -> np.ndarray:
    """int64 [documents]: for each key the first file (the upper 32 bits) and row that have it; -1: none."""
    known = KeyTable()
    for number, path in enumerate(earlier):
        for row, (_, key) in enumerate(vector_keys(path)):
            known.add(key, number << 32 | row)
    found = (known.get(key) for key in _each(packed))
    return np.fromiter((-1 if place is None else place for place in found), np.int64, len(packed) // KEY_BYTES)


def _each(packed: bytes | bytearray) -> Iterator[bytes]:
    return (bytes(packed[start : start + KEY_BYTES]) for start in range(0, len(packed), KEY_BYTES))


def write_block(
    encoder: DualEncoder, records: Records, work: Work, block: Block, options: EmbedOptions = DEFAULTS
) -> Written:
    """Writes one block, unless it is there. records: all documents of the catalog."""
    path = work.folder / block.name
    if not path.exists():
        part = records.subset(np.arange(block.start, block.start + len(block)))
        if not _linked(part, work, block):
            taken = partial(_taken, work, block, work.wanted.columns(encoder, "document"))
            known = Known(list(_each(block.keys)), taken)
            write_vectors(path, encoder, part, "document", work.wanted, work.about, options, known)
    return Written(block.name, len(block), path.stat().st_size, file_sha256(path))


def _taken(work: Work, block: Block, columns: Sequence[str], rows: np.ndarray) -> Iterator[tuple[np.ndarray, Vectors]]:
    """Those of these rows of the block whose vectors are there already, with these."""
    rows = rows[block.file[rows] >= 0]
    if work.in_order is None:
        for number in np.unique(block.file[rows]).tolist():
            some = rows[block.file[rows] == number]
            yield some, vectors_at(work.earlier[number], columns, block.row[some])
        return
    taken = np.load(work.in_order, mmap_mode="r")[:, block.start + rows]
    present = ~np.isnan(taken[:, :, 0])
    yield rows, {name: (np.nan_to_num(taken[at]), present[at]) for at, name in enumerate(columns)}


def _linked(part: Records, work: Work, block: Block) -> bool:
    """Whether the block is a whole earlier file, which then has a second name: of a catalog that has grown at its end,
    all blocks but the last."""
    number = int(block.file[0])
    if number < 0 or (block.file != number).any() or (block.row != np.arange(len(block))).any():
        return False
    earlier = work.earlier[number]
    same = vector_rows(earlier) == len(block)
    if not same or any(name != now for (name, _), now in zip(vector_keys(earlier), part.ids, strict=True)):
        return False
    with replacing(work.folder / block.name) as temporary:
        link(earlier, temporary)
    return True


def _checked(path: Path, sha256: str) -> Path:
    if file_sha256(path) != sha256:
        raise ValueError(
            f"{path} is not what {INDEX} says: it was changed or damaged. Restore it or remove its folder."
        )
    return path


def _read_index(out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What `out` holds; nothing where there is none."""
    try:
        index = json.loads((out / INDEX).read_text(encoding="utf-8"))
        made_of, names = index["about"], {block["name"] for block in index["blocks"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{out / INDEX} is damaged: name another folder as out=, or remove {out}.") from error
    if differ := [name for name in about if made_of.get(name) != about[name]]:
        what = "another model" if {*differ} & {*_MADE_BY} else f"another {', another '.join(differ)}"
        raise ConfigError(f"out={out} holds vectors of {what}: name another folder, or remove this one.")
    foreign = sorted(path.name for path in out.glob("[!.]*") if path.name not in names | {INDEX, LANCE})
    if foreign:  # the folder is replaced as a whole
        raise ConfigError(f"out={out} holds {foreign[0]}, which is not of `gcl embed`: move it out of there.")
    return index


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def _unfinished(out: Path) -> list[Path]:
    """The folders that work which was cut short left beside `out`."""
    return sorted(out.parent.glob(f".{out.name}.{'[0-9a-f]' * 12}{PARTIAL}"))
