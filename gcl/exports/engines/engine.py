"""What an engine is that a run's vectors go to, what it holds, and how it is asked.

An engine is at an address (`url=…`), or runs here, or neither: then files are written that it reads.

Whatever a run's score is made of, an engine gets one vector per document, all of one length, and one per query, to be
compared by inner product: the fused vectors, or the fields' vectors side by side, the weights then being in the
query's (gcl/model/query_weights.py). So cosine, inner product and Euclidean distance rank alike, and no engine has to
combine scores of several vectors, of which most cut the candidates or normalise the scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gcl.errors import ConfigError
from gcl.exports.engines.payload import WORDS, Batch, Column
from gcl.options import Choice

Filter = Mapping[str, Any]
"""{payload column: its value, or (least, most) of a number}; all of them hold."""
APPROXIMATE = 0.95  # the share of the exact top 10 that the deepest search of an index finds
SHARE = 0.7  # of the vectors in a weighted hybrid query; words have the rest
_NAME = re.compile(r"[a-z][a-z0-9_]{2,62}")


class Quantization(Choice):
    """In which numbers an engine keeps the vectors that it searches first."""

    none = "none"
    scalar = "scalar"
    binary = "binary"


class Here(Choice):
    """What there is of an engine without an address."""

    database = "database"  # of its own library, left in the folder
    check = "check"  # it runs in this process, or is started by it, and nothing is left
    files = "files"  # that it loads


class How(Choice):
    """What a search goes by."""

    exact = "exact"
    approximate = "approximate"
    words = "words"
    rrf = "rrf"
    weighted = "weighted"


@dataclass(frozen=True)
class Layout:
    """What a collection holds: the schema that an engine is told.

    width: numbers of `vector`. columns: the payload. words: whether texts are searched, too, in the column WORDS.
    about: what identifies the vectors (model, catalog, content).
    """

    name: str
    width: int
    rows: int
    columns: Mapping[str, Column]
    quantization: Quantization = Quantization.none
    about: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"collection={self.name}: 3 to 63 small letters, digits and underscores, a letter first, which every "
                "engine takes."
            )

    @property
    def words(self) -> bool:
        return WORDS in self.columns


@dataclass(frozen=True)
class Setting:
    """One way to search a collection. options: for the engine. least: the overlap with exact search of which it must
    not be short, which overlap=… gives for exact settings, and approximate=… for those that have one; None: it is
    measured only. filtered: whether the check's filter holds."""

    name: str
    how: How
    least: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    filtered: bool = False

    @property
    def depth(self) -> int | None:
        """How many candidates its index looks at; None where that is not what is set."""
        return self.options.get("ef")

    @staticmethod
    def graph(**options: Any) -> list[Setting]:
        """HNSW at several depths, of which the deepest has to be nearly exact."""
        return [
            Setting(f"HNSW, ef {depth}", How.approximate, least, {**options, "ef": depth})
            for depth, least in ((32, None), (128, None), (512, APPROXIMATE))
        ]

    @staticmethod
    def words(layout: Layout, words: str = "BM25") -> list[Setting]:
        """Words alone, and both ways to add them to the vectors; none where texts are not searched."""
        names = {words: How.words, "hybrid, RRF": How.rrf, "hybrid, weighted": How.weighted}
        return [Setting(name, how) for name, how in names.items()] if layout.words else []


@dataclass(frozen=True)
class Asked:
    """A query: vector[W] float32, its words, and what the results are filtered by."""

    vector: np.ndarray
    words: str = ""
    filter: Filter = field(default_factory=dict)


class Collection(Protocol):
    """A collection that runs here or at an address.

    It is asked by the code that shops get (clients/<engine>.py, written as search.py): so what is measured is what they
    run.
    """

    asks: Any
    """Its `Search`: near, and by_words and hybrid where there are settings of words."""

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        """Opens one, which need not be there yet."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """The ways to search that are checked."""

    @classmethod
    def write(cls, layout: Layout, batches: Iterable[Batch], folder: Path) -> Sequence[Path]:
        """The files that the engine loads, where files are what one gives it."""
        return []

    def rows(self) -> int | None:
        """Documents that it holds; None: there is no such collection."""

    def create(self) -> None:
        """Makes it empty, whatever was there."""

    def add(self, batch: Batch, *, again: bool = False) -> None:
        """again: some of the batch may be there already, of a load that was interrupted."""

    def finish(self) -> None:
        """Builds indexes, waits until everything is found."""

    def search(self, asked: Asked, k: int, setting: Setting) -> Sequence[str]:
        """Ids of documents, best first."""
        where = {"where": asked.filter} if asked.filter else {}
        if setting.how is How.words:
            found = self.asks.by_words(asked.words, k=k, **where)
        elif setting.how in (How.rrf, How.weighted):
            share = SHARE if setting.how is How.weighted else None
            found = self.asks.hybrid(asked.vector, asked.words, k=k, share=share, **where)
        else:
            found = self.asks.near(asked.vector, k=k, **where, **setting.options)
        return [name for name, _ in found]

    def drop(self) -> None:
        """Removes it."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Engine:
    """An engine: the ENGINE of its module, which errors and the docs read before its packages are there.

    name: in `engine=…`. title: as its makers write it. explanation: where it runs and what is checked.
    files: what its collection writes, in words. serve: lines that start a server; its port is in them.
    url: an example of its address. here: what there is of it without one.
    filters: whether results can be filtered by the payload.
    quantizations: all that can be chosen, the default first; what runs here in place of a server has that one.
    widest: the most numbers of a vector. longest: the most letters of a collection's name.
    batch: the most documents sent at once. requires: packages (import names); `extra` brings them.
    """

    name: str
    title: str
    collection: type[Collection]
    explanation: str = "files to load, or a server at an address, which is loaded and checked"
    files: str = ""
    serve: str = ""
    url: str = ""
    here: Here = Here.files
    filters: bool = True
    quantizations: tuple[Quantization, ...] = (Quantization.none,)
    widest: int | None = None
    longest: int = 63
    batch: int = 500
    requires: tuple[str, ...] = ()
    extra: str = ""

    def rows(self, width: int) -> int:
        """Documents sent at once: of wide vectors fewer, so that they are never more than 128 MiB."""
        return max(1, min(self.batch, 2**25 // width))

    def check_layout(self, layout: Layout, url: str | None) -> None:
        """Raises ConfigError for a name, vectors or a quantization that it does not take."""
        if layout.quantization not in self.quantizations:
            known = ", ".join(self.quantizations)
            raise ConfigError(f"quantization={layout.quantization}: with {self.title}, it is one of {known}.")
        in_place = self.serve and self.here is not Here.files
        if layout.quantization is not self.quantizations[0] and url is None and in_place:
            raise ConfigError(
                f"quantization={layout.quantization}: without a server, {self.title} keeps every number whole: give "
                f"url=…, for example {self.url}."
            )
        if len(layout.name) > self.longest:
            raise ConfigError(f"collection={layout.name}: with {self.title}, at most {self.longest} letters.")
        if self.widest is not None and layout.width > self.widest:
            raise ConfigError(
                f"{self.title} indexes vectors of at most {self.widest:,} numbers, and these have {layout.width:,}: "
                "take content=fused, or export the run with dims=…"
            )
