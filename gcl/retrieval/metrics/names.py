"""Metric names: `family[.parameter][@cutoff]`, for example ndcg@10, err@10, rbp.8@100, rprec. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

FAMILIES = (
    "ndcg", "ndcg_exp", "map", "mrr", "recall", "precision", "hit", "rprec", "err", "err_grades", "rbp",
    "judged", "hole",
)  # fmt: skip
COVERAGE = ("judged", "hole")  # what is known about the results, not how good they are
_NEEDS_CUTOFF = {"precision", "hit", *COVERAGE}
# How equal scores are ordered. "published": as the published GCL figures mix them, document id descending for what
# pytrec_eval computes, the order of the list for what is computed in loops.
TieRule = Literal["ascending", "descending", "listed", "published"]
Sampling = Literal["weight", "uniform", "largest"]  # how queries are drawn
PARTS = ("test", "dev", "all")
_NAME = re.compile(r"(?P<family>[a-z_]+?)(?P<parameter>(?<=rbp)0?\.\d+)?(?:@(?P<cutoff>\d+))?")
_ELSEWHERE = {  # what other tools call them
    "p": "precision", "success": "hit", "hitrate": "hit", "hit_rate": "hit", "accuracy": "hit", "acc": "hit",
    "ndcg_cut": "ndcg", "map_cut": "map", "ap": "map", "r": "recall", "recip_rank": "mrr", "rr": "mrr",
    "rprecision": "rprec", "r_precision": "rprec",
}  # fmt: skip


@dataclass(frozen=True)
class MetricName:
    """A parsed name: family, cutoff K (None: the whole result list), persistence of RBP (None elsewhere)."""

    family: str
    cutoff: int | None = None
    persistence: float | None = None

    def __str__(self) -> str:
        parameter = "" if self.persistence is None else f"{self.persistence:g}".removeprefix("0")
        return f"{self.family}{parameter}" + ("" if self.cutoff is None else f"@{self.cutoff}")


def parse_metric(name: str) -> MetricName:
    """Raises ValueError, naming the nearest metric there is, for a name that is none.

    >>> parse_metric("ndcg@10")
    MetricName(family='ndcg', cutoff=10, persistence=None)
    >>> parse_metric("rbp.8@100")
    MetricName(family='rbp', cutoff=100, persistence=0.8)
    >>> parse_metric("nddcg@10")
    Traceback (most recent call last):
    ...
    ValueError: There is no metric 'nddcg@10'. Did you mean 'ndcg@10'? A metric is one of ndcg, ndcg_exp, map, mrr, \
recall, precision, hit, rprec, err, err_grades, rbp, judged, hole, with '@K' for a cutoff, and rbp.8 for a persistence \
of 0.8.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["family"] not in FAMILIES:
        raise ValueError(_unknown(name))
    family, cutoff = match["family"], None if match["cutoff"] is None else int(match["cutoff"])
    if family == "rbp" and match["parameter"] is None:
        raise ValueError(f"{name!r}: rank-biased precision needs its persistence, for example 'rbp.8@{cutoff or 100}'.")
    if cutoff == 0:
        raise ValueError(f"{name!r}: a cutoff is at least 1.")
    if family == "rprec" and cutoff is not None:
        raise ValueError(f"{name!r}: R-precision is cut at each query's number of relevant documents; write 'rprec'.")
    if cutoff is None and family in _NEEDS_CUTOFF:
        raise ValueError(f"{name!r} needs a cutoff, for example '{family}@10'.")
    return MetricName(family, cutoff, None if match["parameter"] is None else float(match["parameter"]))


def depth(names: list[str] | tuple[str, ...]) -> int:
    """How many documents must be retrieved for these metrics to be what their names say: the largest cutoff.

    >>> depth(["ndcg@10", "recall@50", "rprec"])
    50
    """
    return max((parse_metric(name).cutoff or 0 for name in names), default=0)


def _unknown(name: str) -> str:
    head, at, tail = name.lower().replace(" ", "").partition("@")
    head = re.sub(r"[-]", "_", head)
    nearest = [_ELSEWHERE[head]] if head in _ELSEWHERE else get_close_matches(head, FAMILIES, n=1, cutoff=0.4)
    hint = ""
    if nearest:
        suffix = (
            f"@{tail}"
            if at and tail.isdigit() and nearest[0] != "rprec"
            else "@10"
            if nearest[0] in _NEEDS_CUTOFF
            else ""
        )
        parameter = ".8" if nearest[0] == "rbp" else ""
        hint = f" Did you mean '{nearest[0]}{parameter}{suffix}'?"
    return (
        f"There is no metric {name!r}.{hint} A metric is one of {', '.join(FAMILIES)}, with '@K' for a cutoff, "
        "and rbp.8 for a persistence of 0.8."
    )
