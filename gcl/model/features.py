"""What a frozen trunk makes of a field, computed once and kept on disk under its content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from gcl.data.batches.batch import RowsDataset, SideReader
from gcl.data.store.records import Records
from gcl.model.dual_encoder import DualEncoder
from gcl.model.preprocess import Preprocess
from gcl.model.towers import Tower
from gcl.schema import Field, Modality

_FORMAT = 1
_COPIED_ROWS = 1 << 14
_PROBE = ["A blue-and-white mug, 2 x 350 ml; café &amp; tea", "ROTE SCHUHE Größe 42"]  # told apart by any tokenizer


def cached_features(
    encoder: DualEncoder,
    records: Records,
    name: str,
    field: Field,
    folder: str | Path,
    *,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
) -> np.ndarray:
    """The trunk's features of one field of all records, float32 [rows, E], zeros where the field is absent.

    Equal contents are computed once. The result is a read-only memory map of a file in `folder` whose name is a digest
    of everything it depends on: the trunk's weights, the preprocessing, the prompt and every row's content. The same
    call again finds the file; a change anywhere makes another one. It is written under another name and renamed, so a
    file that is there is whole. On several ranks let one compute and the others wait.

    Raises:
        ValueError: the trunk is being trained, so its features would not stay true.
    """
    if not encoder.frozen_trunk(field.modality):
        raise ValueError(f"The {field.modality.value} trunk is being trained: features of {name} cannot be kept.")
    contents = records.hashes(name)
    path = Path(folder) / f"features-{name}-{_digest(encoder, field, contents)[:24]}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.stem}.{os.getpid()}.part")
        try:
            reader = SideReader(records, {name: field}, encoder.preprocess)
            _write(scratch, encoder, reader, name, contents, batch_size, workers, progress)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _write(
    path: Path,
    encoder: DualEncoder,
    reader: SideReader,
    name: str,
    contents,
    batch_size: int,
    workers: int,
    progress: bool,
) -> None:
    first: dict[bytes, int] = {}  # content -> the first row that has it
    source = np.full(len(contents), -1, dtype=np.int64)  # row -> the row whose features it shares
    for row, content in enumerate(contents):
        if content is not None:
            source[row] = first.setdefault(content, row)
    distinct = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    modality, device = reader.side[name].modality, next(encoder.parameters()).device

    width = encoder.trunk_features(modality, _blank(encoder.preprocess, modality).to(device)).shape[1]
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(contents), width))
    blocks = [distinct[start : start + batch_size] for start in range(0, len(distinct), batch_size)]
    loader = DataLoader(RowsDataset(reader, blocks), batch_size=None, num_workers=workers)
    shown = tqdm(zip(blocks, loader, strict=True), f"features of {name}", len(blocks), disable=not progress)
    for rows, batch in shown:
        out[rows] = encoder.trunk_features(modality, batch.fields[name].to(device)).float().cpu().numpy()
    repeated = np.flatnonzero((source >= 0) & (source != np.arange(len(source))))
    for start in range(0, len(repeated), _COPIED_ROWS):
        rows = repeated[start : start + _COPIED_ROWS]
        out[rows] = out[source[rows]]
    out.flush()


def _blank(preprocess: Preprocess, modality: Modality) -> Tensor:
    if modality is Modality.text:
        return preprocess.text([""])
    return torch.zeros(1, 3, *preprocess.size, dtype=torch.uint8)


def _digest(encoder: DualEncoder, field: Field, contents) -> str:
    pp = encoder.preprocess
    if field.modality is Modality.text:
        reading = [field.prompt, pp.tokens.context_length, pp.text(_PROBE).tolist()]
    else:
        reading = [pp.size, pp.mean, pp.std, pp.resize, pp.interpolation, pp.fill, pp.decode]
    digest = hashlib.sha256(json.dumps([_FORMAT, field.modality.value, reading]).encode())
    _add_trunk(digest, encoder.tower(field.modality))
    for content in contents:
        digest.update(b"absent;" if content is None else content + b";")
    return digest.hexdigest()


def _add_trunk(digest, part: Tower) -> None:
    """Structure (activations and the like have no weights) and every tensor of the trunk."""
    for piece in part.trunk_parts:
        digest.update(repr(piece).encode() if isinstance(piece, nn.Module) else b"parameter")
        tensors = piece.state_dict() if isinstance(piece, nn.Module) else {"": piece.detach()}
        for name, tensor in tensors.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
