"""From the parts of a batch to the problems the loss sums over: each a complete contrastive loss of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gcl.data.batches.judgments import Judged
from gcl.loss.judged import Targets, spread
from gcl.loss.settings import Direction, Normalizer, Repeat, SigmoidWeight, Target, Term
from gcl.loss.targets import Relations, Weights, relate


class Part(NamedTuple):
    """Embeddings of one side's records or of one field of theirs.

    embedding[N, D]: unit vectors; present[N]: bool, None where all are.
    """

    embedding: Tensor
    present: Tensor | None = None


class Options(NamedTuple):
    """How a term counts; gcl.loss.gcl.GCLLoss explains each."""

    direction: Direction
    normalizer: Normalizer
    same_query: Repeat
    same_document: Repeat
    sigmoid_weight: SigmoidWeight
    target: Target


class Problem(NamedTuple):
    """A term's contrastive loss, ready to compute: the n pairs that have both its parts.

    query[n, D], document[n, D]: of all ranks; coefficient: of the term in the sum; targets: what is judged besides the
    diagonal, None where the diagonal alone is a target.
    """

    query: Tensor
    document: Tensor
    weights: Weights
    relations: Relations
    coefficient: float
    targets: Targets | None = None


def pose(
    term: Term,
    query: Mapping[str, Part],
    document: Mapping[str, Part],
    *,
    weight: Tensor,
    query_id: Tensor,
    document_id: Tensor,
    options: Options,
    judged: tuple[Judged, Tensor] | None = None,
) -> Problem:
    """The parts, weight[N], query_id[N], document_id[N] -> the term's Problem. KeyError for a part that is absent.

    judged: with a target other than "pair", what is known of the batch, and the weight[K] of each judgment.
    """
    left, right = part_of(query, term.query, "query"), part_of(document, term.document, "document")
    x, y = left.embedding, right.embedding
    if not len(x) == len(y) == len(weight) == len(query_id) == len(document_id):
        raise ValueError(
            f"Term {term.query} x {term.document}: {len(x)} query rows, {len(y)} document rows, {len(weight)} scores, "
            f"{len(query_id)} query ids and {len(document_id)} document ids; expected one of each per pair."
        )
    present = [part.present for part in (left, right) if part.present is not None]
    kept = torch.stack(present).all(0) if present else None
    if kept is not None and not bool(kept.all()):
        index = kept.nonzero().squeeze(1)
        x, y, weight, query_id, document_id = (v[index] for v in (x, y, weight, query_id, document_id))
    relations = relate(query_id, document_id, options.same_query, options.same_document)
    if judged is None:
        weights = share_weights(weight, options.direction, options.normalizer, options.sigmoid_weight)
        return Problem(x, y, weights, relations, term.weight)
    relations = relations._replace(repeats=False)  # what shares a query or a document is judged: no rule applies
    known, value = judged
    if options.target == Target.sigmoid:  # the weight is a probability, so every entry counts the same
        weights = share_weights(torch.ones_like(weight), options.direction, Normalizer.count, SigmoidWeight.pair)
    else:
        weights = share_weights(weight, options.direction, options.normalizer, options.sigmoid_weight)
        value = (value > 0).to(value.dtype) if options.target == Target.positives else value
    targets = spread(
        known, value, query_id=query_id, document_id=document_id, relations=relations,
        sums=options.target != Target.sigmoid,
    )  # fmt: skip
    return Problem(x, y, weights, relations, term.weight, targets)


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
    return Weights(row=rows * spread, column=(1 - rows) * spread, target=target)
