"""Hard negatives: documents that a query finds, or nearly finds, and that nobody judged relevant for it.

1. `_found`: the training documents at the places `ranks` of every training query's results: by the model's fused
   vectors in an exact search on all ranks, by BM25, or as a table names them.
2. `_forbidden`: never a document that was judged for the query, nor one with the picture or the title of a document
   that is relevant for it.
3. The margin: never one that scores more than `margin` times the mean of the query's own documents (positive-aware
   mining, Moreira et al. 2024, https://arxiv.org/abs/2407.15831); what scores higher is more often unjudged than wrong.

The last two look at some queries at a time, so that a million of them need no more memory than their results. Held-out
queries and documents take no part. On every rank the result is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gcl.data.batches.negatives import Mined
from gcl.data.batches.settings import HardNegatives, Miner
from gcl.data.store.prepared import Prepared
from gcl.data.store.records import texts_of, title_fields
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.names import rows_by_name
from gcl.data.tables.of_queries import NEGATIVES, negatives_table
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.search.bm25 import BM25
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import id_ranks
from gcl.schema import Modality, SideName, SideWeights

logger = logging.getLogger(__name__)
_AT_ONCE = 1 << 20  # candidates that are looked at together


class _Trained(NamedTuple):
    """The training half: rows of the stores, ascending, and of each training pair its places among them."""

    query: np.ndarray
    document: np.ndarray
    query_of_pair: np.ndarray
    document_of_pair: np.ndarray


class _Results(NamedTuple):
    """score[Q, K] and document[Q, K] of the training queries, places among the training documents, -1 where there is
    none; own[P]: what the training pairs score."""

    score: np.ndarray
    document: np.ndarray
    own: np.ndarray


def mine(
    encoder: DualEncoder, prepared: Prepared, settings: HardNegatives, options: EmbedOptions,
    weights: SideWeights | None = None,
) -> Mined:  # fmt: skip
    """weights: of the sides whose field weights are trained with the loss, as they are now.

    Raises ValueError for a table that names no query and document of training.
    """
    trained = _trained(prepared)
    if settings.source is Miner.file:
        found = _of_file(prepared, trained, Path(str(settings.file)))
        most = None
    else:
        if settings.ranks[0] > len(trained.document):
            raise ValueError(
                f"plan.hard_negatives.ranks={settings.ranks}: the training half has {len(trained.document):,} "
                "products, so no result has such a place."
            )
        if settings.source is Miner.model:
            results = _by_model(encoder, prepared, trained, settings.ranks[1], options, weights or {})
        else:
            results = _by_words(prepared, trained, settings.ranks[1])
        found = _at_ranks(trained, results, settings.ranks[0])
        most = None if settings.margin is None else _most(trained, results.own, settings.margin)
    forbidden, kept = _Forbidden(prepared), []
    for one in found:
        keep = ~forbidden(one)
        if most is not None:
            keep &= one.score <= most[np.searchsorted(trained.query, one.query)]
        kept.append(Mined(one.query[keep], one.document[keep], one.score[keep].astype(np.float32)))
    return Mined(*(np.concatenate(columns) for columns in zip(*kept, strict=True)))


def _trained(prepared: Prepared) -> _Trained:
    pairs = prepared.pairs
    query = np.unique(pairs.query)
    document = np.unique(np.concatenate([pairs.document, prepared.not_relevant.document]))
    return _Trained(query, document, np.searchsorted(query, pairs.query), np.searchsorted(document, pairs.document))


def _by_model(
    encoder: DualEncoder, prepared: Prepared, trained: _Trained, k: int, options: EmbedOptions, weights: SideWeights
) -> _Results:
    def vectors(side: SideName) -> np.ndarray:
        store, rows = (prepared.queries if side == "query" else prepared.documents), getattr(trained, side)
        return embed(encoder, store.subset(rows), side, options).fused(weights.get(side))

    query, document = vectors("query"), vectors("document")
    score, found = search(query, document, k, rank=id_ranks(prepared.documents.ids[trained.document]))
    pairs = len(trained.query_of_pair)
    own = np.concatenate([
        np.einsum("pd,pd->p", query[trained.query_of_pair[part]], document[trained.document_of_pair[part]])
        for part in np.array_split(np.arange(pairs), 1 + pairs // 4096)
    ])  # fmt: skip
    return _Results(score, found, own)


def _by_words(prepared: Prepared, trained: _Trained, k: int) -> _Results:
    asked = texts_of(prepared.queries.subset(trained.query))
    texts = texts_of(prepared.documents.subset(trained.document))
    if not any(asked) or not any(texts):
        raise ValueError("plan.hard_negatives.source=bm25 needs a text field on both sides: take source=model.")
    scorer = BM25(texts)
    score, found = scorer.search(asked, k, rank=id_ranks(prepared.documents.ids[trained.document]))
    return _Results(score, found, scorer.scores(asked, trained.query_of_pair, trained.document_of_pair))


def _at_ranks(trained: _Trained, results: _Results, first: int) -> Iterator[Mined]:
    """Some queries' results from the place `first` on, counted from 1, at a time."""
    score, found = results.score[:, first - 1 :], results.document[:, first - 1 :]
    step = max(1, _AT_ONCE // max(found.shape[1], 1))
    for start in range(0, len(found), step):
        part = found[start : start + step]
        q, k = np.nonzero(part >= 0)
        yield Mined(trained.query[start + q], trained.document[part[q, k]], score[start + q, k])


def _of_file(prepared: Prepared, trained: _Trained, path: Path) -> Iterator[Mined]:
    table = negatives_table(str(path))
    queries = rows_by_name(prepared.queries.subset(trained.query), texts=True)
    documents = rows_by_name(prepared.documents.subset(trained.document))
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
    yield Mined(trained.query[query], trained.document[document], np.zeros(len(query), np.float32))


def _most(trained: _Trained, own: np.ndarray, margin: float) -> np.ndarray:
    """What a training query's negatives may score at most, [Q]; a mean below 0 is lowered, too."""
    mean = np.bincount(trained.query_of_pair, own) / np.bincount(trained.query_of_pair)
    return mean - (1 - margin) * np.abs(mean)


class _Forbidden:
    """found -> bool[M]: judged for the query, or with the picture or the title of a document relevant for it."""

    def __init__(self, prepared: Prepared) -> None:
        pairs, judged, self._size = prepared.pairs, prepared.not_relevant, len(prepared.documents)
        both = [np.concatenate([getattr(one, side) for one in (pairs, judged)]) for side in ("query", "document")]
        self._known = [(np.arange(self._size), self._keys(*both))]
        schema = prepared.schema.document
        titles = title_fields(schema)[:1]
        for name in [name for name, spec in schema.items() if spec.modality is Modality.image] + titles:
            code = prepared.documents.hashes(name).codes()  # of each document, below 0 where it has none
            own = code[pairs.document]
            self._known.append((code, self._keys(pairs.query[own >= 0], own[own >= 0])))

    def _keys(self, query: np.ndarray, code: np.ndarray) -> np.ndarray:
        """Numbers of the pairs of a query and of what documents have in common, ascending."""
        return np.unique(query * self._size + code)

    def __call__(self, found: Mined) -> np.ndarray:
        forbidden = np.zeros(len(found.query), dtype=bool)
        for code, known in self._known:
            if len(known):
                same = code[found.document]
                key = found.query * self._size + same
                place = np.minimum(np.searchsorted(known, key), len(known) - 1)
                forbidden |= (same >= 0) & (known[place] == key)
        return forbidden
