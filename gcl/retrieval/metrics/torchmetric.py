"""Our metrics as one `torchmetrics.Metric`: what the LightningModule validates with, and for anybody's own loop.

It differs from `torchmetrics.retrieval` (1.9) where that is wrong for dense retrieval: relevance comes from judgments,
never from the sign of a score, and relevant documents that were not retrieved stay in every denominator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gcl.retrieval.metrics.metrics import measure, parse_metric


class RetrievalMetrics(Metric):
    """Several metrics of many queries, fed a few queries at a time on each rank.

    names: see `gcl.retrieval.metrics.metrics`.
    With each rank fed its contiguous share of the queries, the result is that of one process to the bit.

    >>> metric = RetrievalMetrics(["mrr@10", "recall@2"])
    >>> metric.update(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[2.0, 1.0], [1.0, 0.0]]))
    >>> {name: float(mean) for name, mean in metric.compute().items()}
    {'mrr@10': 0.75, 'recall@2': 0.75}
    """

    full_state_update = False
    higher_is_better = True
    values: list[Tensor]

    def __init__(self, names: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        for name in names:
            parse_metric(name)
        self.names = tuple(names)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(
        self,
        gains: Tensor | None = None,
        judged: Tensor | None = None,
        status: Tensor | None = None,
        *,
        values: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """gains[Q, K]: relevance of the retrieved documents in rank order, 0 where unjudged; judged[Q, J]: all judged
        relevances of each query, padded with 0; status[Q, K]: what is known of each result, for judged@K and hole@K.
        Or `values`: {name: [Q]}, measured already (`TaskResult.values`)."""
        if values is None:
            if gains is None or judged is None:
                raise ValueError("update takes gains and judged, or values that are already measured.")
            values = measure(
                self.names,
                gains=gains.detach().cpu().numpy(),
                judged=judged.detach().cpu().numpy(),
                status=None if status is None else status.detach().cpu().numpy(),
            )
        columns = np.stack([np.asarray(values[name], dtype=np.float64) for name in self.names], axis=1)
        # [Q, metrics]; Apple's GPUs have no float64
        self.values.append(torch.from_numpy(columns).to("cpu" if self.device.type == "mps" else self.device))

    def per_query(self) -> dict[str, Tensor]:
        """{name: [Q]} float64 of what this rank has seen, in the order it came (of all ranks once synchronised)."""
        values = dim_zero_cat(self.values) if len(self.values) else torch.empty(0, len(self.names), dtype=torch.float64)
        return {name: values[:, column] for column, name in enumerate(self.names)}

    def compute(self) -> dict[str, Tensor]:
        """{name: mean over all queries of all ranks}, float64 scalars, NaN before the first query."""
        columns = {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in self.per_query().items()}
        return {
            name: torch.tensor(float(value.mean()) if len(value) else float("nan"), dtype=torch.float64)
            for name, value in columns.items()
        }  # numpy's mean, as TaskResult.means: the same additions in the same order
