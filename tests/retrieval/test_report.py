"""Tables, TREC files: what is written reads back, what cannot be written is refused."""

import csv
import io
import json

import numpy as np
import pytest
import pytrec_eval

from gcl.retrieval.evaluate import result_of
from gcl.retrieval.report import (
    audit_lines,
    comparison_rows,
    contest_rows,
    results_records,
    results_table,
    single_rows,
)
from gcl.retrieval.tasks.task import task_from_qrels
from gcl.retrieval.tasks.trec import read_qrels, read_run, write_qrels, write_run
from helpers.tiny_encoder import documents, queries

METRICS = ["ndcg@10", "map", "recall@5"]


@pytest.fixture(scope="module")
def task():
    generator = np.random.default_rng(0)
    qrels = {
        f"q{n}": {f"d{d:03d}": int(generator.integers(1, 4)) for d in generator.permutation(50)[:6]} for n in range(20)
    }
    return task_from_qrels("novel", queries(20), documents(50), qrels)


def results(task, seed):
    """Results that a model of quality `seed` might give: distinct scores, so that tie rules do not matter."""
    score = np.random.default_rng(seed).random((20, 50)).astype(np.float32)
    score[task.judgments.query, task.judgments.document] += np.float32(0.3 * seed)
    row = np.argsort(-score, axis=1)[:, :30]
    return {"novel": result_of(task, np.take_along_axis(score, row, 1), row, METRICS)}


def test_tables_hold_the_same_figures(task):
    base, tuned = results(task, 1), results(task, 2)
    rows = comparison_rows(base, tuned)
    assert [row.metric for row in rows] == METRICS
    for row in rows:
        assert row.comparison.before == base["novel"].means[row.metric] and row.p_corrected >= row.comparison.p
    text = results_table(rows).text().splitlines()
    assert len({len(line.rstrip()) for line in text}) == 1  # aligned: all lines end in the same column
    assert f"{tuned['novel'].means['map']:.4f}" in text[3] and text[0].split()[:3] == ["task", "metric", "base"]
    assert results_table(rows).markdown().count("|") == 5 * 10
    back = list(csv.DictReader(io.StringIO(results_records(rows).csv())))
    assert [float(line["change"]) for line in back] == [row.comparison.change for row in rows]
    assert int(back[0]["better"]) + int(back[0]["same"]) + int(back[0]["worse"]) == int(back[0]["n"]) == 20
    assert json.loads(results_records(rows).json()) == [row.record() for row in rows]
    single = results_table(single_rows(base)).text()
    assert f"{base['novel'].means['ndcg@10']:.4f}" in single and "20" in single
    assert audit_lines(base.values()) == [] and results_records([]).csv() == ""


def test_different_queries_or_tasks_are_not_compared(task):
    base, tuned = results(task, 1), results(task, 2)
    with pytest.raises(ValueError, match="different tasks"):
        comparison_rows(base, {"other": tuned["novel"]})
    with pytest.raises(ValueError, match="answered different queries"):
        comparison_rows(base, {"novel": type(tuned["novel"])(**{**vars(tuned["novel"]), "query_ids": ["x"] * 20})})


def test_trec_files_give_other_tools_our_figures(task, tmp_path):
    result = results(task, 1)["novel"]
    run_file, qrels_file = (
        write_run(tmp_path / "a" / "run.trec", result.run),
        write_qrels(tmp_path / "qrels.trec", task.qrels),
    )
    assert read_run(run_file) == result.run and read_qrels(qrels_file) == task.qrels
    with open(run_file) as run, open(qrels_file) as qrels:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"ndcg_cut.10", "map", "recall.5"})
        theirs = evaluator.evaluate(pytrec_eval.parse_run(run))
    for name, other in (("ndcg@10", "ndcg_cut_10"), ("map", "map"), ("recall@5", "recall_5")):
        values = [theirs[str(query)][other] for query in result.query_ids]
        assert np.allclose(result.values[name], values, atol=1e-9)


def test_relevances_and_scores_survive_exactly(tmp_path):
    qrels = {"q": {"a": 3.0, "b": 0.5, "c": -1.0}}
    assert read_qrels(write_qrels(tmp_path / "q", qrels)) == qrels
    assert "q 0 a 3\n" in (tmp_path / "q").read_text()
    score = float(np.float32(0.1) * np.float32(3))
    assert read_run(write_run(tmp_path / "r", {"q": [("a", score), ("b", -1e-7)]})) == {
        "q": [("a", score), ("b", -1e-7)]
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("q 0 a 1\nq 0 a 2\n", "line 2: query 'q' and document 'a'"),
        ("q 0 a\n", "3 columns, expected 4"),
        ("q 0 a x\n", "'x'"),
        ("q 0 a nan\n", "line 1: the relevance 'nan' is not a number"),
        ("# queries, judged\n", r"f is empty: expected lines of 4 columns \(query_id 0 document_id relevance\)"),
    ],
)
def test_broken_files_name_their_line(tmp_path, content, says):
    (tmp_path / "f").write_text(content)
    with pytest.raises(ValueError, match=says):
        read_qrels(tmp_path / "f")


def test_ids_with_white_space_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="'red shoe'"):
        write_run(tmp_path / "r", {"q": [("red shoe", 1.0)]})
    assert not list(tmp_path.iterdir())


def test_three_models_in_one_table(task):
    models = {"first": results(task, 1), "second": results(task, 2), "third": results(task, 3)}
    rows = contest_rows(models, ["ndcg@10", "map"])
    assert [(row.metric, row.model) for row in rows] == [(m, label) for m in METRICS for label in models]
    tested = [row for row in rows if row.against is not None]
    assert len(tested) == 2 * 2 and {row.metric for row in tested} == {"ndcg@10", "map"}  # metrics x other models
    for row in rows:
        alone = single_rows(models[row.model])
        same = next(single for single in alone if single.metric == row.metric)
        assert row.interval.mean == pytest.approx(same.interval.mean) and row.n == same.n == 20
        assert row.interval.low == pytest.approx(same.interval.low, abs=1e-12)
    smallest, *_others = sorted(tested, key=lambda row: row.against.p)
    assert smallest.p_corrected == min(1, 4 * smallest.against.p)
    assert all(row.p_corrected >= row.against.p for row in tested)
    expected = comparison_rows(models["first"], models["third"])[0].comparison
    assert next(r for r in rows if (r.metric, r.model) == ("ndcg@10", "third")).against == expected
    text = results_table(rows).text().splitlines()
    assert text[0].split()[:3] == ["task", "metric", "model"] and len(text) == 2 + 9
    assert results_table(rows).markdown().splitlines()[1].startswith("| --- | --- | --- | ---: |")
    back = list(csv.DictReader(io.StringIO(results_records(rows).csv())))
    assert back[0]["p"] == "" and float(back[2]["p_holm"]) == rows[2].p_corrected
    with pytest.raises(ValueError, match="different tasks"):
        contest_rows({"first": models["first"], "second": {"other": models["second"]["novel"]}})
