"""gcl.evaluate: the numbers of the command, whatever holds the tables and whatever embeds."""

import csv
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest

import gcl
from gcl.cli import main


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {"cache_dir": str(tmp_path_factory.mktemp("prepared"))}


def figures_of(folder):
    return json.loads((folder / "results.json").read_text())["results"]


def test_frames_are_measured_as_the_command_measures_files(products, judged, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, rows in {"products": products, **judged}.items():
        with open(f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(
        "name: mine\nproducts: ../../products.csv\ntraining: false\nquery: {query: {modality: text}}\n"
        "document: {image: {modality: image, weight: 0.9}, title: {weight: 0.1}}\n"
        "tasks: {judged: {queries: ../../queries.csv, qrels: ../../qrels.csv, corpus: all}}\n"
    )
    main(["evaluate", "--config-dir", "conf", "data=mine", "model=tiny", "out=out", f"cache_dir={cache['cache_dir']}"])
    frames = {"queries": pd.DataFrame(judged["queries"]), "qrels": pl.DataFrame(judged["qrels"])}
    found = gcl.evaluate("tiny", products=pd.DataFrame(products), **frames, **cache)
    assert found.to_dicts() == figures_of(tmp_path / "out")
    model = gcl.load("tiny")
    assert gcl.evaluate(model, products=products, **judged, **cache).metrics["tiny"] == found.metrics["tiny"]


def test_a_run_is_compared_with_its_base_on_its_own_catalog(finished):
    found = gcl.evaluate(finished.path)
    assert found.to_dicts() == figures_of(finished.path) and list(found.verdicts) == ["tuned"]
    assert "ndcg@10" in repr(found).lower() and "<table" in found._repr_html_()


class Words:
    """Bags of words, not of length 1."""

    def embed_queries(self, queries):
        return [self._vector(query["query"]) for query in queries]

    def embed_documents(self, documents):
        assert all(isinstance(one.get("image", b""), bytes) and None not in one.values() for one in documents)
        return np.array([self._vector(one.get("title", "")) for one in documents])

    def _vector(self, text):
        words = ["red", "green", "blue", "white", "shirt", "mug", "lamp", "shoe"]
        return [0.01, *(2.0 * (word in text.split()) for word in words)]


def test_encoders_of_ones_own_are_compared(model, products, judged, cache):
    assert isinstance(Words(), gcl.Encoder) and isinstance(model, gcl.Encoder)
    words, zeros = Words(), lambda rows: np.eye(len(rows), 3) + 1
    found = gcl.evaluate({"words": words, "ours": model, "none": zeros}, products=products, **judged, **cache)
    table = found.to_pandas()
    assert set(table.model) == {"words", "ours", "none"} and found.to_polars().shape == table.shape
    of_words = table[(table.model == "words") & (table.metric == "ndcg@10")]
    assert of_words.value.item() > table[(table.model == "none") & (table.metric == "ndcg@10")].value.item()
    ours = table[(table.model == "ours") & (table.metric == "ndcg@10")]
    assert ours.low.item() <= ours.value.item() <= ours.high.item() and 0 <= ours.p.item() <= 1
    assert "not of length 1" in repr(found)


def test_everything_can_be_kept(products, judged, cache, tmp_path):
    page = gcl.evaluate([Words()], products=products, **judged, **cache).save(tmp_path / "out")
    assert page.is_file() and (tmp_path / "out" / "queries.parquet").is_file()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["Words"]


def test_mistakes_are_answered_in_sentences(products, judged, cache):
    for models, given, said in (
        ([], {}, "no model to measure"),
        ("tiny", {}, "What is searched"),
        (3, {"products": products, **judged}, "given a value of the type int"),
        ("tiyn", {"products": products, **judged}, "Did you mean tiny"),
        ("tiny", {"products": products, "qrels": [{"a": 1}]}, "No task can be made of queries= and qrels="),
        ("tiny", {"products": products, **judged, "evaluate.metrics": ["ndcg@ten"]}, "ndcg@ten"),
        ("tiny", {"products": products, **judged, "evaluat.metrics": []}, "evaluat"),
        (lambda rows: [[1.0]], {"products": products, **judged}, r"array \[1, 1\] for .* expected \[\d+, D\]"),
        (lambda rows: [[0.0]] * len(rows), {"products": products, **judged}, "is 0 or has values that are not numbers"),
    ):
        with pytest.raises((ValueError, KeyError), match=said):
            gcl.evaluate(models, **given, **cache)
