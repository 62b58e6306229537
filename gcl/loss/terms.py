"""From the parts of a batch to the problems the loss sums over: each a complete contrastive loss of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gcl.data.batches.lookups import KnownScores, TeacherVectors
from gcl.loss.judged import Scale, Targets, spread
from gcl.loss.settings import Direction, Form, Normalizer, Repeat, SigmoidWeight, Target, Term
from gcl.loss.targets import Relations, Weights, more, relate


class Part(NamedTuple):
    """Embeddings of one side's records or of one field of theirs.

    embedding[N, D]: unit vectors; present[N]: bool, None where all are.
    """

    embedding: Tensor
    present: Tensor | None = None

    def take(self, rows: Tensor) -> Part:
        return Part(self.embedding[rows], None if self.present is None else self.present[rows])


class Teaching(NamedTuple):
    """How much a teacher counts beside the pairs, and what its cosines or scores are divided by."""

    weight: float = 1.0
    temperature: float = 1.0


class Options(NamedTuple):
    """How a term counts; gcl.loss.gcl.GCLLoss explains each."""

    form: Form
    direction: Direction
    normalizer: Normalizer
    same_query: Repeat
    same_document: Repeat
    sigmoid_weight: SigmoidWeight
    target: Target
    teaching: Teaching
    false_negative: float | None = None


class Known(NamedTuple):
    """What is known of a batch besides its pairs; gcl.data.batches.lookups. weight[K]: of each judgment."""

    judged: KnownScores | None = None
    weight: Tensor | None = None
    teacher: TeacherVectors | KnownScores | None = None


NOTHING = Known()


class Problem(NamedTuple):
    """A term's contrastive loss, ready to compute: the n pairs that have both its parts.

    query[n, D], document[n + e, D]: of all ranks, the documents of the pairs and then the e additional ones, which are
    nobody's target; targets: what is judged besides the diagonal, None where the diagonal alone is a target;
    coefficient: of the term in the sum; teacher: whose softmaxes are the targets instead, with its similarities divided
    by the temperature; margin: of gcl.loss.margin.
    """

    query: Tensor
    document: Tensor
    weights: Weights
    relations: Relations
    targets: Targets | None
    coefficient: float
    form: Form
    teacher: TeacherVectors | None = None
    margin: float | None = None


def pose(
    term: Term,
    query: Mapping[str, Part],
    document: Mapping[str, Part],
    *,
    weight: Tensor,
    query_id: Tensor,
    document_id: Tensor,
    options: Options,
    known: Known = NOTHING,
) -> list[Problem]:
    """The parts, weight[N], query_id[N], document_id[N] -> the term's problem, and what a teacher adds to it.

    KeyError for a part that is absent. Documents and both ids may go on for E additional documents, each of the query
    that it is a negative of.
    """
    left, right = part_of(query, term.query, "query"), part_of(document, term.document, "document")
    x, y = left.embedding, right.embedding
    if not len(x) == len(weight) <= len(y) == len(query_id) == len(document_id):
        raise ValueError(
            f"Term {term.query} x {term.document}: {len(x)} query rows, {len(y)} document rows, {len(weight)} scores, "
            f"{len(query_id)} query ids and {len(document_id)} document ids; expected one of each per pair."
        )
    teacher = known.teacher
    kept = right.present
    if left.present is not None:
        kept = torch.ones(len(y), dtype=torch.bool, device=y.device) if kept is None else kept.clone()
        kept[: len(x)] &= left.present
    if kept is not None and not bool(kept.all()):
        index, rows = kept.nonzero().squeeze(1), kept[: len(x)].nonzero().squeeze(1)
        x, weight = x[rows], weight[rows]
        y, query_id, document_id = (v[index] for v in (y, query_id, document_id))
        teacher = TeacherVectors._make(v[rows] for v in teacher) if isinstance(teacher, TeacherVectors) else teacher
    pairs = len(x)
    ids = {"query_id": query_id[:pairs], "document_id": document_id[:pairs]}
    relations = relate(**ids, same_query=options.same_query, same_document=options.same_document)
    if len(y) > pairs:
        of = known.judged
        relevant = (ids["query_id"], ids["document_id"]) if of is None else (of.query, of.document)
        relations = relations._replace(additional=more(query_id, document_id, pairs=pairs, relevant=relevant))
    every = relations._replace(repeats=False)  # what shares a query or a document is judged: no rule applies
    margin = options.false_negative
    if known.judged is None or known.weight is None:
        weights = share_weights(weight, options.direction, options.normalizer, options.sigmoid_weight)
        problem = Problem(x, y, weights, relations, None, term.weight, options.form, margin=margin)
    else:
        weights, value, scale = _judged_weights(weight, known.weight, options)
        targets = spread(known.judged, value, **ids, relations=every, scale=scale)
        problem = Problem(x, y, weights, every, targets, term.weight, options.form, margin=margin)
    if teacher is None:
        return [problem]
    lesson = problem._replace(
        document=y if len(y) == pairs else y[:pairs], relations=every._replace(additional=None), targets=None,
        coefficient=term.weight * options.teaching.weight, margin=None,
    )  # fmt: skip
    return [problem, taught(lesson, teacher, ids, options)]


def _judged_weights(weight: Tensor, value: Tensor, options: Options) -> tuple[Weights, Tensor, Scale]:
    """weight[n] of the pairs and value[K] of the judgments -> what pairs count, what judgments count, and how."""
    if options.target == Target.sigmoid:  # the weight is a probability, so every entry counts the same
        return _equal(len(weight), weight, options), value, Scale.none
    weights = share_weights(weight, options.direction, options.normalizer, options.sigmoid_weight)
    return weights, (value > 0).to(value.dtype) if options.target == Target.positives else value, Scale.share


def taught(
    problem: Problem, teacher: TeacherVectors | KnownScores, ids: Mapping[str, Tensor], options: Options
) -> Problem:
    """The problem whose targets are a teacher's similarities, or the softmax of the scores it gave to lists. Pairs of
    which the teacher has no vector are left out."""
    if isinstance(teacher, TeacherVectors):
        query, document = (v.to(problem.query) for v in teacher)
        seen = query.any(1) & document.any(1)
        if not bool(seen.all()):
            query, document = query[seen], document[seen]
            problem = problem._replace(query=problem.query[seen], document=problem.document[seen])
        vectors = TeacherVectors(query / options.teaching.temperature, document)
        return problem._replace(weights=_equal(len(query), problem.query, options), teacher=vectors)
    value = teacher.score.to(problem.query) / options.teaching.temperature
    targets = spread(teacher, value, **ids, relations=problem.relations, scale=Scale.softmax)
    rows, columns = targets.lists(problem.relations)
    weights = _equal(len(problem.query), problem.query, options)
    weights = weights._replace(row=weights.row * rows, column=weights.column * columns)
    return problem._replace(weights=weights, targets=targets, form=Form.softmax)


def _equal(count: int, like: Tensor, options: Options) -> Weights:
    """Of `count` pairs that all count the same."""
    return share_weights(like.new_ones(count), options.direction, Normalizer.count, SigmoidWeight.pair)


def part_of(parts: Mapping[str, Part], name: str, side: str) -> Part:
    if name not in parts:
        raise KeyError(f"A term needs the {side} part {name!r}; the batch has {', '.join(sorted(parts)) or 'none'}.")
    return parts[name]


def share_weights(weight: Tensor, direction: Direction, normalizer: Normalizer, negatives: SigmoidWeight) -> Weights:
    """weight[n] -> Weights, divided by Z, which is their sum or n; all 0 where that is 0.

    >>> share_weights(torch.tensor([1.0, 3.0]), Direction.both, Normalizer.weight, SigmoidWeight.pair).row
    tensor([0.1250, 0.3750])
    """
    total = weight.sum() if normalizer == Normalizer.weight else weight.new_tensor(float(len(weight)))
    target = weight / total.masked_fill(total == 0, 1.0)
    spread = target if negatives == SigmoidWeight.pair else torch.full_like(target, 1 / max(len(target), 1))
    rows = {Direction.both: 0.5, Direction.query: 1.0, Direction.document: 0.0}[direction]
    additional = spread if rows else 0 * spread
    return Weights(row=rows * spread, column=(1 - rows) * spread, target=target, additional=additional)
