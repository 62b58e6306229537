"""Which changes rest on results that nobody has judged, so that nobody can tell whether the search got better or worse.

A result without a judgment counts as irrelevant, so a model that finds other products than those that were judged
looks worse than it is. The lists are measured once more without what nobody judged, each later result moving up
(condensed lists: Sakai 2007, "Alternatives to Bpref"). A gain or loss that is not one there is called unsure.

A query with a single judgment, of a relevant document, is a known-item query: what is measured is the rank of that
document, and nothing else was meant to be judged (a product's own title, the product that was bought). Its changes are
certain; condensed, such a list would begin with the item whatever the model does.
"""

from __future__ import annotations

import numpy as np

from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.functions import JUDGED
from gcl.retrieval.metrics.metrics import Reads, measure, parse_metric
from gcl.retrieval.tasks.task import RetrievalTask


def condensed(task: RetrievalTask, result: TaskResult, metric: str) -> np.ndarray:
    """[Q] float64: the metric of the judged results alone, in their order."""
    documents = len(task.corpus)
    judged = task.judgments.status(result.row, documents) == JUDGED
    order = np.argsort(~judged, axis=1, kind="stable")
    gains = np.take_along_axis(task.judgments.gains(result.row, documents), order, axis=1)
    return measure([metric], gains=gains, judged=task.judgments.by_query(len(task.queries)))[metric]


def unsure(task: RetrievalTask, before: TaskResult, after: TaskResult, metric: str) -> np.ndarray:
    """[Q] bool: the search changed, and without what nobody judged it would not have changed in this direction."""
    change = after.values[metric] - before.values[metric]
    if parse_metric(metric).metric.reads is Reads.status or task.judgments.complete:
        return np.zeros(len(change), dtype=bool)
    sure = condensed(task, after, metric) - condensed(task, before, metric)
    return (change != 0) & (np.sign(change) != np.sign(sure)) & ~known_item(task)


def known_item(task: RetrievalTask) -> np.ndarray:
    """[Q] bool: the query has one judgment, of a relevant document."""
    pairs, queries = task.judgments, len(task.queries)
    relevant = np.bincount(pairs.query[pairs.relevance > 0], minlength=queries)
    return (np.bincount(pairs.query, minlength=queries) == 1) & (relevant == 1)
