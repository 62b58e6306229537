"""Generalized contrastive learning (Zhu, Jung and Clark 2024, https://arxiv.org/abs/2404.08535): the loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gcl.data.batches.lookups import KnownScores, TeacherVectors
from gcl.loss.judged import of_pairs
from gcl.loss.reference import whole_loss
from gcl.loss.settings import (
    FUSED,
    Direction,
    Form,
    LossConfig,
    Normalizer,
    Repeat,
    SigmoidWeight,
    Target,
    Term,
    check_target,
    check_terms,
    check_tile,
)  # fmt: skip
from gcl.loss.targets import count_ignored
from gcl.loss.terms import Known, Options, Part, Problem, Teaching, pose
from gcl.loss.tiled import tiled_loss
from gcl.loss.weight import constant
from gcl.options import Choice, check_numbers

C = TypeVar("C", bound=Choice)


class LossOutput(NamedTuple):
    """What a forward pass gives; all but `loss` is for logging and carries no gradient.

    loss: scalar to call backward on. Its value is that of all ranks, the same on each, so it is what to log as well.
    terms[T]: value of each term before its coefficient, over all ranks.
    masked: share of the off-diagonal entries that the rules same_query and same_document leave out, 0 to 1.
    absent: share of the pairs that terms leave out because a part is absent, 0 to 1.
    scale, bias: as used.
    teacher: of the terms, as much as they count, what the teacher adds before its weight; None without a teacher.
    """

    loss: Tensor
    terms: Tensor
    masked: float
    absent: float
    scale: Tensor
    bias: Tensor
    teacher: Tensor | None = None


class GCLLoss(nn.Module):
    """Weighted contrastive loss of N pairs; owns the scale (temperature), the bias and the rules.

    gcl/loss/reference.py is the same loss as a readable formula on the whole matrix; gcl/loss/tiled.py is what runs.

    With w = score_to_weight(score), s_ij = scale * query_i . document_j + bias, and Z = sum w (normalizer "weight") or
    N ("count"):

    softmax:  L = 1/Z sum_i w_i (CE(row i) + CE(column i)) / 2. The bias drops out. w = 1 is CLIP's loss.
    sigmoid:  L = 1/Z (sum_i w_i softplus(-s_ii) + sum over negatives of (w_i + w_j) / 2 softplus(s_ij)).
              w = 1 is SigLIP's loss.

    Weights of any one value give the same as 1 under "weight". gcl.loss.targets says which entries are negatives when
    queries and documents repeat.

    A score of 0 says "not relevant", as it does where a model is measured: such a pair has no row and is nobody's
    target. Its document is one more that queries choose among, a negative of its own query as well, and counts as often
    as it is given; in the sigmoid form w_i stands in place of (w_i + w_j) / 2. It belongs in a batch that holds a
    better pair of its query.

    target: "pair", as above; or all that is judged of the batch, A_ij being the weight of the judgment of i's query and
        j's document, 0 where there is none. Softmax: CE(row i) against A_ij / sum_k A_ik, CE(column j) against
        A_ij / sum_k A_kj ("graded"), or the same with 1 for every A above 0 ("positives"). "sigmoid": L = 1/N sum of
        A_ij softplus(-s_ij) + (1 - A_ij) softplus(s_ij), with weights from 0 to 1. No rule of repeats then applies.
    direction: "query" keeps the rows, in which a query chooses among documents: w_i CE(row i), and w_i in place of
        (w_i + w_j) / 2. "document" keeps the columns.
    sigmoid_weight: "pair" lets a pair's weight count for its target and for its negatives, as the softmax form does;
        "target" for its target alone, GCL's weighted ground-truth matrix to the letter: a negative then counts 1/N.
    false_negative: leaves out negatives that the model puts above the target by more than this margin, a difference of
        cosines (gcl.loss.margin). None: all count.
    terms: the loss is the sum of the terms, each times its weight. A term sees the pairs that have both its parts: it
        is the loss of a batch without the others, Z and N included.
    teaching: a teacher's weight, and the temperature that divides its cosines or scores. Given its vectors, every term
        has in addition KL(T || P), averaged over rows and columns, where T is the softmax over the batch of the
        teacher's similarities and P of the student's (gcl.loss.distill). Given scores of lists, the softmax form's
        cross-entropy against the softmax of each query's scores, for lists of at least two.
    scale, bias: where they start, the scale itself and not its logarithm. By default 1 / 0.07 and 0 (softmax), 10 and
        -10 (sigmoid).
    max_scale: a step that leaves it is projected back before the scale is used, so its gradient never dies. A
        checkpoint that starts above it keeps its own value as the bound. None: no bound.
    tile: side of the square blocks of similarities in memory; "auto"; None for the whole matrix, ordinary autograd.

    >>> query, document = (torch.nn.functional.normalize(torch.eye(3) + x, dim=-1) for x in (0.1, 0.2))
    >>> loss, ids = GCLLoss(form="softmax", scale=10.0), torch.arange(3)
    >>> score = torch.tensor([100.0, 50.0, 1.0])
    >>> output = loss({"fused": Part(query)}, {"fused": Part(document)}, score=score, query_id=ids, document_id=ids)
    >>> round(output.loss.item(), 4), loss(query, document, score=score).loss.item() == output.loss.item()
    (0.0013, True)
    """

    log_scale: Tensor
    bias: Tensor
    score_to_weight: Callable[[Tensor], Tensor]

    def __init__(
        self,
        *,
        form: Form | str = Form.softmax,
        score_to_weight: Callable[[Tensor], Tensor] = constant,
        direction: Direction | str = Direction.both,
        normalizer: Normalizer | str = Normalizer.weight,
        target: Target | str = Target.pair,
        same_query: Repeat | str = Repeat.ignore,
        same_document: Repeat | str = Repeat.ignore,
        terms: Sequence[Term | Mapping] = (Term(),),
        sigmoid_weight: SigmoidWeight | str = SigmoidWeight.pair,
        teaching: Teaching | None = None,
        false_negative: float | None = None,
        scale: float | None = None,
        bias: float | None = None,
        learn_scale: bool = True,
        learn_bias: bool = True,
        max_scale: float | None = 100.0,
        tile: int | Literal["auto"] | None = "auto",
    ) -> None:
        super().__init__()
        self.form = _choose("form", Form, form)
        softmax = self.form == Form.softmax
        spread = _choose("sigmoid_weight", SigmoidWeight, sigmoid_weight)
        self.options = Options(
            form=self.form,
            direction=_choose("direction", Direction, direction),
            normalizer=_choose("normalizer", Normalizer, normalizer),
            same_query=_choose("same_query", Repeat, same_query),
            same_document=_choose("same_document", Repeat, same_document),
            sigmoid_weight=SigmoidWeight.pair if softmax else spread,
            target=_choose("target", Target, target),
            teaching=teaching or Teaching(),
            false_negative=false_negative,
        )
        check_target(self.options.target, self.form)
        check_tile(tile)
        self.tile = tile
        self.score_to_weight = score_to_weight
        self.terms = tuple(term if isinstance(term, Term) else Term(**term) for term in terms)
        check_terms(self.terms)
        check_numbers(LossConfig(false_negative=false_negative, scale=scale, terms=list(self.terms)))
        scale = (1 / 0.07 if softmax else 10.0) if scale is None else float(scale)
        bias = (0.0 if softmax else -10.0) if bias is None else float(bias)
        self.max_scale = None if max_scale is None else max(float(max_scale), scale)
        self._hold("log_scale", math.log(scale), learn_scale)
        self._hold("bias", bias, learn_bias and not softmax)

    def _hold(self, name: str, value: float, learn: bool) -> None:
        # A buffer where there is no gradient (the bias of the softmax form): DistributedDataParallel waits for every
        # parameter's.
        tensor = torch.tensor(value)
        if learn:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def clamp_(self) -> None:
        """Puts the scale back to its bound. A forward pass begins with it; call it before saving the scale too."""
        if self.max_scale is not None:
            # .data: a second forward pass before the first one's backward pass must not count as a change in between.
            self.log_scale.data.clamp_(max=math.log(self.max_scale))

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def forward(
        self,
        query: Tensor | Mapping[str, Part],
        document: Tensor | Mapping[str, Part],
        *,
        score: Tensor | None = None,
        query_id: Tensor | None = None,
        document_id: Tensor | None = None,
        judged: KnownScores | None = None,
        teacher: TeacherVectors | KnownScores | None = None,
    ) -> LossOutput:
        """query, document: {part: Part of [N, D]}, or [N, D] where a side is one vector; score[N], all 1 if there is
        none and 0 for a pair that is not relevant; query_id[N], document_id[N]: integers, by default all different.
        judged: where `target` asks for it, what is known of these ids, each (query, document) once; None: what the
        pairs themselves say. teacher: its vectors of the N pairs, or the scores it gave.

        N are the pairs of all ranks, and every rank passes all of them, with embeddings that came through gather_rows.
        Gradients that the ranks then average, as DistributedDataParallel does, are exactly those of the loss over N.
        Computes in float32 at least, whatever autocast says. Raises ValueError for a negative or infinite weight and
        for lengths that differ, KeyError for a part that a term names and the batch lacks.
        """
        self.clamp_()
        query, document = (x if isinstance(x, Mapping) else {FUSED: Part(x)} for x in (query, document))
        first = next(iter(query.values())).embedding
        count = torch.arange(len(first), device=first.device)
        score = first.new_ones(len(first), dtype=torch.float32) if score is None else score
        query_id, document_id = (count if ids is None else ids for ids in (query_id, document_id))
        with torch.autocast(score.device.type, enabled=False):
            known = Known(judged, None, teacher)
            problems, lessons = self._problems(query, document, score, query_id, document_id, known)
            every = [*problems, *lessons]
            dtype = problems[0].query.dtype
            scale, bias = self.scale.to(dtype), self.bias.to(dtype)
            if self.tile is None:
                terms = torch.stack([whole_loss(p, scale=scale, bias=bias) for p in every])
                loss = terms @ terms.new_tensor([problem.coefficient for problem in every])
            else:
                loss, terms = tiled_loss(every, scale=scale, bias=bias, tile=self.tile)
            terms, learned = terms.detach().split([len(problems), len(lessons)])
        kept = [len(problem.query) for problem in problems]
        entries = sum(len(problem.query) * (len(problem.document) - 1) for problem in problems)
        masked = sum(count_ignored(problem.relations) for problem in problems) / max(entries, 1)
        absent = 1 - sum(kept) / max(int((score != 0).sum()) * len(kept), 1)
        taught = learned @ learned.new_tensor([term.weight for term in self.terms]) if lessons else None
        return LossOutput(loss, terms, masked, absent, self.scale.detach(), self.bias.detach(), taught)

    def _problems(
        self,
        query: Mapping[str, Part],
        document: Mapping[str, Part],
        score: Tensor,
        query_id: Tensor,
        document_id: Tensor,
        known: Known,
    ) -> tuple[list[Problem], list[Problem]]:
        """The terms' own problems, and those that a teacher sets."""
        embeddings = [part.embedding for part in (*query.values(), *document.values())]
        dtype = functools.reduce(torch.promote_types, [x.dtype for x in embeddings], torch.float32)
        query, document = (
            {name: part._replace(embedding=part.embedding.to(dtype)) for name, part in side.items()}
            for side in (query, document)
        )
        score = score.to(embeddings[0].device, dtype)
        ids = {"query_id": query_id.to(score.device), "document_id": document_id.to(score.device)}
        if known.teacher is not None:
            moved = (x.to(score.device) for x in known.teacher)
            kind = TeacherVectors if isinstance(known.teacher, TeacherVectors) else KnownScores
            known = known._replace(teacher=kind._make(moved))
        if bool((not_relevant := score == 0).any()):
            pairs = (~not_relevant).nonzero().squeeze(1)
            order = torch.cat([pairs, not_relevant.nonzero().squeeze(1)])
            query, document = (
                {name: part.take(rows) for name, part in side.items()}
                for side, rows in ((query, pairs), (document, order))
            )
            score, ids = score[pairs], {name: value[order] for name, value in ids.items()}
            if isinstance(known.teacher, TeacherVectors):
                known = known._replace(teacher=TeacherVectors._make(x[pairs] for x in known.teacher))
        weight = self._weight(score)
        if self.options.target == Target.pair:
            known = known._replace(judged=None)
        else:
            own = {name: value[: len(score)] for name, value in ids.items()}
            judged = of_pairs(**own, score=score) if known.judged is None else known.judged
            relevant = judged.score != 0
            judged = KnownScores._make(x[relevant].to(weight.device) for x in judged)
            known = known._replace(judged=judged, weight=self._weight(judged.score.to(dtype)))
        posed = [
            pose(term, query, document, weight=weight, **ids, options=self.options, known=known) for term in self.terms
        ]
        return [problem for problem, *_ in posed], [lesson for _, *lessons in posed for lesson in lessons]

    def _weight(self, score: Tensor) -> Tensor:
        """score[N] -> weight[N], checked."""
        weight = self.score_to_weight(score)
        most = 1 + 1e-5 if self.options.target == Target.sigmoid else math.inf
        if not bool((weight >= 0).logical_and(weight < most).all()):
            least, largest = (float(bound) for bound in weight.aminmax())
            wanted = "finite numbers of at least 0" if most == math.inf else "probabilities for target=sigmoid, 0 to 1"
            raise ValueError(f"Weights range from {least:g} to {largest:g}; expected {wanted}.")
        return weight


def _choose(name: str, choice: type[C], value: C | str) -> C:
    try:
        return choice(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
