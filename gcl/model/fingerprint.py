"""Digests of everything that an embedding depends on: the weights, the preprocessing, the fields and the contents.

Both caches name their entries by these: the features of frozen trunks (gcl/model/features.py) and the embeddings of
records (gcl/retrieval/embedding/embed.py). A changed weight, prompt, image or preprocessing option is another entry.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcl.data.batches.batch import Transform
from gcl.data.store.records import Records
from gcl.schema import Field, Modality

_NOT_IN_EMBEDDINGS = {"logit_scale", "logit_bias"}
_TEXTS = (
    "Women's 2-in-1 rain-jacket, navy/WHITE  (size: XL) \u2013 100% cotton & caf\u00e9",
    "\u00fc\u00df \u4e2d\u6587 \U0001f45f &amp;",
    "",
    "red shoe " * 100,
)


def fingerprint(preprocess: Transform, side: Mapping[str, Field]) -> str:
    """SHA-256 over what a preprocess makes of a side's fields: every plain option it has, at any depth, and its output
    for fixed texts and a fixed image. Other values (a tokenizer) count by that output alone: their pickles differ from
    process to process.
    """
    digest = hashlib.sha256(repr(_options(preprocess)).encode())
    modalities = {field.modality for field in side.values()}
    if Modality.text in modalities:
        digest.update(preprocess.text(list(_TEXTS)).numpy().tobytes())
    if Modality.image in modalities:
        digest.update(preprocess.image(_image()).numpy().tobytes())
    return digest.hexdigest()


def _options(value: Any) -> Any:
    """The plain values in a value.

    >>> _options({"b": 1, "a": (0.5, Modality.text), "c": object()})
    {'a': (0.5, 'text'), 'b': 1, 'c': None}
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(map(_options, value))
    if isinstance(value, Mapping):
        return {key: _options(value[key]) for key in sorted(value)}
    if dataclasses.is_dataclass(value):
        return {field.name: _options(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return None


def _image() -> bytes:
    """97 x 61 noisy pixels as a PPM file, the same everywhere."""
    value = np.arange(97 * 61 * 3, dtype=np.uint32)
    return b"P6 97 61 255\n" + ((value * 2654435761) >> 21).astype(np.uint8).tobytes()


def model_hash(encoder: nn.Module) -> str:
    """SHA-256 over the structure, every parameter and every buffer that is saved, except temperature and bias."""
    return structure_hash([encoder])


def structure_hash(parts: Iterable[nn.Module | Tensor]) -> str:
    """SHA-256 over the modules' structure (activations have no weights) and all tensors, saved buffers included."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode() if isinstance(part, nn.Module) else b"parameter")
        for name, value in sorted(_tensors(part), key=lambda pair: pair[0]):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            if value.numel():
                # A copy: NumPy pins the memory it looks at, and FSDP must be able to give gathered weights back.
                whole = value.detach().cpu().clone().contiguous().reshape(-1)
                digest.update(whole.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(part: nn.Module | Tensor) -> Iterator[tuple[str, Tensor]]:
    """What `state_dict` holds, without calling it: on a sharded model that would take the gathered weights away."""
    if isinstance(part, Tensor):
        yield "", part
        return
    for prefix, module in part.named_modules():
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            unsaved = name in module._non_persistent_buffers_set or name in _NOT_IN_EMBEDDINGS
            if value is not None and not unsaved:
                yield f"{prefix}.{name}", value


def records_hash(records: Records, side: Mapping[str, Field]) -> str:
    """SHA-256 over the fields' names and the content of all records; ids are no content."""
    digest = hashlib.sha256()
    for name in side:
        digest.update(name.encode())
        for value in records.hashes(name):
            digest.update(b"\0" if value is None else b"\1" + value)
    return digest.hexdigest()
