"""A query that was made of a product is asked of products that do not show it, in training and in measuring."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gcl.data.batches.batch import PairDataset, SideReader
from gcl.data.batches.plan import Plan
from gcl.data.catalog import OwnField, Split, Task
from gcl.data.prepare.mixed import join
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import SITUATIONS, open_prepared
from gcl.model.load import load_model
from gcl.retrieval.evaluate import evaluate
from gcl.retrieval.tasks.task import from_prepared
from gcl.schema import Schema
from helpers.small_catalog import catalog, pairs, prepared, text, write_table

SPLIT = Split(queries=0.7, documents=0.6)


def rows(count=120):
    return [
        {
            "product_id": f"{n:04d}",
            "title": f"Thing number {n}",
            "about": f"made of {n % 7} parts, for {n % 11} people, in {n}" if n % 10 else None,
            "words": f"thing no. {n}",
        }
        for n in range(count)
    ]


@pytest.fixture
def shop(tmp_path):
    write_table(tmp_path / "products.csv", rows())
    write_table(tmp_path / "pairs.csv", pairs(60, 120))
    return tmp_path


def alone(root, **options):
    given = {"products": "products.csv", "split": SPLIT, "query": {"title": text()}}
    return catalog(root, **given | {"document": {"title": text(), "about": text()}} | options)


def hiding(found):
    return [found.hides[code] for code in found.hidden.tolist()]


def test_products_alone_hide_what_makes_their_query(shop):
    found = prepared(alone(shop), shop / "out")
    assert hiding(found.pairs) == [("title",)] * len(found.pairs)
    assert found.counts["pairs"] == 108 and found.counts["own_pairs_without_field"] == 12  # nothing but a title
    assert found.task_names == ["in_domain", "zero_shot"]  # each product has one query: no pair is of one novelty
    for name in found.task_names:
        task = from_prepared(found, name, "all")
        assert task.hidden == ("title",) and task.word_for_word == {}
        shown = found.documents.present(task.corpus.rows)
        assert shown[:, list(found.documents.side).index("about")].all()
    known = set(found.pairs.query.tolist())
    assert known.isdisjoint(found.task("zero_shot", "test").query.tolist())
    assert not np.isin(found.task("zero_shot", "test").corpus, found.pairs.document).any()


def test_a_query_is_known_only_if_a_training_pair_holds_it(shop):
    found = prepared(alone(shop, split=Split(queries=1.0, documents=0.5)), shop / "out")
    assert found.task_names == ["in_domain", "zero_shot"]  # no held-out product has a query of training


def test_a_shown_field_is_told_in_every_table(shop):
    found = prepared(alone(shop, own_field=OwnField.shown), shop / "out")
    assert found.pairs.hidden is None and found.counts["word_for_word"]["title"] == [120, 120]
    task = from_prepared(found, "zero_shot", "test")
    of = len(task.judgments)
    assert [line for line in task.audit.lines if "word for word" in line] == [
        f"New searches, new products: in {found.counts['tasks']['zero_shot']['word_for_word']['title'][0]:,} of "
        f"{found.counts['tasks']['zero_shot']['word_for_word']['title'][1]:,} pairs the query stands word for word in "
        "document.title: finding these is comparing words, and says little about a model."
    ] and of
    hidden = from_prepared(prepared(alone(shop), shop / "out"), "zero_shot", "test")
    assert not any("word for word" in line for line in hidden.audit.lines)
    assert any("documents are shown without title" in line for line in hidden.audit.lines)


def test_a_catalog_without_another_field_is_refused(shop):
    for given in (
        alone(shop, document={"title": text()}),
        alone(shop, document={"name": text(column="title"), "about": text(weight=0.0)}),
        alone(shop, own_queries={"query": "title"}, query={"query": text()}, document={"title": text()}),
    ):
        with pytest.raises(ValueError, match="data.own_field=shown"):
            prepare(given, shop / "out", progress=False)
    column = alone(shop, training=False, document={"title": text()}, tasks={"t": Task(column="title", corpus="all")})
    with pytest.raises(ValueError, match="data.tasks.t are made of the column 'title'.*data.own_field=shown"):
        prepare(column, shop / "out", progress=False)


def test_own_queries_train_next_to_real_pairs_which_alone_are_measured(shop):
    given = {"pairs": "pairs.csv", "score": "score", "query": {"query": text()}}
    real = prepared(alone(shop, **given), shop / "out")
    both = prepared(alone(shop, **given, own_queries={"query": "title"}, own_score=7.0), shop / "out")
    own = np.array([hidden == ("title",) for hidden in hiding(both.pairs)])
    assert own.any() and (both.pairs.score[own] == 7).all() and both.counts["own_pairs"] == 108
    assert both.pairs.take(~own).query.tolist() == real.pairs.query.tolist()
    assert both.task_names == real.task_names == list(SITUATIONS)
    for name in SITUATIONS:
        asked = {both.queries[row]["query"] for row in both.task(name, "test").query.tolist()}
        assert all(query.startswith("query ") for query in asked)


def test_products_and_judged_queries_are_enough(shop):
    write_table(shop / "queries.csv", [{"query_id": f"q{n}", "words": f"thing no. {n}"} for n in range(40)])
    write_table(shop / "qrels.csv", [{"query_id": f"q{n}", "product_id": f"{n:04d}", "score": 1} for n in range(40)])
    task = Task(queries="queries.csv", qrels="qrels.csv", query_columns={"query": "words"})
    given = alone(shop, query={"query": text()}, own_queries={"query": "title"}, tasks={"judged": task})
    found = prepared(given, shop / "out")
    assert "judged" in found.task_names and set(hiding(found.pairs)) == {("title",)}
    assert from_prepared(found, "judged", "test").hidden == ()


def batches(found, preprocess, world=1):
    plan = Plan(found.pairs, batch_size=24, seed=3)
    query, document = (
        SideReader(store, side, preprocess)
        for store, side in ((found.queries, found.schema.query), (found.documents, found.schema.document))
    )
    return [PairDataset(found.pairs, plan, query=query, document=document, rank=r, world=world) for r in range(world)]


@pytest.fixture(scope="module")
def tiny():
    return load_model("gcl-tiny", schema=Schema({"query": text()}, {"title": text(), "about": text()}))


def test_one_document_is_shown_whole_and_without_a_field_in_one_batch(shop, tiny):
    """The embedding of each pair's document is that of exactly the fields it shows, on any number of ranks."""
    write_table(shop / "pairs.csv", [{"query": f"q {n % 30}", "product_id": f"{n % 12:04d}"} for n in range(60)])
    write_table(shop / "products.csv", [row | {"about": f"about {row['product_id']}"} for row in rows(12)])
    both = {"pairs": "pairs.csv", "query": {"query": text()}, "own_queries": {"query": "title"}}
    found = prepared(alone(shop, **both, split=Split(1, 1, 0)), shop / "out")
    tiny.eval()
    for step in range(3):
        whole = [dataset[step] for dataset in batches(found, tiny.preprocess, 2)]
        one = batches(found, tiny.preprocess)[0][step]
        rows_ = batches(found, tiny.preprocess)[0].plan.batch(step)
        with torch.inference_mode():
            shared = torch.cat([tiny(batch.document, "document") for batch in whole])[whole[0].document_row]
            alone_ = tiny(one.document, "document")[one.document_row]
            assert torch.allclose(shared, alone_, atol=1e-6)
            reader = SideReader(found.documents, found.schema.document, tiny.preprocess)
            for position, row in enumerate(rows_.tolist()):
                hidden = found.pairs.hides[found.pairs.hidden[row]]
                side = reader(found.pairs.document[row : row + 1])
                side.present[0] &= torch.tensor([name not in hidden for name in found.schema.document])
                assert torch.allclose(tiny(side, "document")[0], alone_[position], atol=1e-6)
        assert one.document_id.tolist() == found.pairs.document[rows_].tolist()  # still the same product


def test_measuring_leaves_the_field_out_with_any_weights(shop, tiny):
    found = prepared(alone(shop, query={"query": text(column="title")}), shop / "out")
    task = from_prepared(found, "zero_shot", "all")
    lone = open_prepared(found.folder, Schema(found.schema.query, {"title": text(weight=1e-9), "about": text()}))
    expected = replace(from_prepared(lone, "zero_shot", "all"), hidden=())
    own = evaluate(tiny, [task], ["ndcg@10"])[task.name]
    without = evaluate(tiny, [expected], ["ndcg@10"], document_weights={"about": 1.0})[task.name]
    assert np.array_equal(own.row, without.row) and np.allclose(own.score, without.score, atol=1e-6)
    heavy = evaluate(tiny, [task], ["ndcg@10"], document_weights={"title": 0.9, "about": 0.1})[task.name]
    assert np.allclose(heavy.score, own.score, atol=1e-6)


def test_a_mix_keeps_what_each_catalog_hides(shop):
    alone_ = prepared(alone(shop), shop / "out")
    real = prepared(alone(shop, name="real", pairs="pairs.csv", query={"title": text(column="query")}), shop / "out")
    joined = join({"real": real, "alone": alone_}, Schema(alone_.schema.query, alone_.schema.document))
    hidden = np.array([names == ("title",) for names in hiding(joined.pairs)])
    assert (hidden == (np.arange(len(joined.pairs)) >= len(real.pairs))).all()
    assert from_prepared(joined, "alone/zero_shot", "test").hidden == ("title",)
    assert from_prepared(joined, "real/zero_shot", "test").hidden == ()
