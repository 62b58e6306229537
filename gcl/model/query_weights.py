"""Field weights that each query gives for itself: a gate on its vector, and scores that stay an inner product.

1. `weights`: with the given weights g of the K document fields that count and a query's unit vector q[D],
   w(q) = softmax(log g + W q + b): above 0, with a sum of 1. W = 0 and b = 0 are the given weights.
2. The score of a query and a document is sum_k w_k(q) cos(q, v_k), v_k being the document's field vectors. It is the
   inner product of [w_1 q, ..., w_K q] (`spread`) and [v_1, ..., v_K] (`side_by_side`), K D numbers each: whatever
   compares vectors compares these, and an engine may keep K vectors per document instead.
3. No inner product can renormalise the weights for each document. A field that a document lacks is represented by the
   fields that it has, fused by the given weights: a document of one field has that field's score, as when fields are
   fused.

Query-dependent weights of fields are those of Li et al. 2024 (mFAR, https://arxiv.org/abs/2410.20056).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gcl.model.fusion import fuse


@dataclass(frozen=True)
class QueryWeights:
    """given: of all document fields, in their order; those above 0 are the K fields that are weighed.
    matrix[K, D], bias[K]: the gate's W and b.

    >>> gate = QueryWeights({"image": 3.0, "title": 1.0}, torch.zeros(2, 2), torch.zeros(2))
    >>> query = torch.tensor([[0.6, 0.8]])
    >>> gate.weights(query), gate.spread(query)
    (tensor([[0.7500, 0.2500]]), tensor([[0.4500, 0.6000, 0.1500, 0.2000]]))
    """

    given: Mapping[str, float]
    matrix: Tensor
    bias: Tensor

    @property
    def fields(self) -> list[str]:
        """The K fields that are weighed."""
        return [name for name, weight in self.given.items() if weight > 0]

    @classmethod
    def constant(cls, given: Mapping[str, float], width: int) -> QueryWeights:
        """The given weights for every query, of vectors of `width` numbers."""
        fields = sum(weight > 0 for weight in given.values())
        return cls(dict(given), torch.zeros(fields, width), torch.zeros(fields))

    def weights(self, query: Tensor) -> Tensor:
        """query[n, D] unit vectors -> [n, K]."""
        given = torch.tensor([self.given[name] for name in self.fields]).to(query)
        # Not a matrix product: autocast would round it.
        gate = (query[:, None, :] * self.matrix.to(query)).sum(dim=2) + self.bias.to(query)
        return (given.log() + gate).softmax(dim=1)

    def spread(self, query: Tensor, vector: Tensor | None = None) -> Tensor:
        """query[n, D] -> [n, K D]. vector[n, d]: what is weighed instead of the query, shorter vectors perhaps."""
        vector = query if vector is None else vector
        return (self.weights(query)[:, :, None] * vector[:, None, :]).flatten(1)

    def asked(self, query: np.ndarray, vector: np.ndarray | None = None) -> np.ndarray:
        """`spread` of arrays."""
        with torch.inference_mode():
            return self.spread(*(torch.from_numpy(one) for one in (query, vector) if one is not None)).numpy()

    def weights_of(self, query: np.ndarray) -> np.ndarray:
        """`weights` of arrays."""
        with torch.inference_mode():
            return self.weights(torch.from_numpy(query)).numpy()

    def side_by_side(self, embedding: Tensor, present: Tensor) -> Tensor:
        """embedding[n, F, D], present[n, F] of the document's fields -> [n, K D], K unit vectors each."""
        given = torch.tensor([*self.given.values()]).to(embedding)
        counts = given > 0
        fused = fuse(embedding, given, present)
        kept = torch.where(present[:, counts, None], embedding[:, counts], fused[:, None])  # [n, K, D]
        return kept.flatten(1)

    def has_all(self, present: Tensor) -> Tensor:
        """present[n, F] -> bool[n]: the documents that have every field that is weighed."""
        return present[:, torch.tensor([*self.given.values()], device=present.device) > 0].all(dim=1)

    def turned(self, axes: np.ndarray) -> QueryWeights:
        """The same for vectors x @ axes.T, axes[d, D]: exact for a rotation; of one that is cut, what is left of it."""
        matrix = self.matrix.double() @ torch.from_numpy(axes).T
        return replace(self, matrix=matrix.to(self.matrix))
