"""A teacher, as `teacher` of a config names it: an earlier run, vectors from elsewhere, or the scores of a reranker.

1. A run embeds the catalog's queries and documents once, through the embedding cache, with its own fields and weights
   or those of `teacher.document`; vectors from elsewhere are found by id.
2. Scores are found by the ids or texts of queries and the ids of documents.
3. What training asks of either, batch by batch, is a lookup (gcl.data.batches.lookups); gcl.loss learns from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gcl.config.schema import RunConfig
from gcl.data.batches.lookups import Lookups, ScoreTable, VectorTable
from gcl.data.store.prepared import Pairs, Prepared
from gcl.data.tables.cells import canonical_id, parse_number
from gcl.data.tables.names import rows_by_name
from gcl.data.tables.of_queries import scores_table
from gcl.errors import ConfigError
from gcl.files.digest import file_sha256, text_sha256
from gcl.lit.whole import checkpoint_sha256
from gcl.loss.settings import Target
from gcl.loss.terms import Teaching
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import embed, field_weights
from gcl.retrieval.embedding.precomputed import PrecomputedEmbeddings
from gcl.run.console import say
from gcl.run.contestants import device_of, tuned_encoder
from gcl.run.early import check_teacher_fields
from gcl.run.folder import RunFolder
from gcl.run.measurement import embedding_cache, embedding_of
from gcl.schema import Schema


def lookups_of(config: RunConfig, prepared: Prepared) -> tuple[Lookups, Teaching | None]:
    """What the loss asks of every batch, and how much a teacher counts; None without one.

    Called by every rank at once: they share the embedding. Raises ConfigError, in a sentence, for a teacher that does
    not fit the catalog.
    """
    judged = None if config.loss.target == Target.pair else ScoreTable(prepared.pairs)
    given = config.teacher
    if given.scores is not None:
        path = Path(given.scores)
        teaching = Teaching(given.weight, given.temperature or 1.0)
        return Lookups(judged, ScoreTable(_scores(path, prepared)), file_sha256(path)), teaching
    encoder: DualEncoder | PrecomputedEmbeddings
    if given.run is not None:
        encoder, digest, temperature = _of_run(config, prepared, Path(given.run))
    elif given.embeddings is not None:
        encoder, temperature = PrecomputedEmbeddings(given.embeddings.split("+")), 0.05
        digest = encoder.digest()
    else:
        return Lookups(judged), None
    try:
        table = VectorTable(*_fused(encoder, config, prepared))
    except ValueError as error:
        raise ConfigError(f"teacher: {error}") from error
    return Lookups(judged, table, digest), Teaching(given.weight, given.temperature or temperature)


def _of_run(config: RunConfig, prepared: Prepared, path: Path) -> tuple[DualEncoder, str, float]:
    """The run's best model, reading the fields it needs; a digest of it; its temperature."""
    run, fields = RunFolder(path, tuple(config.trust)), dict(config.teacher.document)
    own = run.read_config().data.schema
    check_teacher_fields(path, fields, own.document)
    document = {
        name: replace(field, weight=fields.get(name, 0.0) if fields else field.weight)
        for name, field in own.document.items()
    }
    schema = Schema(query=own.query, document={name: field for name, field in document.items() if field.weight > 0})
    for side in ("query", "document"):
        for name, field in schema.side(side).items():
            here = prepared.schema.side(side).get(name)
            if here is None or here.kind != field.kind:
                raise ConfigError(
                    f"teacher.run={path} reads the {side} field {name} ({field.kind}), which this catalog does not "
                    "have: name the fields it is to read in teacher.document."
                )
    encoder = tuned_encoder(run, schema).to(device_of(config))
    if encoder.by_query is not None:
        say(f"teacher.run={path}: its queries weigh the fields; it teaches with its constant weights.")
    weights = {name: field.weight for name, field in schema.document.items()}
    digest = text_sha256(json.dumps([checkpoint_sha256(run.best), weights], sort_keys=True))
    return encoder, digest, math.exp(-encoder.scale_bias[0])


def _fused(
    encoder: DualEncoder | PrecomputedEmbeddings, config: RunConfig, prepared: Prepared
) -> tuple[np.ndarray, np.ndarray]:
    """[Q, E] and [M, E], the vectors of all queries and of all documents; zeros for those without its fields."""
    options = embedding_of(encoder, prepared, config, cache=embedding_cache(config))
    query = embed(encoder, prepared.queries, "query", options).fused()
    documents = embed(encoder, prepared.documents, "document", options)
    seen = (documents.present * field_weights(documents.side, None)).sum(1) > 0
    if seen.all():
        return query, documents.fused()
    vectors = np.zeros((len(documents), documents.embedding.shape[2]), dtype=np.float32)
    vectors[seen] = documents.take(np.flatnonzero(seen)).fused()
    fields = ", ".join(documents.side)
    say(f"teacher: {int((~seen).sum()):,} of {len(seen):,} documents have none of its fields ({fields}): left out.")
    return query, vectors


def _scores(path: Path, prepared: Prepared) -> Pairs:
    """The scores of a table, in rows of the stores; those of other queries and documents are left out."""
    queries, documents = rows_by_name(prepared.queries, texts=True), rows_by_name(prepared.documents)
    rows, given = [], 0
    for query, product, score in _lines(path):
        given += 1
        if query in queries and product in documents:
            rows.append((queries[query], documents[product], score))
    if not rows:
        raise ConfigError(
            f"teacher.scores={path}: none of its {given:,} rows names a query and a product of the catalog."
        )
    if len(rows) < given:
        say(
            f"teacher.scores: {given - len(rows):,} of {given:,} rows name queries or products outside the catalog and "
            "are left out."
        )
    query_rows, document_rows, scores = zip(*rows, strict=True)
    return Pairs(np.array(query_rows), np.array(document_rows), np.array(scores, dtype=np.float32))


def _lines(path: Path) -> Iterator[tuple[str, str, float]]:
    """(query, product, score) of each row."""
    table, columns = scores_table(path)
    for block in table.blocks(columns):
        for number, reason, detail in block.bad:
            raise ConfigError(f"teacher.scores={path}, row {number}: {reason} {detail}".rstrip() + ".")
        for number, *cells in zip(block.number, *(block.columns[name] for name in columns), strict=True):
            query, product, text = ("" if cell is None else str(cell) for cell in cells)
            score = parse_number(text, block.decimal)
            if not query or not product or score is None or not math.isfinite(score):
                raise ConfigError(
                    f"teacher.scores={path}, row {number}: expected a query, a product and a number, given {query!r}, "
                    f"{product!r} and {text!r}."
                )
            yield canonical_id(query), canonical_id(product), score
