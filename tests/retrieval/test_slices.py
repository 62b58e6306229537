"""Which group a search belongs to: by its words, its relevant products, and columns that are no fields."""

import numpy as np
import pytest

from gcl.data.catalog import Catalog, Task
from gcl.data.prepare.sources import read_columns
from gcl.retrieval.analysis.slices import MOST_VALUES, slice_columns, slices
from gcl.retrieval.settings import needed_columns
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.schema import Field, Modality, Schema

SCHEMA = Schema({"query": Field()}, {"image": Field(Modality.image), "brand": Field()})


@pytest.fixture
def task():
    asked = ListRecords(
        ["q0", "q1", "q2"],
        [{"query": "red"}, {"query": "very red shoe for men"}, {"query": None}],
        SCHEMA.query,
    )
    products = [{"brand": "Nord", "image": b"x"}, {"brand": "Sud", "image": None}, {"brand": None, "image": b"y"}]
    corpus = ListRecords(["a", "b", "c"], products, SCHEMA.document)
    qrels = {"q0": {"a": 3, "b": 1, "c": 1}, "q1": {"b": 1, "gone": 5}, "q2": {"a": 1, "c": 1, "b": 0}}
    return task_from_qrels("t", asked, corpus, qrels)


def test_every_query_gets_one_value_of_each_column(task):
    found = slice_columns(task, ["query_length", "head_tail", "missing", "brand"])
    assert found == {
        "query_length": ["1 word", "5 words or more", "no words"],
        "head_tail": ["head", "head", "tail"],  # 3 + 2 + 2 relevant products: the first two have half of them
        "missing image": ["some lack it", "some lack it", "all have it"],
        "missing brand": ["some lack it", "all have it", "some lack it"],
        "brand": ["Nord", "Sud", "Nord"],  # 3 of 5; b alone; one each: the first of equals has half
    }


def test_columns_of_the_tables(task, tmp_path):
    (tmp_path / "products.csv").write_text(
        "product_id,brand,image,season\na,Nord,x.jpg,summer\n b ,Sud,,winter\nc,,y.jpg,\n"
    )
    (tmp_path / "pairs.csv").write_text("query,product_id\nred,a\n")
    (tmp_path / "queries.csv").write_text("query_id,query,kind\nq0,red,colour\nq1,shoe,thing\n")
    (tmp_path / "qrels.csv").write_text("query_id,product_id,score\nq0,a,1\n")
    catalog = Catalog(
        name="shop", root=str(tmp_path), products="products.csv", pairs="pairs.csv", query=SCHEMA.query,
        document=SCHEMA.document, tasks={"asked": Task(queries="queries.csv", qrels="qrels.csv")},
    )  # fmt: skip
    assert needed_columns(SCHEMA, ["season", "brand", "missing", "kind", "query"]) == ["season", "kind"]
    known = read_columns(catalog, tmp_path / "prepared", ["season", "kind"])
    assert known.documents["season"] == {"a": "summer", "b": "winter"}
    found = slice_columns(task, ["season", "kind"], documents=known.documents, queries=known.queries)
    assert found == {"season": ["summer", "winter", "summer"], "kind": ["colour", "thing", "none"]}
    with pytest.raises(KeyError, match="no column 'saeson'. Did you mean 'season'"):
        read_columns(catalog, tmp_path / "prepared", ["saeson"])
    assert read_columns(catalog, tmp_path / "prepared", []).documents == {}


def test_rare_values_are_one_group_and_small_groups_are_marked(task):
    many = {"shade": {name: f"shade {n}" for n, name in enumerate("abc")}}
    assert set(slice_columns(task, ["shade"], documents=many)["shade"]) == {"shade 0", "shade 1"}
    asked = ListRecords([str(n) for n in range(90)], [{"query": f"q {n}"} for n in range(90)], SCHEMA.query)
    wide = task_from_qrels("wide", asked, task.corpus, {str(n): {"a": 1} for n in range(90)})
    values = slice_columns(wide, ["query"])["query"]
    assert len(set(values)) == MOST_VALUES and f"{90 - MOST_VALUES + 1} others" in values
    before, after = np.zeros(90), np.ones(90)
    parts = slices(values, before, after)
    assert sum(part.comparison.n for part in parts) == 90
    assert [part.too_few for part in parts] == [False] + [True] * (MOST_VALUES - 1)
