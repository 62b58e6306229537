"""Every fault of a task is found, counted and named, and a task that measures nothing is refused."""

import numpy as np
import pytest

from gcl.retrieval.tasks.task import ListRecords, audit_of, task_from_qrels
from gcl.schema import Field

QUERY, DOCUMENT = {"query": Field()}, {"title": Field(), "brand": Field()}


def task(qrels, *, titles=None, queries=("q0", "q1", "q2"), documents=("d0", "d1", "d2", "d3", "d4", "d5")):
    titles = titles or {}
    return task_from_qrels(
        "shoes",
        ListRecords(list(queries), [{"query": name} for name in queries], QUERY),
        ListRecords(list(documents), [{"title": titles.get(name, name)} for name in documents], DOCUMENT),
        qrels,
    )


GOOD = {"q0": {"d0": 1, "d1": 2}, "q1": {"d2": 3, "d3": 0}, "q2": {"d4": 1, "d5": 1}}


def test_a_sound_task_says_nothing():
    found = audit_of(task(GOOD)).check()
    assert found.lines == [] and found.broken is None and (found.queries, found.documents, found.judgments) == (3, 6, 6)


def test_dangling_judgments_are_counted_kept_and_too_many_refused():
    some = task({**GOOD, "q2": {"d4": 1, "gone": 1}})
    found = audit_of(some)
    assert (found.dangling, found.dangling_example, found.broken) == (1, "gone", None)
    assert found.lines == ["Shoes: 1 of 6 judgments point outside the corpus; they count as missed."]
    assert some.qrels["q2"] == {"d4": 1.0, "gone": 1.0}  # still there for whoever writes the judgments
    many = {**GOOD, "q1": {"d2": 1, "away": 1}, "q2": {"d4": 1, "gone": 1}}
    with pytest.raises(ValueError, match=r"'shoes' cannot be measured: 2 of 6 judgments \(33.3%\).*'away'"):
        audit_of(task(many)).check()


def test_queries_that_nothing_can_answer():
    found = audit_of(task({"q0": {"d0": 1, "d1": 1, "d2": 1, "d3": 1}, "q1": {"gone": 2}, "q2": {"d1": 0}}))
    assert (found.unanswerable, found.without_positive, found.broken) == (1, 1, None)
    with pytest.raises(ValueError, match="no query has a relevant document in the corpus"):
        audit_of(task({"q0": {"d0": 0}, "q1": {"d1": 0}, "q2": {"gone": 1}})).check()
    with pytest.raises(ValueError, match="0 judgments"):
        audit_of(task({})).check()


def test_twins_make_recall_unfair_unless_both_are_judged():
    titles = {"d0": "same", "d5": "same", "d1": "equal", "d2": "equal"}
    found = audit_of(task({"q0": {"d0": 1}, "q1": {"d1": 1, "d2": 1}, "q2": {"d4": 1}}, titles=titles))
    assert (found.duplicates, found.unfair) == (4, 1)
    assert any("1 of 3 queries judge a document relevant and its twin not" in line for line in found.lines)


def test_equal_ids_negative_judgments_and_repeats():
    found = audit_of(task({"d0": {"d0": 1, "d1": -1}, "q1": {"d2": 1}, "q2": {"d4": 1}}, queries=("d0", "q1", "q2")))
    assert (found.same_ids, found.negative) == (1, 1) and len(found.lines) == 2
    twice = task(GOOD)
    judgments = twice.judgments
    twice.judgments = type(judgments)(
        *(np.append(v, v[:1]) for v in (judgments.query, judgments.document, judgments.relevance))
    )
    with pytest.raises(ValueError, match="judged more than once"):
        audit_of(twice).check()


def test_judgments_of_unknown_queries_and_odd_relevances_are_refused():
    with pytest.raises(ValueError, match="1 judged queries are not among its queries, for example 'q9'"):
        task({"q9": {"d0": 1}})
    with pytest.raises(ValueError, match="finite number"):
        task({"q0": {"d0": float("nan")}})
