"""`gcl evaluate … judgments=…`: what people graded afterwards counts, and what does not fit is told."""

import csv
import gzip
import json

import numpy as np
import pytest

from gcl.errors import ConfigError
from gcl.retrieval.tasks.judgments import read_judgments, write_judgments
from gcl.retrieval.tasks.trec import read_qrels, read_run
from helpers.judged_shop import means

TASK = ["evaluate.tasks=[table,trec]", "models=[tiny]"]


def lines(path, rows, header=("query_id", "product_id", "grade")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_judgments_are_added_and_replace_and_the_metrics_follow(judged, plain, tmp_path):
    _, _, evaluate = judged
    before = {task: read_qrels(plain / f"tasks/{task}/qrels.trec") for task in ("table", "trec")}
    largest = {task: max(max(own.values()) for own in qrels.values()) for task, qrels in before.items()}
    old = sorted(before["table"]["q1"])[0]
    results = [document for document, _ in read_run(plain / "tasks/table/run.tiny.trec")["q1"]]
    new = next(document for document in results[:10] if document not in before["table"]["q1"] | before["trec"]["q2"])
    file = write_judgments(tmp_path / "qrels.csv", {("table", "q1", old): 0, ("table", "q1", new): 4,
                                                    ("trec", "q2", new): 3})  # fmt: skip
    out = evaluate(*TASK, f"judgments={file}")
    after = {task: read_qrels(out / f"tasks/{task}/qrels.trec") for task in before}
    assert after["table"]["q1"] == pytest.approx({**before["table"]["q1"], old: 0, new: largest["table"]})
    assert after["trec"]["q2"] == pytest.approx({**before["trec"]["q2"], new: 0.75 * largest["trec"]})
    assert all(after[task][q] == before[task][q] for task in before for q in before[task] if q not in ("q1", "q2"))
    notes = (out / "results.md").read_text()
    assert (
        f"Table: 1 judgment added and 1 replaced from qrels.csv; grades 0 to 4 count as 0 to {largest['table']:g}"
        in notes
    )
    assert json.loads((out / "results.json").read_text())["provenance"]["data"]["judged"]["judgments"]["sha256"]
    for metric in ("judged@10", "ndcg@10"):
        assert means(out, "table")[metric] > means(plain, "table")[metric]


def test_everything_judged_through_the_file_is_the_task_judged_so_from_the_start(judged, plain, tmp_path):
    """Its own judgments once more, as relevances on its scale, change nothing."""
    _, _, evaluate = judged
    qrels = read_qrels(plain / "tasks/table/qrels.trec")
    rows = [(q, d, value) for q, own in qrels.items() for d, value in own.items()]
    file = lines(tmp_path / "again.csv", rows, ("query_id", "document_id", "relevance"))
    out = evaluate("evaluate.tasks=[table]", "models=[tiny]", f"judgments={file}")
    assert means(out, "table") == means(plain, "table")
    assert f"Table: 0 judgments added and {len(rows)} replaced" in (out / "results.md").read_text()


def test_what_does_not_belong_is_counted_and_told(judged, tmp_path):
    _, _, evaluate = judged
    rows = [("q1", "p01", 2), ("q1", "nothing", 1), ("who", "p01", 1), ("who", "p02", 1)]
    out = evaluate(*TASK, f"judgments={lines(tmp_path / 'some.csv', rows)}")
    notes = json.loads((out / "results.json").read_text())["notes"]
    assert any(note.startswith("2 of 4 judgments from some.csv were left out, of a query that the") for note in notes)
    assert any(note.startswith("1 of 4 judgments") and "product 'nothing'" in note for note in notes)
    with pytest.raises(SystemExit):
        evaluate(*TASK, f"judgments={lines(tmp_path / 'none.csv', rows[1:])}")
    with pytest.raises(SystemExit):
        evaluate("evaluate.sets=[judged]", f"judgments={tmp_path / 'some.csv'}", data=None)


@pytest.mark.parametrize(
    "header, rows, sentence",
    [
        (None, [("q1", "p1", 5)], "row 1: expected a grade from 0 to 4, given '5'"),
        (None, [("q1", "p1", "good")], "row 1: expected a grade from 0 to 4, given 'good'"),
        (None, [("q1", "p1", -1)], "expected a grade from 0 to 4"),
        (None, [("q1", "p1", 1), ("q1", "", 2)], "row 2: product_id is empty"),
        (None, [("q1", "p1", 1), ("q2", "p1", 1), ("q1", "p1", 2)], "row 3: query 'q1' and product 'p1' are judged 2"),
        (None, [], "holds no judgment"),
        (("query_id", "product", "grade"), [("q1", "p1", 1)], "expected one of the columns product_id, document_id"),
        (("query_id", "product_id", "grade", "score"), [("q1", "p1", 1, 1)], "expected one of the columns grade,"),
        (("query_id", "product_id", "score"), [("q1", "p1", "-2")], "expected a relevance of at least 0"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(header, rows, sentence, tmp_path):
    with pytest.raises((ConfigError, KeyError, ValueError)) as refused:
        read_judgments(lines(tmp_path / "qrels.csv", rows, header or ("query_id", "product_id", "grade")))
    assert sentence in str(refused.value)


def test_relevances_beyond_the_task_s_scale_are_refused(judged, tmp_path):
    _, _, evaluate = judged
    file = lines(tmp_path / "percent.csv", [("q1", "p01", 80)], ("query_id", "product_id", "score"))
    with pytest.raises(SystemExit):
        evaluate(*TASK, f"judgments={file}")


def test_any_id_comes_back_from_the_file_and_no_spreadsheet_runs_one(tmp_path):
    ids = ["=1+1", "@x", "-5", "a,b", 'say "x"', "é鞋", "007", "+cmd", "two\nlines", "NA"]
    grades = {
        ("a task", query, product): float(n % 5) for n, (query, product) in enumerate(zip(ids, ids[::-1], strict=True))
    }
    file = write_judgments(tmp_path / "qrels.csv", grades)
    assert {(line.task, line.query, line.product): line.value for line in read_judgments(file).lines} == grades
    with open(file, newline="", encoding="utf-8") as opened:
        cells = [cell for row in csv.reader(opened) for cell in row]
    assert not any(cell.startswith(("=", "@", "+")) for cell in cells)


def test_trec_qrels_are_judgments_on_the_tasks_scale(tmp_path):
    (tmp_path / "more.qrels").write_text("q1 0 p01 1\nq2 0 p02 0\n")
    judgments = read_judgments(tmp_path / "more.qrels")
    assert not judgments.graded and [(line.query, line.value) for line in judgments.lines] == [("q1", 1.0), ("q2", 0.0)]
    assert np.isfinite([line.value for line in judgments.lines]).all()


@pytest.mark.parametrize("suffix", ["txt", "tsv", "qrels", "txt.gz"])
def test_trec_qrels_are_told_by_their_lines_and_judge_nothing_below_zero(tmp_path, suffix):
    path, lines = tmp_path / f"more.{suffix}", b"q1 0 p1 2\nq1 0 p2 -1\n"
    path.write_bytes(gzip.compress(lines) if suffix.endswith("gz") else lines)
    assert [(line.product, line.value) for line in read_judgments(path).lines] == [("p1", 2.0), ("p2", 0.0)]
