"""Our metrics as one `torchmetrics.Metric`, for those who validate with Lightning's or their own loop.

It differs from `torchmetrics.retrieval` (1.9) where that is wrong for dense retrieval: relevance comes from judgments,
never from the sign of a score, and relevant documents that were not retrieved stay in every denominator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gcl.retrieval.metrics.metrics import measure, parse_metric


class RetrievalMetrics(Metric):
    """Several metrics of many queries, fed a few queries at a time on each rank.

    names: see `gcl.retrieval.metrics.metrics`. threshold: binary metrics call relevant what is above it.

    >>> metric = RetrievalMetrics(["mrr@10", "recall@2"])
    >>> metric.update(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[2.0, 1.0], [1.0, 0.0]]))
    >>> metric.compute()
    {'mrr@10': tensor(0.7500), 'recall@2': tensor(0.7500)}
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, names: Sequence[str], *, threshold: float = 0.0, **options) -> None:
        super().__init__(**options)
        for name in names:
            parse_metric(name)
        self.names, self.threshold = tuple(names), threshold
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, gains: Tensor, judged: Tensor) -> None:
        """gains[Q, K]: relevance of the retrieved documents in rank order, 0 where unjudged; judged[Q, J]: all judged
        relevances of each query, padded with 0."""
        arrays = {"gains": gains.detach().cpu().numpy(), "judged": judged.detach().cpu().numpy()}
        found = measure(self.names, **arrays, threshold=self.threshold)
        columns = [torch.from_numpy(found[name]).to(gains.device) for name in self.names]
        self.values.append(torch.stack(columns, dim=1))  # [Q, metrics], float64

    def per_query(self) -> dict[str, Tensor]:
        """{name: [Q]} of what this rank has seen, in the order it came (of all ranks once synchronised)."""
        values = dim_zero_cat(self.values) if len(self.values) else torch.empty(0, len(self.names), dtype=torch.float64)
        return {name: values[:, column] for column, name in enumerate(self.names)}

    def compute(self) -> dict[str, Tensor]:
        """{name: mean over all queries of all ranks}, NaN before the first query."""
        return {name: values.mean().float() for name, values in self.per_query().items()}
