"""Contestants that are no model of ours: embeddings and results that somebody else computed."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from helpers.judged_shop import COLOURS, THINGS, texts_of


def vectors_of(folder, *, width=8):
    """Products and queries of the shop with vectors of their words, not normalised."""
    words = {word: place for place, word in enumerate((*COLOURS, *THINGS, "sale"))}

    def vector(text):
        found = np.full(max(width, 10), 0.01)
        for word in text.split():
            found[words.get(word, 0)] += 2
        return found[: max(width, 10)].tolist()

    with open(folder / "products.csv") as file:
        products = {row["product_id"]: vector(row["title"]) for row in csv.DictReader(file)}
    queries = {query: vector(text) for query, text in texts_of(folder).items()}
    texts = {text: vector(text) for text in [*texts_of(folder).values(), *THINGS]}
    return products, queries, texts


def write_vectors(path, vectors, kind=None, **columns):
    column = pa.array(list(vectors.values()), type=kind)
    parquet.write_table(pa.table({"id": list(vectors), "embedding": column, **columns}), path)
    return path


def test_somebody_else_s_embeddings_in_one_table_and_one_page(judged, capsys):
    folder, _, evaluate = judged
    products, queries, _ = vectors_of(folder)
    one = write_vectors(folder / "titan.parquet", products | queries)
    two = [write_vectors(folder / "d.parquet", products, pa.list_(pa.float32(), 10)),
           write_vectors(folder / "q.parquet", queries)]  # fmt: skip
    out = evaluate("evaluate.tasks=[table,trec]", f"models=[tiny,'embeddings:{one}','embeddings:{two[0]}+{two[1]}']")
    printed = capsys.readouterr().out
    found = json.loads((out / "metrics.json").read_text())
    assert list(found) == ["tiny", "titan", "d+q"] and found["titan"] == found["d+q"]
    assert found["titan"]["table"]["ndcg@10"] != found["tiny"]["table"]["ndcg@10"]
    assert "not of length 1" in printed and printed.count("titan") >= 6
    rows = list(csv.DictReader((out / "results.csv").open()))
    tested = [row for row in rows if row["p_holm"]]
    assert len(tested) == 2 * 3 * 2 and all(row["model"] != "tiny" for row in tested)  # tasks x headline x contestants
    assert all(float(row["p_holm"]) >= float(row["p"]) for row in tested)
    values = parquet.read_table(out / "queries.parquet").to_pylist()
    mean = np.mean([v["ndcg@10"] for v in values if v["task"] == "table" and v["model"] == "titan"])
    assert mean == pytest.approx(found["titan"]["table"]["ndcg@10"])
    row = next(r for r in rows if (r["task"], r["metric"], r["model"]) == ("table", "ndcg@10", "titan"))
    assert float(row["value"]) == pytest.approx(mean) and float(row["low"]) <= mean <= float(row["high"])
    page = (out / "report.html").read_text()
    assert "titan against tiny" in page and "d+q against tiny" in page


def test_queries_are_found_by_their_text(judged):
    folder, _, evaluate = judged
    products, queries, texts = vectors_of(folder)
    by_id = write_vectors(folder / "by_id.parquet", products | queries)
    by_text = write_vectors(folder / "by_text.parquet", products | texts)
    rows = products | {f"other-{n}": vector for n, vector in enumerate(texts.values())}
    column = write_vectors(
        folder / "column.parquet", rows, text=[None] * len(products) + list(texts),
        side=["document"] * len(products) + ["query"] * len(texts),
    )  # fmt: skip
    out = evaluate(
        "evaluate.tasks=[table]", f"models=['embeddings:{by_id}','embeddings:{by_text}','embeddings:{column}']"
    )
    found = json.loads((out / "metrics.json").read_text())
    assert found["by_id"] == found["by_text"] == found["column"]


def test_embeddings_that_do_not_fit_are_refused(judged, capsys):
    folder, _, evaluate = judged
    products, queries, _ = vectors_of(folder)
    some = dict(list(products.items())[:-7]) | queries
    wrong = [
        ("missing", some, {}, "no vector for 7 of 60 documents (by id), for example 'p53'"),
        ("queries", products, {}, "no vector for 24 of 24 queries"),
        ("zero", products | queries | {"p00": [0.0] * 10}, {}, "1 vectors hold NaN or infinity or are zero"),
        ("widths", products | queries | {"p00": [1.0] * 9}, {}, "do not have the width"),
    ]
    for name, vectors, columns, sentence in wrong:
        path = write_vectors(folder / f"{name}.parquet", vectors, **columns)
        with pytest.raises(SystemExit):
            evaluate("evaluate.tasks=[table]", f"models=['embeddings:{path}']")
        assert sentence in capsys.readouterr().err
    narrow = write_vectors(folder / "narrow.parquet", {query: vector[:4] for query, vector in queries.items()})
    wide = write_vectors(folder / "wide.parquet", products)
    for word, sentence in ((f"{wide}+{narrow}", "different widths"), (folder / "no.parquet", "there is no file")):
        with pytest.raises(SystemExit):
            evaluate("evaluate.tasks=[table]", f"models=['embeddings:{word}']")
        assert sentence in capsys.readouterr().err


def test_somebody_else_s_results_are_a_contestant(judged, plain, tmp_path, capsys):
    """A TREC run in any order of lines; ours, written out and read again, gives our figures."""
    _, _, evaluate = judged
    for task in ("table", "trec"):
        lines = (plain / "tasks" / task / "run.tiny.trec").read_text().splitlines()
        (tmp_path / f"other-{task}.trec").write_text("\n".join(reversed(lines)) + "\n")
    out = evaluate("evaluate.tasks=[table,trec]", f"models=[tiny,'trec:{tmp_path}/other-{{task}}.trec']")
    found = json.loads((out / "metrics.json").read_text())
    assert list(found) == ["tiny", "other"] and found["other"] == found["tiny"]
    lines = (tmp_path / "other-table.trec").read_text().splitlines()
    (tmp_path / "half.trec").write_text("\n".join(line for line in lines if not line.startswith("q1")) + "\n")
    out = evaluate("evaluate.tasks=[table]", f"models=[tiny,'trec:{tmp_path}/half.trec']")
    assert "no results for 11 of 24 queries" in (out / "results.md").read_text()
    values = parquet.read_table(out / "queries.parquet").to_pylist()
    assert all(v["ndcg@10"] == 0 for v in values if v["model"] == "half" and v["query_id"].startswith("q1"))
    (tmp_path / "foreign.trec").write_text("q0 Q0 p01 1 2.0 x\nq0 Q0 elsewhere 2 1.0 x\n")
    (tmp_path / "others.trec").write_text("someone Q0 p01 1 2.0 x\n")
    capsys.readouterr()
    for name, sentence in (("foreign", "1 results are documents outside"), ("others", "no results for any of the 24"),
                           ("nothing", "there is no file")):  # fmt: skip
        with pytest.raises(SystemExit):
            evaluate("evaluate.tasks=[table]", f"models=['trec:{tmp_path}/{name}.trec']")
        assert sentence in capsys.readouterr().err
