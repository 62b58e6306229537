"""Field weights by evidence: chosen on the dev half when training has ended, and what they are worth on the test half.

The rule itself is in gcl/retrieval/analysis/weight_sweep.py. The query's weights are chosen first and the document's
last, with the query's chosen ones: so on the dev half no single field of the document is better than all together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gcl.distributed.ranks import of_first_rank
from gcl.model.query_weights import QueryWeights
from gcl.retrieval.analysis.weight_sweep import (
    NOTHING,
    Embedded,
    Swept,
    choose,
    difference_by_query,
    measure_weights,
    query_numbers,
    sweep_weights,
    usable,
    weighed_by_query,
)
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.metrics.statistics import Interval, bootstrap
from gcl.retrieval.report import Row, comparison_rows, interval_text, results_table
from gcl.run.field_weights import ChosenWeights, written
from gcl.schema import Schema, SideName
from gcl.table import Table

FEWEST = 5  # queries of a dev half that choose; what is within luck of the given weights changes nothing anyway
_ORDER: tuple[SideName, ...] = ("query", "document")
Results = Mapping[str, TaskResult]


def sides_to_weigh(schema: Schema) -> list[SideName]:
    """The sides with more than one field of positive weight, in the order in which they are weighed."""
    return [side for side in _ORDER if sum(one.weight > 0 for one in schema.side(side).values()) > 1]


def weigh(
    tasks: Sequence[Embedded], metrics: Sequence[str], schema: Schema, *, steps: int = 20, most: int = 200
) -> tuple[dict[SideName, Swept], dict[SideName, dict[str, float]]]:
    """What was tried for each side that has weights to choose, and the weights that the rule takes, of both sides."""
    now = schema.weights
    best, swept = dict(now), {}
    for side in sides_to_weigh(schema):
        theirs = [one for one in tasks if side == "query" or one.task.document_weights is None]
        if not theirs:  # every task has weights of its own
            continue
        others = best["document" if side == "query" else "query"]
        tried = sweep_weights(theirs, metrics, side=side, others=others, start=now[side], steps=steps, most=most)
        swept[side] = choose(tried, now[side], theirs, side)
        if not swept[side].kept:
            best[side] = usable(swept[side].best.weights, now[side])
    return swept, best


def choose_weights(catalogs: Sequence[str], schema: Schema, tasks: Sequence[Embedded], metric: str) -> ChosenWeights:
    """By the rule on the tasks of the dev half, alike on every rank. Where there is nothing to choose, or too little to
    choose by: the given weights, and why."""
    given = schema.weights
    queries = len({str(name) for one in tasks for name in one.task.queries.ids})
    kept = ChosenWeights(catalogs, given, given, "", metric, queries)
    if not sides_to_weigh(schema):
        return replace(kept, why="there is one field on each side")
    if queries < FEWEST:
        return replace(kept, why=f"the dev half has {queries} queries, and fewer than {FEWEST} choose by luck")
    swept, best = of_first_rank(weigh(tasks, [metric], schema))  # what differs in a last bit is decided once
    if not swept:
        return replace(kept, why="every task has document weights of its own")
    last = list(swept.values())[-1]
    single = {name: weight for name, weight in last.single.weights.items() if weight > 0}
    dev = {"given": next(iter(swept.values())).now.value, "used": last.best.value,
           "single": {next(iter(single)): last.single.value}, "best": last.tried[0].value}  # fmt: skip
    counted = f"{metric} {dev['given']:.4f} -> {dev['used']:.4f} on {queries:,} queries of the dev half"
    if best == given:
        shown = f"{metric} {dev['given']:.4f} on {queries:,} queries of the dev half"
        return replace(kept, dev=dev, why=f"no others are better by more than luck ({shown})")
    return replace(kept, used=best, dev=dev, why=f"chosen after training ({counted})")


def by_query_or_constant(
    chosen: ChosenWeights, tasks: Sequence[Embedded], gate: QueryWeights, metric: str
) -> ChosenWeights:
    """Weights by query where they are not below the best constant ones that were tried on the dev half, single fields
    among them; otherwise the chosen constant ones, and why."""
    tasks = [one for one in tasks if one.task.document_weights is None]
    if "best" not in chosen.dev or not tasks:  # there was too little to choose by
        return replace(chosen, why=f"{chosen.why}; the same holds for weights by query")
    tried = measure_weights(weighed_by_query(tasks, gate), "document", None, metric, chosen.used["query"])
    value, best = of_first_rank(tried.value), chosen.dev["best"]
    dev = {**chosen.dev, "by_query": value}
    counted = f"{metric} {value:.4f}, the best constant ones {best:.4f}, on {chosen.queries:,} queries of the dev half"
    if value < best:
        return replace(chosen, dev=dev, why=f"{chosen.why}; weights by query are worse there ({counted})")
    return replace(chosen, dev=dev, by_query=True, why=f"learned with the loss ({counted})")


def learned_weights(
    catalogs: Sequence[str], schema: Schema, shares: Mapping[SideName, Mapping[str, float]]
) -> ChosenWeights:
    """Those that were trained with the loss, of the same sum as the given ones."""
    given = schema.weights
    used = {side: usable(shares[side], now) if side in shares else now for side, now in given.items()}
    return ChosenWeights(catalogs, given, used, "learned with the loss")


@dataclass(frozen=True)
class Beaten:
    """The document's weights on a catalog where one of its fields alone is better. change: its mean and interval."""

    catalog: str
    weights: Mapping[str, float]
    field: str
    metric: str
    before: float
    change: Interval
    queries: int
    setting: str

    @property
    def sentence(self) -> str:
        """Without its full stop."""
        return (
            f"On {self.catalog}, document.{self.field} alone is better than {written(self.weights)}: {self.metric} "
            f"{self.before + self.change.mean:.4f} instead of {self.before:.4f} ({interval_text(self.change)}, "
            f"{self.queries:,} queries)"
        )


def beaten_by_a_field(catalog: str, schema: Schema, tasks: Sequence[Embedded], metric: str) -> Beaten | None:
    """Whether a single field of the document would beat the schema's weights, by more than luck (95 %)."""
    tasks = [one for one in tasks if one.task.document_weights is None]
    weights = schema.weights["document"]
    fields = [name for name, weight in weights.items() if weight > 0]
    numbers = query_numbers(tasks)
    queries = len(set(numbers.tolist()))
    if len(fields) < 2 or queries < FEWEST:
        return None
    now = measure_weights(tasks, "document", weights, metric)
    alone = {name: usable({other: float(other == name) for other in fields}, weights) for name in fields}
    tried = {name: measure_weights(tasks, "document", alone[name], metric) for name in fields}
    best = max(tried, key=lambda name: tried[name].value)
    change = bootstrap(difference_by_query(tried[best], now, numbers))
    if change.low <= 0:
        return None
    columns = [list(weights).index(best)]
    everywhere = all(bool(one.document.present[:, columns].all()) for one in tasks)
    zero = "0" if everywhere else f"{NOTHING:g}"  # where a product lacks the field, it has the others
    setting = " ".join(f"data.document.{name}.weight={zero}" for name in fields if name != best)
    return Beaten(catalog, weights, best, metric, now.value, change, queries, setting)


@dataclass(frozen=True)
class Weighed:
    """What was chosen, and the headline on the test half: with the given weights and with the chosen ones, if these are
    others; with the best constant ones and with weights by query, if those were learned."""

    chosen: ChosenWeights
    rows: Sequence[Row]
    by_query: Sequence[Row]

    @classmethod
    def of(
        cls, chosen: ChosenWeights, metrics: Sequence[str], *, seed: int, given: Results | None, constant: Results,
        by_query: Results | None,
    ) -> Weighed:  # fmt: skip
        """given, by_query: None where there is nothing to compare."""

        def compared(before: Results | None, after: Results | None) -> Sequence[Row]:
            if before is None or after is None:
                return ()
            same = (
                {task: replace(one, values={name: one.values[name] for name in metrics}) for task, one in each.items()}
                for each in (before, after)
            )
            return comparison_rows(*same, seed=seed)

        return cls(chosen, compared(given, constant), compared(constant, by_query))

    @property
    def tables(self) -> list[Table]:
        chosen = _table("What the field weights are worth, tuned model, test half", self.rows, _CHOSEN)
        by_query = _table("What weights by query are worth, tuned model, test half", self.by_query, _BY_QUERY)
        return [*chosen, *by_query]

    def as_dict(self) -> dict[str, Any]:
        chosen, by_query = (
            [{names.get(key, key): value for key, value in row.record().items()} for row in rows]
            for names, rows in ((_CHOSEN, self.rows), (_BY_QUERY, self.by_query))
        )
        known = {"given": self.chosen.given, "chosen": self.chosen.used, "why": self.chosen.why, "test": chosen}
        return {**known, "by_query": by_query} if by_query else known


def _table(title: str, rows: Sequence[Row], names: Mapping[str, str]) -> list[Table]:
    """Nothing where there are no rows."""
    table = results_table(rows).renamed(lambda name: names.get(name, name)) if rows else None
    return [] if table is None else [replace(table, title=title, grouped=False)]


_CHOSEN = {"base": "given", "tuned": "chosen"}
_BY_QUERY = {"base": "constant", "tuned": "by query"}
