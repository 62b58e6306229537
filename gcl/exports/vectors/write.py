"""A catalog's vectors as Parquet for a vector database: embedded, written and released a few thousand at a time.

embeddings/documents.parquet, or documents-00000-of-00012.parquet … where there are many rows. Each file appears under
its name only when it is complete; the same call again writes those that are missing.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcl.data.store.records import Records, texts_of
from gcl.data.store.vector_files import VectorWriter, about_vectors, vector_rows
from gcl.exports.folder import EMBEDDINGS, reached
from gcl.exports.settings import Content, VectorType
from gcl.files.progress import counted
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import fingerprint, model_hash
from gcl.retrieval.embedding.embed import DEFAULTS, EmbedOptions, FieldEmbeddings, embed, field_weights
from gcl.schema import Field, SideName

logger = logging.getLogger("gcl")
FUSED = "vector"  # the column of fused vectors; a field's is vector_<field>
CHUNK = 8192  # rows in memory at once, and in a row group
_PLURAL: dict[SideName, str] = {"query": "queries", "document": "documents"}
Vectors = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""{column: (vectors [n, D], present [n])} of some rows, as `vectors_at` gives them."""


@dataclass(frozen=True)
class VectorOptions:
    """What is written of a catalog's vectors."""

    content: Content = Content.fused
    """One vector per record, or one per field (null where the field is absent)."""
    dtype: VectorType = VectorType.float32
    """The number type of the vectors."""
    queries: bool = False
    """Whether the queries' vectors are written, too, with their text."""
    rows: int = 250_000
    """The most rows of one file."""

    def columns(self, encoder: DualEncoder, side: SideName) -> list[str]:
        """The columns of vectors in a file of this side."""
        return [FUSED] if self.content is Content.fused else [f"{FUSED}_{name}" for name in encoder.schema.side(side)]

    def counting(self, encoder: DualEncoder) -> dict[str, Field]:
        """The document's fields that its vectors depend on."""
        fields, gate = encoder.schema.document, encoder.by_query
        weighed = {*fields} if self.content is Content.fields else {*gate.fields} if gate is not None else set()
        return {name: field for name, field in fields.items() if name in weighed or field.weight > 0}

    def width(self, encoder: DualEncoder) -> int:
        """Numbers of one vector: of all weighed fields side by side, where queries weigh them."""
        gate = encoder.by_query if self.content is Content.fused else None
        return encoder.width if gate is None else encoder.width * len(gate.fields)


@dataclass(frozen=True)
class Known:
    """What is known of a file's rows. keys: 16 bytes of each. taken: (rows) -> those of them whose vectors are there
    already, with these."""

    keys: Sequence[bytes]
    taken: Callable[[np.ndarray], Iterable[tuple[np.ndarray, Vectors]]]


FUSED_FLOAT32 = VectorOptions()


def write_embeddings(
    encoder: DualEncoder,
    sides: Mapping[SideName, Records],
    folder: Path,
    wanted: VectorOptions = FUSED_FLOAT32,
    *,
    data: str = "",
    options: EmbedOptions = DEFAULTS,
) -> list[str]:
    """Writes folder/embeddings; returns notes for the card. Memory does not grow with the number of records.

    sides: {"document": records, "query": records}; the queries are written if they are asked for.
    data: the prepared catalog's fingerprint. options: how records are embedded.
    Raises ValueError, before anything is embedded, where records have no field to be fused.
    """
    out = folder / EMBEDDINGS
    out.mkdir(parents=True, exist_ok=True)
    chosen: tuple[SideName, ...] = ("document", "query") if wanted.queries else ("document",)
    if wanted.content is Content.fused:
        for side in chosen:
            check_fields(encoder, sides[side], side)
    model, notes = model_hash(encoder), []
    for side in chosen:
        about = {**describe(encoder, side, wanted, model), "data_fingerprint": data}
        files = _write_side(encoder, sides[side], side, out, wanted, about, options)
        notes.append(
            f"embeddings/{files[0].name}{' and following' if len(files) > 1 else ''}: {len(sides[side]):,} "
            f"{_PLURAL[side]}, {_described(encoder, side, wanted)}, {wanted.dtype}, {wanted.width(encoder)} numbers, "
            f"{'inner product' if wanted.width(encoder) > encoder.width else 'cosine'}."
        )
    return notes


def _write_side(
    encoder: DualEncoder, records: Records, side: SideName, out: Path, wanted: VectorOptions, about: dict[str, Any],
    options: EmbedOptions,
) -> list[Path]:  # fmt: skip
    parts = max(1, math.ceil(len(records) / wanted.rows))
    files = []
    for part in range(parts):
        name = f"{_PLURAL[side]}.parquet" if parts == 1 else f"{_PLURAL[side]}-{part:05}-of-{parts:05}.parquet"
        rows = np.arange(part * wanted.rows, min(len(records), (part + 1) * wanted.rows))
        about_file = {**about, "part": part, "parts": parts, "rows": len(rows)}
        files.append(out / name)
        if about_vectors(out / name) == about_file and vector_rows(out / name) == len(rows):
            logger.info(f"{name} already exists.")
            continue
        write_vectors(out / name, encoder, records.subset(rows), side, wanted, about_file, options)
    return files


def write_vectors(
    path: Path, encoder: DualEncoder, records: Records, side: SideName, wanted: VectorOptions, about: Mapping[str, Any],
    options: EmbedOptions, known: Known | None = None,
) -> None:  # fmt: skip
    """One file, a few thousand rows at a time, which are a row group."""
    columns, width, dtype = wanted.columns(encoder, side), wanted.width(encoder), wanted.dtype.value
    starts, texts, quietly = range(0, len(records), CHUNK), side == "query", replace(options, progress=False)
    shown = counted(starts, f"Writing the vectors of {_PLURAL[side]}", shown=options.progress, unit="block")
    with VectorWriter(path, columns, width, dtype=dtype, texts=texts, keys=known is not None, about=about) as writer:
        for start in shown:
            rows = np.arange(start, min(start + CHUNK, len(records)))
            vectors = {name: np.zeros((len(rows), width), dtype) for name in columns}
            present = {name: np.zeros(len(rows), bool) for name in columns}
            parts = [] if known is None else [*known.taken(rows)]
            new = np.setdiff1d(rows, np.concatenate([rows[:0], *(some for some, _ in parts)]))
            if len(new):
                embedded = embed(encoder, records.subset(new), side, quietly)
                parts.append((new, vectors_of(encoder, embedded, side, wanted)))
            for some, found in parts:
                for name, (values, there) in found.items():
                    vectors[name][some - start], present[name][some - start] = values, there
            part = records.subset(rows)
            writer.write(
                part.ids, vectors, present=present, texts=texts_of(part) if texts else None,
                keys=None if known is None else known.keys[start : start + len(rows)],
            )  # fmt: skip


def vectors_of(encoder: DualEncoder, embedded: FieldEmbeddings, side: SideName, wanted: VectorOptions) -> Vectors:
    """The vectors of some records."""
    gate = encoder.by_query
    if wanted.content is Content.fused:
        fused = embedded.searched()
        if gate is not None and side == "query":
            fused = gate.asked(fused)
        return {FUSED: (fused, np.ones(len(fused), bool))}
    vectors, present = np.array(embedded.embedding), embedded.present.copy()
    if gate is not None and side == "document":  # the others of a product represent a field that it lacks
        counts = np.array([*gate.given.values()]) > 0
        vectors[:, counts], present[:, counts] = embedded.searched().reshape(len(vectors), -1, vectors.shape[2]), True
    names = wanted.columns(encoder, side)
    return {name: (vectors[:, column], present[:, column]) for column, name in enumerate(names)}


def check_fields(encoder: DualEncoder, records: Records, side: SideName) -> None:
    """Every record has a field that counts: checked before the hours of embedding, not where it is met."""
    weights = field_weights(encoder.schema.side(side), None)
    for start in range(0, len(records), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(records)))
        empty = rows[(records.present(rows) * weights).sum(axis=1) <= 0]
        if len(empty):
            raise ValueError(
                f"embeddings=fused: {records.place(int(empty[0]))} has no field of positive weight (weights: "
                f"{dict(zip(records.side, weights.round(6).tolist(), strict=True))}), and perhaps it is not "
                f"the only one. Give a weight to a field that the {_PLURAL[side]} have, or write embeddings=fields."
            )


def describe(encoder: DualEncoder, side: SideName, wanted: VectorOptions, model: str) -> dict[str, Any]:
    """What a file says of itself, by which one of an earlier attempt is recognised. model: its hash."""
    fields = encoder.schema.side(side)
    return {
        "format": 1, "side": side, "content": wanted.content.value, "dtype": wanted.dtype.value,
        "width": wanted.width(encoder), **_compared(encoder, wanted), "model_sha256": model,
        "model": encoder.origin.name if encoder.origin else None,
        "rotation": encoder.origin.rotation if encoder.origin else None,
        "preprocess_sha256": fingerprint(encoder.preprocess, fields),
        "fields": {
            name: {"modality": field.modality.value, "prompt": field.prompt, "weight": float(np.float32(field.weight))}
            for name, field in fields.items()
        },
    }  # fmt: skip


def _compared(encoder: DualEncoder, wanted: VectorOptions) -> dict[str, Any]:
    """How these vectors are compared, and by which gate."""
    if (gate := encoder.by_query) is None:
        return {"normalized": True, "metric": "cosine (equal to the inner product)"}
    digest = hashlib.sha256(torch.cat([gate.matrix.flatten(), gate.bias]).numpy().tobytes()).hexdigest()
    known = {"fields": gate.fields, "given": gate.given, "sha256": digest}
    return {"normalized": wanted.content is Content.fields, "metric": "inner product", "by_query": known}


def _described(encoder: DualEncoder, side: SideName, wanted: VectorOptions) -> str:
    if wanted.content is Content.fields:
        weighed = "" if side == "query" or (gate := encoder.by_query) is None else (
            f", but of {' and '.join(gate.fields)} the vector of the other fields instead"
        )  # fmt: skip
        return f"one column per field ({', '.join(wanted.columns(encoder, side))}; null: absent{weighed})"
    if (gate := encoder.by_query) is not None:
        made = "times the weight of each field" if side == "query" else "the vectors of the fields side by side"
        return f"column `{FUSED}`, {made} ({', '.join(gate.fields)})"
    weights = ", ".join(f"{name} {field.weight:g}" for name, field in encoder.schema.side(side).items())
    return f"column `{FUSED}`, fused of {weights}"


def embedding_files(folder: Path) -> list[Path]:
    """The files of the documents' vectors in an exported folder, in order; empty where it has no embeddings."""
    out = folder / EMBEDDINGS
    whole = out / "documents.parquet"
    files = [whole] if whole.is_file() else sorted(out.glob("documents-*-of-*"))
    return [path for path in files if about_vectors(path) is not None]


def about_embeddings(folder: Path) -> dict[str, Any]:
    """The metadata of the documents' vector files. Raises ValueError if there are none."""
    for path in embedding_files(folder):
        if (about := about_vectors(path)) is not None:
            return about
    raise ValueError(f"{folder} holds no embeddings.")


class EmbeddingsSnippet:
    """The card's snippet that reads exported embeddings, named and called like that of a format."""

    name, language = EMBEDDINGS, "python"

    def __init__(self, folder: Path):
        self._file, self._about = embedding_files(folder)[0], about_embeddings(folder)

    def snippet(self, encoder: DualEncoder, place: str) -> str:
        """Python source for the card."""
        is_fused = self._about["content"] == Content.fused
        column = FUSED if is_fused else f"{FUSED}_{next(iter(encoder.schema.document))}"
        fetch, folder = reached(place)
        return f"""\
import numpy as np
import pyarrow.parquet as parquet
{fetch}
file = {folder} + "/{EMBEDDINGS}/{self._file.name}"
table = parquet.read_table(file, columns=["id", "{column}"]).drop_null()
ids, vectors = table["id"].to_numpy(), np.stack(table["{column}"].to_numpy()).astype("float32")
asked = vectors[0]  # yours: the vector of a query, from a snippet above
scores = vectors @ asked
print(vectors.shape, [(ids[row], round(float(scores[row]), 3)) for row in np.argsort(-scores)[:3]])
"""
