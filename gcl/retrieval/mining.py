"""Hard negatives: documents that a query finds, or nearly finds, and that nobody judged relevant for it.

1. `_found`: the training documents at the places `ranks` of every training query's results: by the model's fused
   vectors in an exact search on all ranks, by BM25, or as a table names them.
2. `_forbidden`: never a document that was judged for the query, nor one with the picture or the title of a document
   that is relevant for it.
3. The margin: never one that scores more than `margin` times the mean of the query's own documents (positive-aware
   mining, Moreira et al. 2024, https://arxiv.org/abs/2407.15831); what scores higher is more often unjudged than wrong.

Held-out queries and documents take no part. On every rank the result is the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcl.data.batches.negatives import Mined
from gcl.data.batches.settings import HardNegatives, Miner
from gcl.data.store.prepared import Pairs, Prepared
from gcl.data.store.records import texts_of, title_fields
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.names import rows_by_name
from gcl.data.tables.of_queries import NEGATIVES, negatives_table
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.search.bm25 import BM25
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import id_ranks
from gcl.schema import Modality, SideName

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Candidates: query[M], document[M] (rows of the stores), score[M]; and own[P], what the training pairs score."""

    query: np.ndarray
    document: np.ndarray
    score: np.ndarray
    own: np.ndarray | None = None


def mine(encoder: DualEncoder, prepared: Prepared, settings: HardNegatives, options: EmbedOptions) -> Mined:
    """Raises ValueError for a table that names no query and document of training."""
    pairs, judged = prepared.pairs, prepared.not_relevant
    queries = np.unique(pairs.query)
    documents = np.unique(np.concatenate([pairs.document, judged.document]))
    if settings.source is not Miner.file and settings.ranks[0] > len(documents):
        raise ValueError(
            f"plan.hard_negatives.ranks={settings.ranks}: the training half has {len(documents):,} products, so no "
            "result has such a place."
        )
    if settings.source is Miner.model:
        found = _by_model(encoder, prepared, (queries, documents), settings, options)
    elif settings.source is Miner.bm25:
        found = _by_words(prepared, (queries, documents), settings)
    else:
        found = _of_file(prepared, (queries, documents), Path(str(settings.file)))
    keep = ~_forbidden(prepared, found)
    if settings.margin is not None and found.own is not None:
        keep &= found.score <= _most(pairs, found.own, len(prepared.queries), settings.margin)[found.query]
    return Mined(found.query[keep], found.document[keep], found.score[keep].astype(np.float32))


def _by_model(
    encoder: DualEncoder,
    prepared: Prepared,
    rows: tuple[np.ndarray, np.ndarray],
    settings: HardNegatives,
    options: EmbedOptions,
) -> Found:
    sides: tuple[SideName, SideName] = ("query", "document")
    stores = (prepared.queries, prepared.documents)
    vectors = [
        embed(encoder, store.subset(own), side, options).fused()
        for store, own, side in zip(stores, rows, sides, strict=True)
    ]
    score, found = search(vectors[0], vectors[1], settings.ranks[1], rank=id_ranks(prepared.documents.ids[rows[1]]))
    place = (np.searchsorted(rows[0], prepared.pairs.query), np.searchsorted(rows[1], prepared.pairs.document))
    own = np.concatenate([
        np.einsum("pd,pd->p", vectors[0][place[0][part]], vectors[1][place[1][part]])
        for part in np.array_split(np.arange(len(prepared.pairs)), 1 + len(prepared.pairs) // 4096)
    ])  # fmt: skip
    return _at_ranks(rows, score, found, own, settings.ranks[0])


def _by_words(prepared: Prepared, rows: tuple[np.ndarray, np.ndarray], settings: HardNegatives) -> Found:
    asked, texts = texts_of(prepared.queries.subset(rows[0])), texts_of(prepared.documents.subset(rows[1]))
    if not any(asked) or not any(texts):
        raise ValueError("plan.hard_negatives.source=bm25 needs a text field on both sides: take source=model.")
    scorer = BM25(texts)
    score, found = scorer.search(asked, settings.ranks[1], rank=id_ranks(prepared.documents.ids[rows[1]]))
    place = (np.searchsorted(rows[0], prepared.pairs.query), np.searchsorted(rows[1], prepared.pairs.document))
    own = scorer.scores(asked, *place)
    return _at_ranks(rows, score, found, own, settings.ranks[0])


def _at_ranks(
    rows: tuple[np.ndarray, np.ndarray], score: np.ndarray, found: np.ndarray, own: np.ndarray, first: int
) -> Found:
    """score[Q, K], found[Q, K]: results, -1 where there is none. first: the first place that is taken, from 1."""
    found, score = found[:, first - 1 :], score[:, first - 1 :]
    q, k = np.nonzero(found >= 0)
    return Found(rows[0][q], rows[1][found[q, k]], score[q, k], own)


def _of_file(prepared: Prepared, rows: tuple[np.ndarray, np.ndarray], path: Path) -> Found:
    table = negatives_table(str(path))
    queries = rows_by_name(prepared.queries.subset(rows[0]), texts=True)
    documents = rows_by_name(prepared.documents.subset(rows[1]))
    found, lines = [], 0
    for block in table.blocks(NEGATIVES):
        for query, document in zip(*(block.columns[name] for name in NEGATIVES), strict=True):
            lines += 1
            q, d = queries.get(canonical_id(str(query))), documents.get(canonical_id(str(document)))
            if q is not None and d is not None:
                found.append((q, d))
    if not found:
        raise ValueError(
            f"plan.hard_negatives.file={path}: none of its {lines:,} rows names a query (its id or text) and a "
            f"document (its id) of training, as {next(iter(queries), '')!r} and {next(iter(documents), '')!r} are."
        )
    if len(found) < lines:
        left = lines - len(found)
        logger.warning("%s: %s of %s rows name no query or document of training.", path, f"{left:,}", f"{lines:,}")
    query, document = np.array(found, dtype=np.int64).T
    return Found(rows[0][query], rows[1][document], np.zeros(len(query), np.float32))


def _most(pairs: Pairs, own: np.ndarray, queries: int, margin: float) -> np.ndarray:
    """What a query's negatives may score at most, [queries]; a mean below 0 is lowered, too."""
    count = np.maximum(np.bincount(pairs.query, minlength=queries), 1)
    mean = np.bincount(pairs.query, own, minlength=queries) / count
    return mean - (1 - margin) * np.abs(mean)


def _forbidden(prepared: Prepared, found: Found) -> np.ndarray:
    """bool[M]: judged for the query, or with the picture or the title of a document that is relevant for it."""
    pairs, judged, size = prepared.pairs, prepared.not_relevant, len(prepared.documents)
    known = np.concatenate([pairs.query * size + pairs.document, judged.query * size + judged.document])
    forbidden = np.isin(found.query * size + found.document, known)
    schema = prepared.schema.document
    titles = title_fields(schema)[:1]
    for name in [name for name, spec in schema.items() if spec.modality is Modality.image] + titles:
        code = prepared.documents.hashes(name).codes()
        own = code[pairs.document]
        twins = np.unique((pairs.query * size + own)[own >= 0])
        same = code[found.document]
        forbidden |= (same >= 0) & np.isin(found.query * size + same, twins)
    return forbidden
