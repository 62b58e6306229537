"""A change that rests on results that nobody has judged is told from one that does not."""

import numpy as np

from gcl.retrieval.analysis.unsure import condensed, known_item, unsure
from gcl.retrieval.evaluate import result_of
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.schema import Field


def task_of(qrels):
    names = [f"d{n}" for n in range(6)]
    corpus = ListRecords(names, [{"title": name} for name in names], {"title": Field()})
    queries = ListRecords(list(qrels), [{"query": name} for name in qrels], {"query": Field()})
    return task_from_qrels("t", queries, corpus, qrels)


def result(task, *rows):
    row = np.array(rows)
    score = -np.arange(row.shape[1], dtype=np.float32) + np.zeros((len(row), 1), dtype=np.float32)
    return result_of(task, score, row, ["ndcg@2"])


def test_only_changes_that_vanish_among_judged_results_are_unsure():
    task = task_of({"a": {"d0": 1, "d1": 0}, "b": {"d0": 1, "d1": 0}, "c": {"d0": 1, "d1": 0}, "d": {"d0": 1}})
    before = result(task, [0, 2, 3, 1], [0, 1, 2, 3], [3, 4, 0, 1], [0, 2, 3, 4])
    after = result(task, [2, 3, 0, 1], [1, 0, 2, 3], [0, 1, 3, 4], [0, 2, 3, 4])
    # a: two unjudged results come before the relevant one; b: a judged one does; c: as a, but gained; d: no change
    assert unsure(task, before, after, "ndcg@2").tolist() == [True, False, True, False]
    assert condensed(task, after, "ndcg@2").tolist()[0] == condensed(task, before, "ndcg@2").tolist()[0] == 1
    task.judgments.__dict__["complete"] = True
    assert not unsure(task, before, after, "ndcg@2").any()


def test_a_query_with_one_judged_item_measures_its_rank():
    task = task_of({"a": {"d0": 1}, "b": {"d0": 1}, "c": {"d0": 0}, "d": {"d0": 1, "d1": 1}})
    before = result(task, [0, 1], [1, 0], [0, 1], [0, 2])
    after = result(task, [2, 3], [0, 1], [1, 0], [2, 0])
    assert known_item(task).tolist() == [True, True, False, False]
    assert unsure(task, before, after, "ndcg@2").tolist() == [False, False, False, True]
