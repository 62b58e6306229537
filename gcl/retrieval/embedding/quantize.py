"""How vectors are stored to be smaller: only the first numbers of each, perhaps of a rotation's, as float32, int8 or
one bit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gcl.files.arrays import blank
from gcl.model.rotation import Rotation
from gcl.options import Choice

_ROWS = 4096
_SPELLING = re.compile(r"(?:(\d+)|all)?(?: *x)? *(float32|int8|binary both|binary)?(, rotated)?")


class Quantization(Choice):
    """The type of a vector's numbers."""

    float32 = "float32"
    int8 = "int8"  # one scale for all vectors
    binary = "binary"  # the sign, of the documents only
    binary_both = "binary both"  # the sign, of queries as well


@dataclass(frozen=True)
class VectorFormat:
    """How vectors are stored: the first `width` numbers of each (None: all), of this type; rotated: those of the
    rotation that an export has.

    >>> VectorFormat(256, "int8").bytes(768), VectorFormat(None, "binary").bytes(768), str(VectorFormat(256, "int8"))
    (256, 96, '256 x int8')
    """

    width: int | None = None
    kind: Quantization = Quantization.float32
    rotated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Quantization(self.kind))

    def bytes(self, width: int) -> int:
        """Bytes per vector for a model whose embeddings have this width."""
        kept = min(self.width or width, width)
        bits = {Quantization.float32: 32, Quantization.int8: 8}.get(self.kind, 1)
        return -(-kept * bits // 8)

    def __str__(self) -> str:
        return f"{self.width or 'all'} x {self.kind}{', rotated' * self.rotated}"

    @property
    def words(self) -> str:
        """For tables that people read.

        >>> VectorFormat(256, "int8").words, VectorFormat(None, "binary both").words
        ('256 wide, int8', 'full width, binary both')
        """
        return f"{f'{self.width} wide' if self.width else 'full width'}, {self.kind}{', rotated' * self.rotated}"


def parse_format(spelling: Any) -> VectorFormat:
    """Parses a vector format: a width, a type, or both.

    >>> [str(parse_format(spelling)) for spelling in (256, "int8", "128 binary", "all x binary both")]
    ['256 x float32', 'all x int8', '128 x binary', 'all x binary both']
    >>> parse_format("int4")
    Traceback (most recent call last):
    ...
    ValueError: 'int4' is not a vector format: give a width (256), int8, binary, binary both, or both ('256 int8').
    """
    match = _SPELLING.fullmatch(str(spelling).strip())
    if match is None or not any(match.groups()[:2]) or match[1] == "0":
        raise ValueError(
            f"{spelling!r} is not a vector format: give a width (256), int8, binary, binary both, or both ('256 int8')."
        )
    width = None if match[1] is None else int(match[1])
    return VectorFormat(width, Quantization(match[2] or "float32"), rotated=match[3] is not None)


def forms_of(spellings: Iterable[Any]) -> list[VectorFormat]:
    """The vector formats that a config names, and after each the same of rotated vectors where that is another one.

    >>> [str(form) for form in forms_of(["int8", 64, "float32", "int8"])]
    ['all x int8', 'all x int8, rotated', '64 x float32', '64 x float32, rotated', 'all x float32']
    """
    both = (one for form in map(parse_format, spellings) for one in (form, replace(form, rotated=True)))
    return list(dict.fromkeys(one for one in both if one != VectorFormat(rotated=True)))


def compress(
    query: np.ndarray, corpus: np.ndarray, form: VectorFormat, rotation: Rotation | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """query[Q, D] and corpus[M, D] as float32 vectors whose dot products are the scores in this format.

    rotation: of a rotated format.

    Truncated vectors are made unit vectors again. int8: one scale for all numbers, the largest magnitude becoming 127,
    as vector databases do without calibration. Queries stay float32 except for "binary both": they need not be stored.
    What a large corpus becomes is mapped from a file, block by block.

    Raises ValueError for a width that the vectors do not have.
    """
    if form.width is not None and form.width > corpus.shape[1]:
        raise ValueError(
            f"A width of {form.width} is requested, but the model's vectors have {corpus.shape[1]} numbers."
        )

    def first(vectors: np.ndarray) -> np.ndarray:
        if form.rotated:
            assert rotation is not None, "a rotated format comes with its rotation"
            return unit(rotation.turn(vectors, form.width))
        return unit(vectors[:, : form.width])

    query = first(query)
    small = blank((len(corpus), form.width or corpus.shape[1]))
    largest = 1e-30
    for start in range(0, len(corpus), _ROWS):
        part = first(corpus[start : start + _ROWS])
        largest = max(largest, float(np.abs(part).max(initial=0)))
        small[start : start + _ROWS] = part if form.kind in (Quantization.float32, Quantization.int8) else _signs(part)
    if form.kind is Quantization.int8:
        for start in range(0, len(corpus), _ROWS):
            small[start : start + _ROWS] = np.rint(small[start : start + _ROWS] * np.float32(127 / largest))
    return (_signs(query) if form.kind is Quantization.binary_both else query), small


def unit(vectors: np.ndarray) -> np.ndarray:
    """vectors[n, D] at length 1, float32."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def _signs(vectors: np.ndarray) -> np.ndarray:
    return np.where(vectors >= 0, np.float32(1), np.float32(-1))
