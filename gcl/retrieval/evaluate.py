"""embed, search, measure: the three calls behind validation during training and every evaluation.

1. The audit refuses a task whose numbers would mean something else than they say.
2. `embed_shared` embeds each store once, the union of the rows that any task needs: tasks usually share them.
3. The fields' embeddings are fused, and `search` finds the k nearest documents of each query.
4. `result_of` looks up the relevance of what was found and measures it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gcl.data.store.records import Records
from gcl.data.titles import title_of
from gcl.files.progress import doing
from gcl.model.dual_encoder import DualEncoder
from gcl.model.query_weights import QueryWeights
from gcl.model.rotation import Rotation
from gcl.retrieval.embedding.embed import DEFAULTS, EmbedOptions, EmbedsRecords, FieldEmbeddings, embed
from gcl.retrieval.embedding.quantize import VectorFormat, compress
from gcl.retrieval.metrics.metrics import Reads, depth, measure, parse_metric
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import with_ties
from gcl.retrieval.settings import TieRule
from gcl.retrieval.tasks.audit import Audit
from gcl.retrieval.tasks.task import RetrievalTask, Run
from gcl.schema import SideName

_BY_TREC_EVAL = ("ndcg", "map", "recall", "precision")
DEFAULT_METRICS = ("ndcg@10", "mrr@10", "recall@10", "recall@50", "map@100", "precision@10")


@dataclass(frozen=True)
class TaskResult:
    """One model on one task: a number per query and metric, and the results they were computed from.

    title: what people call the task. width: D of the embeddings. fields: vectors of each document, several where
    queries weigh its fields. smaller: {format: {metric: [Q]}} of the same with smaller vectors.
    """

    task: str
    values: dict[str, np.ndarray]  # {metric: [Q]}
    score: np.ndarray  # [Q, K] float32
    row: np.ndarray  # [Q, K] corpus positions
    query_ids: Sequence[str] = field(repr=False)
    document_ids: Sequence[str] = field(repr=False)
    audit: Audit | None = None
    title: str = ""
    width: int = 0
    fields: int = 1
    smaller: Mapping[VectorFormat, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or title_of(self.task))

    @property
    def queries(self) -> int:
        return len(self.row)

    @property
    def means(self) -> dict[str, float]:
        return {name: float(value.mean()) if len(value) else float("nan") for name, value in self.values.items()}

    @property
    def run(self) -> Run:
        """`{query id: [(document id, score)]}`, best first."""
        return {
            str(query): [(str(self.document_ids[r]), float(s)) for r, s in zip(rows, scores, strict=True) if r >= 0]
            for query, rows, scores in zip(self.query_ids, self.row, self.score, strict=True)
        }


def evaluate(
    encoder: DualEncoder | EmbedsRecords,
    tasks: Sequence[RetrievalTask],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    k: int | None = None,
    query_weights: Mapping[str, float] | None = None,
    document_weights: Mapping[str, float] | None = None,
    ties: TieRule | str = TieRule.ascending,
    forms: Sequence[VectorFormat] = (),
    rotation: Rotation | None = None,
    embedding: EmbedOptions = DEFAULTS,
    embedded: Sequence[tuple[FieldEmbeddings, FieldEmbeddings]] | None = None,
) -> dict[str, TaskResult]:
    """{task name: TaskResult}.

    Raises ValueError, before anything is embedded, for a misspelt metric and for a task too broken to be measured.

    k: documents retrieved per query; by default the largest cutoff among the metrics.
    query_weights, document_weights: field weights other than the schema's; a task's own document_weights come first.
    forms: smaller vectors to measure with the same queries, documents and metrics; rotated ones where there is a
        rotation.
    embedding: how records are embedded (batch size, workers, device, cache, frozen trunks' features …).
    embedded: queries and corpus of each task, embedded already.
    """
    for name in metrics:
        parse_metric(name)
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"Two tasks have the same name: {sorted(n for n in set(names) if names.count(n) > 1)}.")
    audits = {task.name: task.audit.check() for task in tasks}
    k = k or depth(metrics) or 1000
    pairs = embedded if embedded is not None else embed_tasks(encoder, tasks, embedding)
    results, corpus = {}, LastFused()
    with doing("Searching and measuring"):
        for task, (query, document) in zip(tasks, pairs, strict=True):
            asked = query.fused(query_weights)
            weights = document_weights if task.document_weights is None else task.document_weights
            vectors, gate = corpus.searched(document, weights), document.gate(weights)
            score, row = search(asked if gate is None else gate.asked(asked), vectors, k, rank=task.id_ranks)
            result = result_of(task, score, row, metrics, ties=ties, audited=audits[task.name])
            smaller = {}
            for form in [form for form in forms if rotation is not None or not form.rotated]:
                score, row = search(*_smaller(asked, vectors, form, rotation, gate), k, rank=task.id_ranks)
                smaller[form] = result_of(task, score, row, metrics, ties=ties).values
            fields = vectors.shape[1] // asked.shape[1]
            results[task.name] = replace(result, width=asked.shape[1], fields=fields, smaller=smaller)
    return results


def _smaller(
    asked: np.ndarray, vectors: np.ndarray, form: VectorFormat, rotation: Rotation | None, gate: QueryWeights | None
) -> tuple[np.ndarray, np.ndarray]:
    """`compress`; where queries weigh the fields, of each field's vectors, by the weights of the query at full size."""
    if gate is None:
        return compress(asked, vectors, form, rotation)
    query, fields = compress(asked, vectors.reshape(-1, asked.shape[1]), form, rotation)
    return gate.asked(asked, query), fields.reshape(len(vectors), -1)


class LastFused:
    """Remembers the vectors that were made last: tasks with the very same corpus and weights share them."""

    def __init__(self) -> None:
        self._last: tuple[FieldEmbeddings, Mapping[str, float] | None, np.ndarray] | None = None

    def searched(self, embeddings: FieldEmbeddings, weights: Mapping[str, float] | None) -> np.ndarray:
        """[M, D], or [M, K D] where queries weigh the fields."""
        if self._last is None or self._last[0] is not embeddings or self._last[1] != weights:
            self._last = embeddings, weights, embeddings.searched(weights)
        return self._last[2]


def result_of(
    task: RetrievalTask,
    score: np.ndarray,
    row: np.ndarray,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    ties: TieRule | str = TieRule.ascending,
    audited: Audit | None = None,
) -> TaskResult:
    """Measures results that are already there: score[Q, K], row[Q, K] corpus positions (-1: none).

    ties: how equal scores are ordered before measuring.
    """
    rule = TieRule(ties)
    if rule is TieRule.published:
        by_id = [name for name in metrics if parse_metric(name).family in _BY_TREC_EVAL]
        in_list = [name for name in metrics if name not in by_id]
        result = result_of(task, score, row, in_list, ties=TieRule.listed, audited=audited)
        values = result.values | result_of(task, score, row, by_id, ties=TieRule.descending).values
        return replace(result, values={name: values[name] for name in metrics})
    if rule is not TieRule.ascending:
        score, row = with_ties(score, row, task.id_ranks, rule)
    gains = task.judgments.gains(row, len(task.corpus))
    covered = any(parse_metric(name).metric.reads is Reads.status for name in metrics)
    values = measure(
        metrics,
        gains=gains,
        judged=task.judgments.by_query(len(task.queries)),
        status=task.judgments.status(row, len(task.corpus)) if covered else None,
    )
    return TaskResult(task.name, values, score, row, task.queries.ids, task.corpus.ids, audited, task.title)


def embed_tasks(
    encoder: DualEncoder | EmbedsRecords, tasks: Sequence[RetrievalTask], options: EmbedOptions = DEFAULTS
) -> list[tuple[FieldEmbeddings, FieldEmbeddings]]:
    """Queries and corpus of each task, field by field; what they share is embedded once."""
    queries = embed_shared(encoder, [task.queries for task in tasks], "query", options)
    return list(zip(queries, embed_corpora(encoder, tasks, options), strict=True))


def embed_corpora(
    encoder: DualEncoder | EmbedsRecords, tasks: Sequence[RetrievalTask], options: EmbedOptions = DEFAULTS
) -> list[FieldEmbeddings]:
    """Embeddings of each task's corpus, without the fields that the task hides. Equal ones are one object."""
    whole = embed_shared(encoder, [task.corpus for task in tasks], "document", options)
    shown: dict[tuple[int, tuple[str, ...]], FieldEmbeddings] = {}
    return [
        shown.setdefault((id(embedded), task.hidden), embedded.without(task.hidden))
        for task, embedded in zip(tasks, whole, strict=True)
    ]


def embed_shared(
    encoder: DualEncoder | EmbedsRecords,
    wanted: Sequence[Records],
    side: SideName,
    options: EmbedOptions = DEFAULTS,
) -> list[FieldEmbeddings]:
    """Embeddings of each of `wanted`. Parts of one store are embedded once; equal parts are one object."""
    groups: dict[int, list[int]] = {}
    for position, records in enumerate(wanted):
        groups.setdefault(id(getattr(records, "store", records)), []).append(position)
    result: dict[int, FieldEmbeddings] = {}
    for positions in groups.values():
        parts = [wanted[position] for position in positions]
        rows = np.unique(np.concatenate([part.rows for part in parts]))
        store = getattr(parts[0], "store", parts[0])
        whole = len(rows) == len(store)
        embedded = embed(encoder, store if whole else store.subset(rows), side, options)
        taken: dict[bytes, FieldEmbeddings] = {}
        for position, part in zip(positions, parts, strict=True):
            key = np.ascontiguousarray(part.rows).tobytes()
            if key not in taken:
                all_of_them = len(part.rows) == len(rows) and bool((part.rows == rows).all())
                taken[key] = embedded if all_of_them else embedded.take(np.searchsorted(rows, part.rows))
            result[position] = taken[key]
    return [result[position] for position in range(len(wanted))]
