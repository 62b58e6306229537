"""The metrics there are: a `Metric` record for each, and how one is named, explained and measured.

1. A name such as "ndcg@10" is parsed into a `MetricName`: a family of METRICS, a cutoff, a parameter.
2. `measure` finds the hits of each query once and calls the record's function with them and the cutoff.

To add a metric, add its record to METRICS: parsing, measuring, error messages, tables and the page read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import partial
from typing import Any

import numpy as np

from gcl.retrieval.metrics.functions import (
    Hits,
    average_precision,
    expected_reciprocal_rank,
    hit_rate,
    hole_share,
    judged_share,
    ndcg,
    precision,
    r_precision,
    rank_biased_precision,
    recall,
    reciprocal_rank,
)


class Cutoff(Enum):
    """Whether a metric's name ends in "@K"."""

    required = "required"
    optional = "optional"  # without one the whole result list counts
    none = "none"


class Reads(Enum):
    """What a metric is computed from."""

    hits = "hits"  # what relevant was found, and where
    status = "status"  # what is known of each result: not how good results are, but how well they are judged


@dataclass(frozen=True)
class Metric:
    """A family of metrics."""

    family: str
    """How its names begin."""
    spelled: str
    """How a page spells it."""
    function: Callable[..., np.ndarray]
    """(Hits or status[Q, K], k=…) -> [Q] float64; no k where there is no cutoff."""
    explanation: str
    """What a page says after its name; {first} is "the first 10 results" or "all results"."""
    reads: Reads = Reads.hits
    cutoff: Cutoff = Cutoff.optional
    parameter: str | None = None
    """An argument of the function that a name gives as a fraction: rbp.8 for a persistence of 0.8."""
    range: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest value."""
    elsewhere: tuple[str, ...] = ()
    """What other tools call it."""


_SATISFIED = "is the chance-weighted place at which a shopper is satisfied within {first}; higher is better"
METRICS: dict[str, Metric] = {
    metric.family: metric
    for metric in (
        Metric(
            "ndcg", "nDCG", ndcg, elsewhere=("ndcg_cut",),
            explanation="scores {first} of a search from 0 (nothing relevant) to 1 (the best order there is): relevant "
            "products count more the higher they rank",
        ),
        Metric(
            "ndcg_exp", "nDCG (exp)", partial(ndcg, exponential=True),
            explanation="is nDCG where a grade counts 2 to its power, so that the very best products weigh most",
        ),
        Metric(
            "map", "MAP", average_precision, elsewhere=("map_cut", "ap"),
            explanation="is the mean precision at the places of the relevant products within {first}",
        ),
        Metric(
            "mrr", "MRR", reciprocal_rank, elsewhere=("recip_rank", "rr"),
            explanation="is 1 divided by the place of the first relevant product within {first}: 1 for place one, 0.5 "
            "for place two",
        ),
        Metric(
            "recall", "Recall", recall, elsewhere=("r",),
            explanation="is the share of all relevant products that are among {first}",
        ),
        Metric(
            "precision", "Precision", precision, cutoff=Cutoff.required, elsewhere=("p",),
            explanation="is the share of {first} that is relevant",
        ),
        Metric(
            "hit", "Hit", hit_rate, cutoff=Cutoff.required,
            elsewhere=("success", "hitrate", "hit_rate", "accuracy", "acc"),
            explanation="is 1 if a relevant product is among {first}, else 0",
        ),
        Metric(
            "rprec", "R-precision", r_precision, cutoff=Cutoff.none,
            elsewhere=("rprecision", "r_precision"),
            explanation="is the precision among as many results as there are relevant products",
        ),
        Metric("err", "ERR", expected_reciprocal_rank, _SATISFIED),
        Metric("err_grades", "ERR (grades)", partial(expected_reciprocal_rank, grades=True), _SATISFIED),
        Metric(
            "rbp", "RBP", rank_biased_precision, parameter="persistence",
            explanation="is the relevance a shopper meets who goes on to the next result with a fixed probability, "
            "within {first}",
        ),
        Metric(
            "judged", "Judged", judged_share, reads=Reads.status, cutoff=Cutoff.required,
            explanation="is the share of {first} that somebody judged for this search; what nobody judged counts as "
            "irrelevant",
        ),
        Metric(
            "hole", "Hole", hole_share, reads=Reads.status, cutoff=Cutoff.required,
            explanation="is the share of {first} that nobody has judged for any search",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class MetricName:
    """A parsed name: family, cutoff K (None: the whole result list), the parameter of RBP (None elsewhere)."""

    family: str
    cutoff: int | None = None
    parameter: float | None = None

    def __str__(self) -> str:
        parameter = "" if self.parameter is None else f"{self.parameter:g}".removeprefix("0")
        return f"{self.family}{parameter}" + ("" if self.cutoff is None else f"@{self.cutoff}")

    @property
    def metric(self) -> Metric:
        return METRICS[self.family]

    def value(self, hits: Hits | np.ndarray) -> np.ndarray:
        """[Q] float64 of what the metric reads."""
        options: dict[str, Any] = {} if self.metric.cutoff is Cutoff.none else {"k": self.cutoff}
        if self.metric.parameter is not None:
            options[self.metric.parameter] = self.parameter
        return self.metric.function(hits, **options)


_NAME = re.compile(r"(?P<family>[a-z][a-z0-9_]*?)(?P<parameter>0?\.\d+)?(?:@(?P<cutoff>\d+))?")


def parse_metric(name: str) -> MetricName:
    """`family[.parameter][@cutoff]`, for example ndcg@10, rbp.8@100, rprec. Raises ValueError, naming the nearest
    metric there is, for any other name.

    >>> parse_metric("ndcg@10")
    MetricName(family='ndcg', cutoff=10, parameter=None)
    >>> parse_metric("rbp.8@100")
    MetricName(family='rbp', cutoff=100, parameter=0.8)
    >>> parse_metric("nddcg@10")
    Traceback (most recent call last):
    ...
    ValueError: There is no metric 'nddcg@10'. Did you mean 'ndcg@10'? A metric is one of ndcg, ndcg_exp, map, mrr, \
recall, precision, hit, rprec, err, err_grades, rbp, judged, hole, with '@K' for a cutoff, and rbp.8 for a persistence \
of 0.8.
    """
    match = _NAME.fullmatch(name)
    metric = METRICS.get(match["family"]) if match else None
    if match is None or metric is None or (match["parameter"] and metric.parameter is None):
        raise ValueError(_unknown(name))
    family, cutoff = metric.family, None if match["cutoff"] is None else int(match["cutoff"])
    if metric.parameter is not None and match["parameter"] is None:
        example = f"{family}.8@{cutoff or 100}"
        raise ValueError(f"{name!r}: {metric.spelled} needs its {metric.parameter}, for example {example!r}.")
    if cutoff == 0:
        raise ValueError(f"{name!r}: a cutoff must be at least 1.")
    if cutoff is not None and metric.cutoff is Cutoff.none:
        raise ValueError(f"{name!r}: {metric.spelled} takes no cutoff; write {family!r}.")
    if cutoff is None and metric.cutoff is Cutoff.required:
        raise ValueError(f"{name!r} needs a cutoff, for example '{family}@10'.")
    return MetricName(family, cutoff, None if match["parameter"] is None else float(match["parameter"]))


def _unknown(name: str) -> str:
    head, at, tail = name.lower().replace(" ", "").partition("@")
    head = head.replace("-", "_")
    aliases = {alias: metric.family for metric in METRICS.values() for alias in metric.elsewhere}
    nearest = [aliases[head]] if head in aliases else get_close_matches(head, METRICS, n=1, cutoff=0.4)
    hint = ""
    if nearest:
        metric = METRICS[nearest[0]]
        given = f"@{tail}" if at and tail.isdigit() and metric.cutoff is not Cutoff.none else ""
        cutoff = given or ("@10" if metric.cutoff is Cutoff.required else "")
        hint = f" Did you mean '{metric.family}{'.8' if metric.parameter else ''}{cutoff}'?"
    parameters = [f", and {m.family}.8 for a {m.parameter} of 0.8" for m in METRICS.values() if m.parameter]
    known = f"A metric is one of {', '.join(METRICS)}, with '@K' for a cutoff{''.join(parameters)}."
    return f"There is no metric {name!r}.{hint} {known}"


def depth(names: Iterable[str]) -> int:
    """How many documents must be retrieved for these metrics to be what their names say: the largest cutoff.

    >>> depth(["ndcg@10", "recall@50", "rprec"])
    50
    """
    return max((parse_metric(name).cutoff or 0 for name in names), default=0)


def spelled(name: str) -> str:
    """A metric's name as a page writes it.

    >>> spelled("ndcg@10"), spelled("rbp.8@100")
    ('nDCG@10', 'RBP.8@100')
    """
    metric = parse_metric(name).metric
    return name.replace(metric.family, metric.spelled, 1)


def explained(name: str) -> str:
    """One plain sentence for a page.

    >>> explained("recall@10")
    'Recall@10 is the share of all relevant products that are among the first 10 results.'
    """
    parsed = parse_metric(name)
    first = f"the first {parsed.cutoff:,} results" if parsed.cutoff else "all results"
    return f"{spelled(name)} {parsed.metric.explanation.format(first=first)}."


def measure(
    names: Sequence[str],
    *,
    gains: np.ndarray,
    judged: np.ndarray,
    status: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Every named metric for every query: {name: [Q] float64}.

    gains[Q, K]: relevance of the retrieved documents in rank order, 0 where unjudged or where fewer than K were found.
    judged[Q, J]: all judged relevances of each query, padded with 0.
    status[Q, K]: what is known of each result (`Qrels.status`); judged@K and hole@K are computed from it.
    Raises ValueError for an unknown name, and for judged@K or hole@K without `status`.

    >>> measure(["recall@2", "mrr@10"], gains=np.array([[0, 1]]), judged=np.array([[1, 1]]))
    {'recall@2': array([0.5]), 'mrr@10': array([0.5])}
    """
    parsed = {name: parse_metric(name) for name in names}
    sources = {Reads.hits: Hits.of(gains, judged), Reads.status: status}
    values = {}
    for name, metric in parsed.items():
        if (source := sources[metric.metric.reads]) is None:
            raise ValueError(f"{name} needs to know which results are judged: give measure() their `status`.")
        values[name] = metric.value(source)
    return values
