"""Forms in which vectors are stored: the first numbers of each, as float32, int8 or binary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcl.files.arrays import blank

KINDS = ("float32", "int8", "binary", "binary both")
_ROWS = 4096
_WORD = re.compile(r"(?:(\d+)|all)?(?: *x)? *(float32|int8|binary both|binary)?")


@dataclass(frozen=True)
class Form:
    """How vectors are stored: the first `width` numbers of each (None: all), as float32, int8 or binary.

    >>> Form(256, "int8").bytes(768), Form(None, "binary").bytes(768), str(Form(256, "int8"))
    (256, 96, '256 x int8')
    """

    width: int | None = None
    kind: str = "float32"

    def bytes(self, width: int) -> int:
        """Of one vector of a model with embeddings of this width."""
        kept = min(self.width or width, width)
        return {"float32": 4 * kept, "int8": kept, "binary": -(-kept // 8), "binary both": -(-kept // 8)}[self.kind]

    def __str__(self) -> str:
        return f"{self.width or 'all'} x {self.kind}"


def parse_form(word: Any) -> Form:
    """A form as one writes it: a width, a kind, or both.

    >>> [str(parse_form(word)) for word in (256, "int8", "128 binary", "all x binary both")]
    ['256 x float32', 'all x int8', '128 x binary', 'all x binary both']
    >>> parse_form("int4")
    Traceback (most recent call last):
    ...
    ValueError: 'int4' is no form of vectors: a width (256), a kind (int8, binary, binary both), or both ('256 int8').
    """
    match = _WORD.fullmatch(str(word).strip())
    if match is None or not any(match.groups()) or match[1] == "0":
        raise ValueError(
            f"{word!r} is no form of vectors: a width (256), a kind (int8, binary, binary both), or both ('256 int8')."
        )
    return Form(None if match[1] is None else int(match[1]), match[2] or "float32")


def compress(query: np.ndarray, corpus: np.ndarray, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """query[Q, D] and corpus[M, D] as float32 vectors whose dot products are the scores of this form.

    Truncated vectors are made unit vectors again. int8: one scale for all numbers, the largest magnitude becoming 127,
    as vector databases do without calibration. A query need not fit into memory and stays float32, but for "binary
    both". What a large corpus becomes is mapped from a file, block by block.

    Raises ValueError for a width that the vectors do not have.
    """
    if form.kind not in KINDS:
        raise ValueError(f"Vectors are stored as {', '.join(KINDS)}; not {form.kind!r}.")
    if form.width is not None and form.width > corpus.shape[1]:
        raise ValueError(f"Vectors of {form.width} numbers are asked for, but the model's have {corpus.shape[1]}.")
    query = unit(query[:, : form.width])
    small = blank((len(corpus), form.width or corpus.shape[1]))
    largest = 1e-30
    for start in range(0, len(corpus), _ROWS):
        part = unit(corpus[start : start + _ROWS, : form.width])
        largest = max(largest, float(np.abs(part).max(initial=0)))
        small[start : start + _ROWS] = part if form.kind in ("float32", "int8") else _signs(part)
    if form.kind == "int8":
        for start in range(0, len(corpus), _ROWS):
            small[start : start + _ROWS] = np.rint(small[start : start + _ROWS] * np.float32(127 / largest))
    return (_signs(query) if form.kind == "binary both" else query), small


def unit(vectors: np.ndarray) -> np.ndarray:
    """vectors[n, D] at length 1, float32."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def _signs(vectors: np.ndarray) -> np.ndarray:
    return np.where(vectors >= 0, np.float32(1), np.float32(-1))
