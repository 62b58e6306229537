"""What a frozen trunk makes of a field, computed once and kept on disk under its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gcl.data.batches.batch import RowsDataset, SideReader
from gcl.data.store.records import EachImage, Records, first_images
from gcl.files.arrays import Allocate, ArrayCache
from gcl.files.progress import counted
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import fingerprint, records_hash, structure_hash
from gcl.schema import Field, Modality, SideName

_FORMAT = "gcl-features-2"
_COPIED_ROWS = 1 << 14
_MOST_DESCRIBED = 1 << 16  # records whose features the statistics are computed from


def cached_features(
    encoder: DualEncoder,
    stores: Mapping[SideName, Records],
    cache: ArrayCache,
    *,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
) -> dict[SideName, dict[str, np.ndarray]]:
    """{side: {field: features}} of every field whose trunk is frozen: float32 [rows, E], zeros where it is absent; of a
    set [images, E], a row for each image of each record.

    Equal contents are computed once. Features are memory-mapped from a file in the cache that is named by everything
    they depend on: the trunk's weights, the preprocessing, the prompt and every row's content. The same call again
    finds the files. They are kept whatever the cache's limit; others make room. On several ranks let one compute while
    the others wait.
    """
    features: dict[SideName, dict[str, np.ndarray]] = {side: {} for side in stores}
    used = set()
    for side, records in stores.items():
        for name, field in encoder.schema.side(side).items():
            if not encoder.frozen_trunk(field.modality):
                continue
            rows = EachImage(records, name) if field.is_set else records
            one = rows.side[name] if field.is_set else field
            reader, entry = SideReader(rows, {name: one}, encoder.preprocess), _name(encoder, rows, name, one)
            values = cache.load(entry, len(rows))
            if values is None:
                make = partial(_compute, encoder, reader, batch_size=batch_size, workers=workers, progress=progress)
                values = cache.make(entry, make, in_memory=0, required=True)
            features[side][name] = values
            used.add(entry)
    cache.prune(used)
    return features


def statistics(records: Records, features: Mapping[str, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation [E], float64, of the features of some fields in distinct rows of the records, with every image
    of a set; of more than 65,536 rows, in as many that are evenly spaced.

    The same on every rank, as each reads the same file. Raises ValueError where the rows have none of the fields.
    """
    rows, parts = rows[:: -(-len(rows) // _MOST_DESCRIBED) or 1], []
    for name, values in features.items():
        if records.side[name].is_set:
            first = first_images(records, name)
            taken = np.concatenate([np.arange(first[row], first[row + 1]) for row in rows])
        else:
            taken = rows[records.present(rows)[:, list(records.side).index(name)]]
        parts += [(values, taken[start : start + _COPIED_ROWS]) for start in range(0, len(taken), _COPIED_ROWS)]
    count = sum(len(taken) for _, taken in parts)
    if not count:
        raise ValueError(f"No record of the training pairs has a value of {', '.join(features)}.")
    mean = sum(values[taken].sum(axis=0, dtype=np.float64) for values, taken in parts) / count
    square = sum(np.square(values[taken] - mean).sum(axis=0) for values, taken in parts) / count
    return mean, np.sqrt(square)


def _name(encoder: DualEncoder, records: Records, name: str, field: Field) -> str:
    part, side = encoder.required_tower(field.modality), {name: field}
    digest = hashlib.sha256()
    for piece in (
        _FORMAT, field.modality.value, field.prompt, fingerprint(encoder.preprocess, side),
        structure_hash(part.trunk_parts), records_hash(records, side), *part.stages,
    ):  # fmt: skip
        digest.update(f"{piece}\n".encode())
    return f"features-{name}-{digest.hexdigest()[:24]}"


def _compute(
    encoder: DualEncoder, reader: SideReader, allocate: Allocate, *, batch_size: int, workers: int, progress: bool
) -> np.ndarray:
    """[rows, E] of the reader's only field."""
    ((name, field),) = reader.side.items()
    distinct, source = _distinct(reader.store.hashes(name))
    device = next(encoder.parameters()).device
    width = encoder.trunk_features(field.modality, _blank(encoder, field.modality).to(device)).shape[1]
    out = allocate((len(source), width))
    blocks = [distinct[start : start + batch_size] for start in range(0, len(distinct), batch_size)]
    loader = DataLoader(RowsDataset(reader, blocks), batch_size=None, num_workers=workers)
    shown = counted(
        blocks, f"Features of {name}", shown=progress, total=len(distinct), unit=field.modality.value, size=len
    )
    for rows, batch in zip(shown, loader, strict=True):
        value = batch.fields[name]
        assert isinstance(value, Tensor), "read from the records, an image or text per row"
        out[rows] = encoder.trunk_features(field.modality, value.to(device)).float().cpu().numpy()
    repeated = np.flatnonzero((source >= 0) & (source != np.arange(len(source))))
    for start in range(0, len(repeated), _COPIED_ROWS):
        rows = repeated[start : start + _COPIED_ROWS]
        out[rows] = out[source[rows]]
    return out


def _distinct(contents: Sequence[bytes | None]) -> tuple[np.ndarray, np.ndarray]:
    """-> the first row of each content, and for each row the row whose features it shares (-1: the field is absent).

    >>> _distinct([b"x", None, b"y", b"x"])
    (array([0, 2]), array([ 0, -1,  2,  0]))
    """
    first: dict[bytes, int] = {}
    source = np.full(len(contents), -1, dtype=np.int64)
    for row, content in enumerate(contents):
        if content is not None:
            source[row] = first.setdefault(content, row)
    return np.fromiter(first.values(), dtype=np.int64, count=len(first)), source


def _blank(encoder: DualEncoder, modality: Modality) -> Tensor:
    if modality is Modality.text:
        return encoder.preprocess.text([""])
    return torch.zeros(1, 3, *encoder.preprocess.size, dtype=torch.uint8)
