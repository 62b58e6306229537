"""General sets read from files, and the verdict on what was lost."""

import json

import numpy as np
import pytest

from gcl.retrieval.analysis.retention import as_dict, retained, retention_table
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.tasks.general import General, classification, read_folder
from gcl.schema import Field, Schema


def folder(path, *, corpus="c1", query="q1", qrels="query-id\tcorpus-id\tscore\nq1\tc1\t2\n"):
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text(json.dumps({"_id": corpus, "title": "Red", "text": "shoe"}) + "\n\n")
    (path / "queries.jsonl").write_text(json.dumps({"_id": query, "text": "red"}) + "\n")
    (path / "qrels" / "test.tsv").write_text(qrels)
    return path


def test_a_folder_of_beir_s_layout(tmp_path):
    task = read_folder("f", folder(tmp_path / "a"))
    assert task.qrels == {"q1": {"c1": 2.0}}
    assert task.corpus[0] == {"text": "Red shoe"} and task.queries[0] == {"text": "red"}
    without_header = read_folder("f", folder(tmp_path / "b", qrels="q1\tc1\t2\nq1\tgone\t1\n"))
    assert without_header.qrels == {"q1": {"c1": 2.0, "gone": 1.0}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"qrels": "q1\tc1\n"}, r"test.tsv, line 1: 2 columns"),
        ({"qrels": "q9\tc1\t1\n"}, r"line 1: there is no query 'q9'"),
    ],
)
def test_a_folder_that_is_wrong_says_where(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        read_folder("f", folder(tmp_path / "a", **change))
    (tmp_path / "a" / "corpus.jsonl").write_text("{no json\n")
    with pytest.raises(ValueError, match=r"corpus.jsonl, line 1: no JSON object"):
        read_folder("f", tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"no .*nowhere.corpus.jsonl"):
        read_folder("f", tmp_path / "nowhere")


def table(path, rows="a.png,cat\nb.png, dog \nb.png,cat\n"):
    for name in ("a.png", "b.png"):
        (path / name).write_bytes(name.encode())
    (path / "photos.csv").write_text("image,label\n" + rows)
    return path / "photos.csv"


def test_a_classification_is_a_retrieval_task(tmp_path):
    task, schema = classification("c", table(tmp_path), templates=["a {}.", "{}"], classes=["dog", "cat", "owl"])
    assert list(task.corpus.ids) == ["dog", "cat", "owl"] and task.qrels["1"] == {"dog": 1.0}
    assert task.corpus[1] == {"template_0": "cat", "template_1": "cat"}
    assert [field.prompt for field in schema.document.values()] == ["a {}.", "{}"]
    assert task.queries.column("image", np.array([2])) == [b"b.png"] and task.queries.present(np.array([0])).all()
    assert list(classification("c", table(tmp_path))[0].corpus.ids) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("rows", "options", "kind", "says"),
    [
        ("a.png,cat\n", {"templates": ["no place"]}, ValueError, "'no place' must contain '{}' once"),
        ("a.png,cat\n", {"templates": []}, ValueError, "templates is empty"),
        ("a.png,cat\n", {"classes": ["dog"]}, ValueError, "label 'cat' is not one of"),
        ("a.png,cat\nb.png,\n", {}, ValueError, r"row 2: the image or the label is missing \(1 of 2 rows\)"),
        ("a.png,cat\nz.png,dog\n", {}, FileNotFoundError, r"z.png \(1 of 2 are missing\)"),
        ("a.png,cat\n", {"label": "lable"}, KeyError, "no column 'lable'"),
    ],
)
def test_a_classification_that_is_wrong_says_where(tmp_path, rows, options, kind, says):
    with pytest.raises(kind, match=says):
        classification("c", table(tmp_path, rows), **options)


def test_the_verdict_is_on_the_mean_of_a_set_s_tasks():
    def results(*values):
        row = np.zeros((4, 1), dtype=np.int64)
        return {
            f"t{n}": TaskResult(f"t{n}", {"ndcg@10": np.full(4, v)}, row.astype(np.float32), row, list("abcd"), ["x"])
            for n, v in enumerate(values)
        }

    for limit, exceeded in ((0.05, False), (0.049, True)):
        one = General("g", Schema({"q": Field()}, {"d": Field()}), [], [], ("ndcg@10",), "ndcg@10", limit)
        (kept,) = retained([one], {"g": results(0.5, 0.5)}, {"g": results(0.3, 0.6)})
        assert kept.loss == pytest.approx(0.05) and kept.exceeded is exceeded
        assert ("FORGOTTEN" in retention_table([kept]).text()) is exceeded and as_dict([kept])["g"][
            "exceeded"
        ] is exceeded
        assert (kept.warning is not None) is exceeded
