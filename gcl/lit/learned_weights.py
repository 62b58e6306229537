"""Field weights that are trained with the loss.

`train.field_weights=learned`: one number for each field.

A field's weight is the given one times exp(its number), so it stays positive, training begins with the given weights,
and a field of weight 0 stays out. The weights are used where a rank fuses its own records, before anything is gathered,
like every other weight of the encoder: so their gradient is exact over ranks, tiles and micro-batches for the same
reason. They are in the checkpoint, next to the encoder and the loss.

`train.field_weights=learned_by_query`: a gate on the query's vector (gcl/model/query_weights.py). It learns beside the
towers, from their vectors and by a loss of its own, with its own temperature: no gradient of it reaches the towers, so
they are, to the bit, those of a run with constant weights, and the two can be compared. Only documents that have all
the fields teach it: among others the gap between images and texts would decide, not what a query asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from gcl.loss.gcl import GCLLoss
from gcl.model.query_weights import QueryWeights
from gcl.schema import Schema, SideName


class LearnedWeights(nn.Module):
    """`(side) -> weight[F]`, or None for a side whose weights are not learned.

    >>> from gcl.schema import Field
    >>> learned = LearnedWeights(Schema({"query": Field()}, {"title": Field(weight=3), "brand": Field()}), ["document"])
    >>> learned("document").tolist(), learned("query")
    ([3.0, 1.0], None)
    """

    def __init__(self, schema: Schema, sides: Collection[SideName]) -> None:
        super().__init__()
        self.fields = {side: list(schema.side(side)) for side in sides}
        self.log = nn.ParameterDict({side: nn.Parameter(torch.zeros(len(self.fields[side]))) for side in sides})
        for side in sides:
            given = torch.tensor([one.weight for one in schema.side(side).values()], dtype=torch.float32)
            self.register_buffer(f"_given_{side}", given, persistent=False)

    def forward(self, side: SideName) -> Tensor | None:
        if side not in self.log:
            return None
        return getattr(self, f"_given_{side}") * self.log[side].exp()

    def shares(self, side: SideName) -> dict[str, float]:
        """What each field of a learned side counts, with a sum of 1."""
        weight = self(side)
        assert weight is not None, f"the weights of the {side} are not learned"
        weight = weight.detach().double().cpu()
        return dict(zip(self.fields[side], (weight / weight.sum()).tolist(), strict=True))


class LearnedByQuery(nn.Module):
    """The gate's parameters, and the loss that trains them. width: D."""

    def __init__(self, schema: Schema, width: int, loss: GCLLoss) -> None:
        super().__init__()
        self.given = schema.weights["document"]
        fields = sum(weight > 0 for weight in self.given.values())
        self.matrix, self.bias = nn.Parameter(torch.zeros(fields, width)), nn.Parameter(torch.zeros(fields))
        self.loss = loss

    @property
    def gate(self) -> QueryWeights:
        """As it is, with its gradient."""
        return QueryWeights(self.given, self.matrix, self.bias)

    @property
    def learned(self) -> QueryWeights:
        """A copy for use."""
        return learned_by_query({name: value.detach() for name, value in self.named_parameters()}, self.given)


def learned_by_query(state: Mapping[str, Tensor], given: Mapping[str, float]) -> QueryWeights:
    """state: of a LearnedByQuery. given: the weights it began with."""
    return QueryWeights(given, *(state[name].float().cpu().clone() for name in ("matrix", "bias")))
