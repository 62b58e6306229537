"""How much of the results anybody has judged: judged@k and hole@k. No quality, but what quality figures stand on."""

from __future__ import annotations

import numpy as np

from gcl.retrieval.metrics.names import MetricName

# What is known of a result: nothing was retrieved there, judged for this query, for another one only, for no query.
NOTHING, JUDGED, JUDGED_ELSEWHERE, UNKNOWN = range(4)


def coverage(metric: MetricName, standing: np.ndarray | None) -> np.ndarray:
    """judged@k: share of the first k that is judged for this query. hole@k: share that is judged for no query at all,
    as BEIR defines it. A list shorter than k is divided by k all the same, in both. standing[Q, K]: the four above.

    >>> from gcl.retrieval.metrics.names import parse_metric
    >>> coverage(parse_metric("hole@4"), np.array([[1, 3, 2, 0]]))
    array([0.25])
    """
    if standing is None:
        raise ValueError(f"{metric} says what is known of each result: give measure() the `standing` of the results.")
    assert metric.cutoff is not None
    wanted = JUDGED if metric.family == "judged" else UNKNOWN
    return np.count_nonzero(standing[:, : metric.cutoff] == wanted, axis=1) / float(metric.cutoff)
