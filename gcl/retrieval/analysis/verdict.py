"""What to do with a model that was compared with another: one rule for the terminal, the page and `evaluate.gate`.

Of each task the first headline metric counts.

1. A task got better or worse if its paired p-value, Holm-corrected over the tasks (and models), is below 0.05, its
   95 % interval lies on one side of 0, and it has at least 20 queries. Everything else may be chance.
2. A task that training has seen (`in_domain`) may count as worse, but not as better: that is learned by heart.
3. do not ship           a retention set lost more than its limit, or more tasks got worse than better
   mixed                 a task got worse, or of a task that got better more than a third of the queries got worse
   ship                  a task got better, and none of the above
   no clear difference   the rest
4. The sentence names the exception in counts of queries: tasks that got worse, also those that may have by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from gcl.retrieval.metrics.statistics import FEWEST, Comparison, compare, holm

if TYPE_CHECKING:  # which load torch; finished runs are judged without it
    from gcl.retrieval.evaluate import TaskResult

FIRM = 0.05  # the largest p-value, after Holm's correction, of a difference that is claimed
MOST_WORSE = 1 / 3  # of the queries of a task that got better
PAIR = ("base", "tuned")  # a run's own two models
_SEEN = "in_domain"


class Decision(Enum):
    """What follows; its value is what people read."""

    ship = "ship"
    mixed = "mixed"
    unclear = "no clear difference"
    worse = "do not ship"


@dataclass(frozen=True)
class Judged:
    """A task's headline metric with both models. title: in words. p: Holm-corrected. seen: by training."""

    title: str
    comparison: Comparison
    p: float
    seen: bool = False

    @property
    def firm(self) -> bool:
        return self.comparison.n >= FEWEST and self.p < FIRM

    @property
    def better(self) -> bool:
        return self.firm and self.comparison.low > 0 and not self.seen

    @property
    def worse(self) -> bool:
        return self.firm and self.comparison.high < 0

    @property
    def split(self) -> bool:
        """Better on average, but not for too many of the queries."""
        return self.better and self.comparison.losses > MOST_WORSE * self.comparison.n


@dataclass(frozen=True)
class Verdict:
    """decision, and why: `reason` is the sentence without it. better, worse: titles of the tasks that got so;
    lower: of those whose mean fell, perhaps by chance; forgotten: the retention sets beyond their limits, in words."""

    decision: Decision
    reason: str
    better: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """One sentence, without its full stop: "Better on 3 of 4 tasks (…), worse on titles (2 of 17 …): ship"."""
        if self.decision is Decision.unclear:
            return self.reason
        return f"{self.reason}: {self.decision.value}"

    @property
    def below(self) -> str:
        """The reason, below the decision in large letters, which it does not repeat."""
        return _capital(self.reason.removeprefix(_capital(self.decision.value)).lstrip(": "))

    def as_dict(self) -> dict[str, Any]:
        return {
            "decision": self.decision.value, "sentence": self.sentence, "better": list(self.better),
            "worse": list(self.worse), "lower": list(self.lower), "forgotten": list(self.forgotten),
        }  # fmt: skip


def spoken(label: str, base: str, verdict: Verdict) -> str:
    """The verdict of a model with what it is about, but that of a run's own two models.

    >>> spoken("ours", "plain", Verdict(Decision.ship, "Better on titles"))
    'ours against plain: Better on titles: ship'
    >>> spoken("tuned", "base", Verdict(Decision.ship, "Better on titles"))
    'Verdict: Better on titles: ship'
    """
    return f"{'Verdict' if (base, label) == PAIR else f'{label} against {base}'}: {verdict.sentence}"


def judge(tasks: Sequence[Judged], forgotten: Sequence[str] = ()) -> Verdict:
    """The rule. forgotten: the retention sets that lost more than their limit, in words."""
    better, worse = [one for one in tasks if one.better], [one for one in tasks if one.worse]
    split = [one for one in better if one.split]
    lower = [one for one in tasks if one.comparison.change < 0 and not one.worse and one.comparison.losses]
    if forgotten or len(worse) > len(better):
        decision = Decision.worse
    elif worse or split:
        decision = Decision.mixed
    else:
        decision = Decision.ship if better else Decision.unclear
    if decision is Decision.unclear:
        reason = _unclear(tasks)
    else:
        held_out = [one for one in tasks if not one.seen]
        reason = _joined(
            _better(better, held_out, counts=not split),
            _split(split, of=len(held_out)),
            _worse(worse),
            _worse(lower, chance=True) if better else "",
            "forgot " + " and ".join(forgotten) if forgotten else "",
        )
    return Verdict(decision, _capital(reason), _titles(better), _titles(worse), _titles(lower), tuple(forgotten))


def verdicts_of(
    models: Mapping[str, Mapping[str, TaskResult]], metric: str, titles: Mapping[str, str],
    forgotten: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Verdict]:  # fmt: skip
    """{label: verdict} of every model but the first, with which it is compared. metric: the first headline metric.
    titles: {key of the results: the task in words}, as within a sentence. forgotten: by label, the retention sets
    beyond their limits in words (`Extras.forgotten`)."""
    (_, base), *others = models.items()
    compared = {
        (label, task): compare(base[task].values[metric], results[task].values[metric])
        for label, results in others
        for task in base
    }
    return verdicts(compared, titles, forgotten)


def verdicts(
    compared: Mapping[tuple[str, str], Comparison], titles: Mapping[str, str],
    forgotten: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Verdict]:  # fmt: skip
    """The same for comparisons by (label, task) that are known."""
    corrected = holm({key: comparison.p for key, comparison in compared.items()})
    tasks: dict[str, list[Judged]] = {}
    for (label, task), comparison in compared.items():
        one = Judged(titles[task], comparison, corrected[label, task], seen=is_seen(task))
        tasks.setdefault(label, []).append(one)
    return {label: judge(judged, (forgotten or {}).get(label, ())) for label, judged in tasks.items()}


def is_seen(task: str) -> bool:
    """Whether a task's queries and documents are those of training.

    >>> is_seen("shoes/in_domain.test"), is_seen("zero_shot")
    (True, False)
    """
    return task.rpartition("/")[2].partition(".")[0] == _SEEN


def _better(better: Sequence[Judged], held_out: Sequence[Judged], *, counts: bool) -> str:
    if not better:
        return ""
    if len(held_out) == 1:
        c, title = better[0].comparison, better[0].title
        figures = f" ({c.wins:,} of {_searches(c.n)} got better, {c.losses:,} worse)" if counts else ""
        return f"better on {title}{figures}"
    count = f"{len(better)} of {len(held_out)}"
    if len(better) == len(held_out):
        count = "both" if len(better) == 2 else f"all {len(better)}"
    return f"better on {count} tasks ({'; '.join(one.title for one in better)})"


def _split(split: Sequence[Judged], *, of: int) -> str:
    parts = [_losses(one.comparison) + (f" on {one.title}" if of > 1 else "") for one in split]
    return f"but worse for {' and '.join(parts)}" if split else ""


def _worse(tasks: Sequence[Judged], *, chance: bool = False) -> str:
    """chance: their mean fell by no more than chance explains, or on too few queries to tell."""
    parts = []
    for one in tasks:
        doubt = (", too few to be sure" if one.comparison.n < FEWEST else ", perhaps by chance") if chance else ""
        parts.append(f"{one.title} ({_losses(one.comparison)}{doubt})")
    return f"worse on {' and '.join(parts)}" if tasks else ""


def _losses(c: Comparison) -> str:
    return f"{c.losses:,} of {_searches(c.n)}"


def _titles(tasks: Sequence[Judged]) -> tuple[str, ...]:
    return tuple(one.title for one in tasks)


def _unclear(tasks: Sequence[Judged]) -> str:
    """Why nothing can be said."""
    held_out = [one for one in tasks if not one.seen]
    if not held_out:
        return "no clear difference: only searches and products of the training data were measured"
    most = max(one.comparison.n for one in held_out)
    where = f"on {held_out[0].title}" if len(held_out) == 1 else f"on any of {len(held_out)} tasks"
    if most < FEWEST:
        return f"no clear difference {where}: {_searches(most)} are too few to tell ({FEWEST} are the least)"
    one = max(held_out, key=lambda judged: judged.comparison.n)
    c, place = one.comparison, "" if len(held_out) == 1 else f" on {one.title}"
    return f"no clear difference {where} ({c.wins:,} of {_searches(c.n)} got better, {c.losses:,} worse{place})"


def _searches(count: int) -> str:
    return "1 search" if count == 1 else f"{count:,} searches"


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
