"""A catalog's vectors as Parquet for a vector database: embedded, written and forgotten a few thousand at a time.

embeddings/documents.parquet, or documents-00000-of-00012.parquet … where there are many rows. Each file appears under
its name only when it is whole; the same call again makes those that are missing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gcl.data.store.records import Records
from gcl.data.store.vector_files import VectorWriter, about_vectors, vector_rows
from gcl.errors import ConfigError, nearest
from gcl.export.vectors.index import build_index, check_kind
from gcl.files.progress import counted
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import fingerprint, model_hash
from gcl.retrieval.embedding.embed import DEFAULTS, EmbedOptions, FieldEmbeddings, embed, field_weights
from gcl.retrieval.embedding.precomputed import texts_of
from gcl.schema import SideName

logger = logging.getLogger("gcl")
FOLDER = "embeddings"
FUSED = "vector"
CONTENTS, DTYPES = ("fused", "fields"), ("float32", "float16")
_CHUNK = 8192  # rows in memory at once, and in a row group


@dataclass(frozen=True)
class Wanted:
    """What is written. content: "fused", one vector a record, or "fields", one a field (null where it is absent).

    dtype: "float32" or "float16". queries: theirs, too, with their text. index: "faiss-flat", "faiss-hnsw", "usearch"
    or None. rows: in one file at most. weights: of the document's fields, by name; None: the run's own.
    """

    content: str = "fused"
    dtype: str = "float32"
    queries: bool = False
    index: str | None = None
    rows: int = 250_000
    weights: Mapping[str, float] | None = None

    def check(self) -> Wanted:
        """Itself; ConfigError for a word that is none."""
        for key, known in (("content", CONTENTS), ("dtype", DTYPES)):
            value = getattr(self, key)
            if value not in known:
                name = "embeddings" if key == "content" else key
                raise ConfigError(f"{name}={value}: it is one of {', '.join(known)}.{nearest(str(value), known)}")
        if self.rows < 1:
            raise ConfigError(f"rows={self.rows}: a file has at least one row.")
        if self.index is not None:
            check_kind(self.index)
            if self.content != "fused":
                raise ConfigError("index needs embeddings=fused: it is searched with one vector a query.")
        return self


def write_embeddings(
    encoder: DualEncoder,
    sides: Mapping[SideName, Records],
    folder: Path,
    wanted: Wanted = Wanted(),
    *,
    data: str = "",
    options: EmbedOptions = DEFAULTS,
) -> list[str]:
    """Writes folder/embeddings; returns notes for the card. Memory does not grow with the number of records.

    sides: {"document": records, "query": records}; the queries are written if they are asked for.
    data: the prepared catalog's fingerprint. options: how records are embedded.
    Raises ValueError, before anything is embedded, where records have no field to be fused.
    """
    wanted.check()
    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    chosen: list[SideName] = ["document", *(["query"] if wanted.queries else [])]  # type: ignore[list-item]
    for side in chosen:
        _check_fields(sides[side], side, _weights(encoder, side, wanted), wanted)
    model, notes = model_hash(encoder), []
    for side in chosen:
        about = _about(encoder, side, wanted, model, data)
        files = _write_side(encoder, sides[side], side, out, wanted, about, options)
        notes.append(
            f"embeddings/{files[0].name}{' and following' if len(files) > 1 else ''}: {len(sides[side]):,} "
            f"{_plural(side)}, {_told(encoder, side, wanted)}, {wanted.dtype}, {encoder.width} numbers, cosine."
        )
        if side == "document" and wanted.index:
            index = build_index(files, FUSED, out, wanted.index, width=encoder.width)
            notes.append(f"embeddings/{index.name} is a {wanted.index} index; documents.ids.parquet names its rows.")
    return notes


def _write_side(
    encoder: DualEncoder, records: Records, side: SideName, out: Path, wanted: Wanted, about: dict[str, Any],
    options: EmbedOptions,
) -> list[Path]:  # fmt: skip
    parts = max(1, math.ceil(len(records) / wanted.rows))
    files = []
    for part in range(parts):
        name = f"{_plural(side)}.parquet" if parts == 1 else f"{_plural(side)}-{part:05}-of-{parts:05}.parquet"
        rows = np.arange(part * wanted.rows, min(len(records), (part + 1) * wanted.rows))
        said = {**about, "part": part, "parts": parts, "rows": len(rows)}
        files.append(out / name)
        if about_vectors(out / name) == said and vector_rows(out / name) == len(rows):
            logger.info(f"{name} is there already.")
            continue
        fields = list(encoder.schema.side(side))
        weights = _weights(encoder, side, wanted)
        columns = [FUSED] if wanted.content == "fused" else [f"{FUSED}_{field}" for field in fields]
        with VectorWriter(
            out / name, columns, encoder.width, dtype=wanted.dtype, texts=side == "query", about=said
        ) as writer:
            for ids, texts, embedded in _chunks(encoder, records, side, rows, options):
                writer.write(ids, texts=texts, **_columns(embedded, columns, wanted, weights))
    return files


def _chunks(
    encoder: DualEncoder, records: Records, side: SideName, rows: np.ndarray, options: EmbedOptions
) -> Iterator[tuple[Sequence[str], list[str] | None, FieldEmbeddings]]:
    starts = range(0, len(rows), _CHUNK)
    label = f"embedding, {_CHUNK:,} of {_plural(side)} at a time"
    for start in counted(starts, label, shown=options.progress and len(starts) > 1, unit="block"):
        part = records.subset(rows[start : start + _CHUNK])
        yield (
            part.ids,
            texts_of(part) if side == "query" else None,
            embed(encoder, part, side, replace(options, progress=False)),
        )


def _columns(embedded: FieldEmbeddings, columns: list[str], wanted: Wanted, weights: np.ndarray) -> dict[str, Any]:
    """The vectors of some records as VectorWriter takes them."""
    if wanted.content == "fused":
        return {"vectors": {FUSED: embedded.fused(weights)}}
    return {
        "vectors": {name: embedded.embedding[:, column] for column, name in enumerate(columns)},
        "present": {name: embedded.present[:, column] for column, name in enumerate(columns)},
    }


def _weights(encoder: DualEncoder, side: SideName, wanted: Wanted) -> np.ndarray:
    """[F]: the run's own weights; of documents, those that were asked for."""
    return field_weights(encoder.schema.side(side), wanted.weights if side == "document" else None)


def _check_fields(records: Records, side: SideName, weights: np.ndarray, wanted: Wanted) -> None:
    """Hours before it would be met: every record has a field that counts."""
    if wanted.content == "fields":
        return
    for start in range(0, len(records), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(records)))
        empty = rows[(records.present(rows) * weights).sum(axis=1) <= 0]
        if len(empty):
            raise ValueError(
                f"embeddings=fused: {records.place(int(empty[0]))} has no field of positive weight (weights: "
                f"{dict(zip(records.side, weights.round(6).tolist(), strict=True))}), and it is not the only one, "
                f"perhaps. Give a weight to a field that the {_plural(side)} have, or write embeddings=fields."
            )


def _about(encoder: DualEncoder, side: SideName, wanted: Wanted, model: str, data: str) -> dict[str, Any]:
    """What a file says of itself, and by which a file of an earlier attempt is recognised."""
    fields = encoder.schema.side(side)
    weights = _weights(encoder, side, wanted)
    return {
        "format": 1, "side": side, "content": wanted.content, "dtype": wanted.dtype, "width": encoder.width,
        "normalized": True, "metric": "cosine (equal to the inner product)", "model_sha256": model,
        "model": encoder.origin.name if encoder.origin else None, "data_fingerprint": data,
        "preprocess_sha256": fingerprint(encoder.preprocess, fields),
        "fields": {
            name: {"modality": field.modality.value, "prompt": field.prompt, "weight": float(weight)}
            for (name, field), weight in zip(fields.items(), weights, strict=True)
        },
    }  # fmt: skip


def _plural(side: SideName) -> str:
    return {"query": "queries", "document": "documents"}[side]


def _told(encoder: DualEncoder, side: SideName, wanted: Wanted) -> str:
    fields = list(encoder.schema.side(side))
    if wanted.content == "fields":
        return f"one column a field ({', '.join(f'{FUSED}_{name}' for name in fields)}; null: absent)"
    pairs = zip(fields, _weights(encoder, side, wanted), strict=True)
    return f"column `{FUSED}`, fused of {', '.join(f'{name} {weight:g}' for name, weight in pairs)}"
