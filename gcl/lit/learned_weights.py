"""`train.field_weights=learned`: one number for each field, trained with the loss.

A field's weight is the given one times exp(its number), so it stays positive, training begins with the given weights,
and a field of weight 0 stays out. The weights are used where a rank fuses its own records, before anything is gathered,
like every other weight of the encoder: so their gradient is exact over ranks, tiles and micro-batches for the same
reason. They are in the checkpoint, next to the encoder and the loss.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

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
