"""The seam of the export: what a format is, and what an exported model is to the one who loads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gcl.model.dual_encoder import DualEncoder


class Loaded(Protocol):
    """An exported model as its user loads it: by the format's own library, on the CPU, in evaluation mode."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """n texts, prompts not applied -> float32 [n, D], unit vectors."""

    def images(self, images: Sequence[bytes]) -> np.ndarray:
        """n encoded files of any mode -> float32 [n, D], unit vectors. A text encoder alone raises ValueError."""


@dataclass(frozen=True)
class Format:
    """One way out. All formats of an export are written into one folder, which is one repository of the Hub.

    name: the word in `formats=[…]`.
    write: (encoder in evaluation mode, folder that exists) -> notes, sentences for the card. Adds files; transformers
        puts its tokenizer in the place of open_clip's, which gives the same ids to both.
    load: (folder) -> the model as a user loads it.
    snippet: (encoder, folder or Hub name) -> Python source that prints something, for the card; it is executed there.
    requires: packages (import names) that write, load and snippet need beyond gcl's own, and `extra` brings.
    refuses: (encoder) -> None, or a sentence: why this architecture has no such format.
    extra: the extra of pyproject.toml that brings `requires`.
    """

    name: str
    write: Callable[[DualEncoder, Path], list[str]]
    load: Callable[[Path], Loaded]
    snippet: Callable[[DualEncoder, str], str]
    refuses: Callable[[DualEncoder], str | None]
    requires: tuple[str, ...] = ()
    extra: str = "export"


def unit(vectors: np.ndarray) -> np.ndarray:
    """[n, D] -> float32 [n, D] of length 1."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
