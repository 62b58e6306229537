"""Generalized contrastive learning: the contrastive loss of graded pairs (Zhu, Jung and Clark 2024,
https://arxiv.org/abs/2404.08535).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gcl.loss.targets import RULES, Rule, count_ignored
from gcl.loss.terms import Direction, Normalizer, Part, Problem, SigmoidWeight, Term, pose
from gcl.loss.tiled import tiled_loss
from gcl.loss.weight import constant
from gcl.loss.whole import Form, whole_loss


class LossOutput(NamedTuple):
    """loss: scalar to call backward on; its value is that of all ranks, the same on each, so it is also what to log.
    terms[T]: value of each term before its coefficient. masked: share of the off-diagonal entries that the same_query
    and same_document rules leave out. absent: share of the pairs that terms leave out because a part is absent. scale,
    bias: as used. All but `loss` carry no gradient.
    """

    loss: Tensor
    terms: Tensor
    masked: float
    absent: float
    scale: Tensor
    bias: Tensor


class GCLLoss(nn.Module):
    """Weighted contrastive loss of N pairs; owns the scale (temperature), the bias and the rules.

    With w = score_to_weight(score), s_ij = scale * query_i . document_j + bias, and Z = sum w (normalizer "weight") or
    N ("count"):

    softmax   L = 1/Z sum_i w_i (CE(row i) + CE(column i)) / 2; the bias drops out. Constant weights: CLIP's loss.
    sigmoid   L = 1/Z sum_ij A_ij softplus(-s_ij) over targets + (w_i + w_j) / 2 softplus(s_ij) over negatives. Constant
    weights: SigLIP's loss.

    direction "query" keeps the rows (a query chooses among documents): w_i CE(row i), and w_i for (w_i + w_j) / 2;
    "document" keeps the columns. In the sigmoid form a pair's weight counts for its target and for its negatives, as in
    the softmax form; the other reading of GCL's weighted ground-truth matrix, weights on the targets alone, is
    sigmoid_weight="target": negatives count 1/N each. gcl.loss.targets says what repeated queries and documents do and
    what A is.

    terms: the loss is the sum of the terms' coefficients times their losses. A term sees only the pairs that have both
    its parts, and is then the loss of the batch without the others (Z and N included). scale: the factor itself, not
    its logarithm; default 1 / 0.07 (softmax) or 10 (sigmoid), bias default 0 or -10. max_scale: after a step that
    leaves it, the scale is put back (projected before it is used), so its gradient never dies. A checkpoint that starts
    above it keeps its own value as the bound. None: no bound. tile: side of the square blocks of similarities in
    memory, "auto", or None for the whole matrix with ordinary autograd.
    """

    def __init__(
        self,
        *,
        form: Form = "softmax",
        score_to_weight: Callable[[Tensor], Tensor] = constant,
        direction: Direction = "both",
        normalizer: Normalizer = "weight",
        same_query: Rule = "ignore",
        same_document: Rule = "ignore",
        terms: Sequence[Term | Mapping] = (Term(),),
        sigmoid_weight: SigmoidWeight = "pair",
        scale: float | None = None,
        bias: float | None = None,
        learn_scale: bool = True,
        learn_bias: bool = True,
        max_scale: float | None = 100.0,
        tile: int | Literal["auto"] | None = "auto",
    ) -> None:
        super().__init__()
        self.form = _one_of("form", form, ("softmax", "sigmoid"))
        self.direction = _one_of("direction", direction, ("both", "query", "document"))
        self.normalizer = _one_of("normalizer", normalizer, ("weight", "count"))
        self.same_query = _one_of("same_query", same_query, RULES)
        self.same_document = _one_of("same_document", same_document, RULES)
        self.sigmoid_weight = _one_of("sigmoid_weight", sigmoid_weight, ("pair", "target"))
        if tile is not None and tile != "auto" and not (isinstance(tile, int) and tile >= 1):
            raise ValueError(
                f"tile is {tile!r}, expected a whole number of at least 1, 'auto', or None for the whole matrix."
            )
        self.tile = tile
        self.score_to_weight = score_to_weight
        self.terms = tuple(term if isinstance(term, Term) else Term(**term) for term in terms)
        if not self.terms or len({term[:2] for term in self.terms}) < len(self.terms):
            raise ValueError(f"terms are {self.terms}: expected at least one, and each (query, document) once.")
        if not all(0 <= term.weight < math.inf for term in self.terms):
            raise ValueError(f"terms are {self.terms}: each weight is expected to be a number of at least 0.")
        softmax = form == "softmax"
        scale = (1 / 0.07 if softmax else 10.0) if scale is None else float(scale)
        bias = (0.0 if softmax else -10.0) if bias is None else float(bias)
        if not 0 < scale < math.inf:
            raise ValueError(f"scale is {scale}, expected the positive factor of the cosines, not its logarithm.")
        self.max_scale = None if max_scale is None else max(float(max_scale), scale)
        self._hold("log_scale", math.log(scale), learn_scale)
        self._hold("bias", bias, learn_bias and not softmax)

    def _hold(self, name: str, value: float, learn: bool) -> None:
        # The softmax form has no gradient for its bias, and DistributedDataParallel waits for every parameter's: a buffer then.
        tensor = torch.tensor(value)
        if learn:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def clamp_(self) -> None:
        """Puts the scale back to its bound. Every forward pass begins with it; call it too before the scale is saved."""
        if self.max_scale is not None:
            # .data: a second forward pass before the first one's backward pass must not count as a change in between.
            self.log_scale.data.clamp_(max=math.log(self.max_scale))

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def forward(
        self,
        query: Mapping[str, Part],
        document: Mapping[str, Part],
        *,
        score: Tensor,
        query_id: Tensor,
        document_id: Tensor,
    ) -> LossOutput:
        """query, document: {part name: Part}, all N pairs of all ranks, on every rank; score[N], query_id[N],
        document_id[N] likewise.

        In a distributed run gradients that the ranks then average, as DistributedDataParallel does, are those of the
        loss over all N pairs, provided that the embeddings were gathered by gather_rows. Computes in float32 at least,
        whatever autocast says.
        """
        self.clamp_()
        with torch.autocast(score.device.type, enabled=False):
            problems = self._problems(query, document, score, query_id, document_id)
            dtype = problems[0].query.dtype
            arguments = {"form": self.form, "scale": self.scale.to(dtype), "bias": self.bias.to(dtype)}
            if self.tile is None:
                terms = torch.stack([whole_loss(problem, **arguments) for problem in problems])
                loss = terms @ terms.new_tensor([problem.coefficient for problem in problems])
            else:
                loss, terms = tiled_loss(problems, tile=self.tile, **arguments)
        kept = [len(problem.query) for problem in problems]
        masked = sum(count_ignored(problem.relations) for problem in problems) / max(sum(n * (n - 1) for n in kept), 1)
        absent = 1 - sum(kept) / max(len(score) * len(kept), 1)
        return LossOutput(loss, terms.detach(), masked, absent, self.scale.detach(), self.bias.detach())

    def _problems(
        self,
        query: Mapping[str, Part],
        document: Mapping[str, Part],
        score: Tensor,
        query_id: Tensor,
        document_id: Tensor,
    ) -> list[Problem]:
        embeddings = [part.embedding for part in (*query.values(), *document.values())]
        dtype = functools.reduce(torch.promote_types, [x.dtype for x in embeddings], torch.float32)
        query, document = (
            {name: part._replace(embedding=part.embedding.to(dtype)) for name, part in side.items()}
            for side in (query, document)
        )
        weight = self.score_to_weight(score.to(dtype))
        if not bool((weight >= 0).logical_and(weight < math.inf).all()):
            raise ValueError(
                f"Weights lie in {float(weight.min()):g}…{float(weight.max()):g}; expected finite numbers of at least 0."
            )
        return [
            pose(
                term,
                query,
                document,
                weight=weight,
                query_id=query_id,
                document_id=document_id,
                same_query=self.same_query,
                same_document=self.same_document,
                direction=self.direction,
                normalizer=self.normalizer,
                negatives=self.sigmoid_weight if self.form == "sigmoid" else "pair",
            )
            for term in self.terms
        ]


def _one_of(name: str, given: str, expected: Sequence[str]) -> str:
    if given not in expected:
        raise ValueError(f"{name} is {given!r}, expected one of {', '.join(expected)}.")
    return given
