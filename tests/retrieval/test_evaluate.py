"""embed, search, measure as one call: equal to the three by hand, each store embedded once, mistakes named first."""

import numpy as np
import pytest
import torch

from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.retrieval import evaluate as module
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.evaluate import evaluate, result_of
from gcl.retrieval.metrics.metrics import measure
from gcl.retrieval.metrics.torchmetric import RetrievalMetrics
from gcl.retrieval.search.search import search
from gcl.retrieval.tasks.task import from_prepared, task_from_qrels
from helpers.tiny_encoder import SCHEMA, documents, queries, tiny_encoder

METRICS = ["ndcg@10", "mrr@10", "recall@20", "err_grades@10"]


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    for prefix, records, side in (
        ("documents", documents(60), SCHEMA.document),
        ("queries", queries(20), SCHEMA.query),
    ):
        with ShardWriter(folder, prefix, side=side) as writer:
            for identifier, record in zip(records.ids, records.records, strict=True):
                writer.write(identifier, record)
    return RecordStore(folder, "queries", SCHEMA.query), RecordStore(folder, "documents", SCHEMA.document)


def task_of(name, stores, query_rows, document_rows):
    query, corpus = stores[0].subset(np.array(query_rows)), stores[1].subset(np.array(document_rows))
    names = list(corpus.ids)
    qrels = {q: {names[(7 * n + j) % len(names)]: j + 1 for j in range(3)} for n, q in enumerate(query.ids)}
    return task_from_qrels(name, query, corpus, qrels)


def test_is_embed_search_measure_and_embeds_each_store_once(stores, encoder, monkeypatch):
    tasks = [
        task_of("half", stores, range(10), range(0, 40)),
        task_of("other", stores, range(5, 20), range(20, 60)),
        task_of("half again", stores, range(10, 20), range(0, 40)),
    ]
    calls = []

    def counting(encoder, records, side, options):
        calls.append((side, len(records)))
        return embed(encoder, records, side, options)

    monkeypatch.setattr(module, "embed", counting)
    results = evaluate(encoder, tasks, METRICS, embedding=EmbedOptions(batch_size=16))
    assert calls == [("query", 20), ("document", 60)]
    everything = embed(encoder, stores[1], "document", EmbedOptions(batch_size=16)).fused()
    asked = embed(encoder, stores[0], "query", EmbedOptions(batch_size=16)).fused()
    for task in tasks:
        score, row = search(asked[task.queries.rows], everything[task.corpus.rows], 20, rank=task.id_ranks)
        values = measure(
            METRICS,
            gains=task.judgments.gains(row, len(task.corpus)),
            judged=task.judgments.by_query(len(task.queries)),
        )
        result = results[task.name]
        assert (result.score == score).all() and (result.row == row).all() and result.audit.task == task.name
        assert {name: value.mean() for name, value in values.items()} == result.means
        assert [len(found) for found in result.run.values()] == [20] * len(task.queries)
        metric = RetrievalMetrics(METRICS)
        for part in (slice(0, 3), slice(3, None)):
            gains, judged = task.judgments.gains(row, len(task.corpus)), task.judgments.by_query(len(task.queries))
            metric.update(torch.from_numpy(gains[part]), torch.from_numpy(judged[part]))
        assert {n: float(v) for n, v in metric.compute().items()} == pytest.approx(result.means)
        assert metric.per_query()["ndcg@10"].tolist() == values["ndcg@10"].tolist()


def test_field_weights_and_tie_rule_can_be_chosen(stores, encoder):
    task = task_of("t", stores, range(10), [row for row in range(60) if row % 3 != 2])  # all with a picture
    default, pictures = (
        evaluate(encoder, [task], METRICS),
        evaluate(encoder, [task], METRICS, document_weights={"image": 1}),
    )
    assert not np.array_equal(default["t"].score, pictures["t"].score)
    descending = evaluate(encoder, [task], METRICS, ties="descending")["t"]
    assert np.array_equal(descending.score, default["t"].score)
    with pytest.raises(ValueError, match="sideways"):
        evaluate(encoder, [task], METRICS, ties="sideways")


def test_a_perfect_result_scores_one_even_with_equal_ids_and_negative_scores(stores):
    corpus, ids = documents(12), [f"d{n:03d}" for n in range(3)]
    asked = queries(3)
    asked.ids = ids  # query ids are document ids
    task = task_from_qrels("t", asked, corpus, {name: {name: 3} for name in ids})
    row = np.array([[0, 5], [1, 6], [2, 7]])
    result = result_of(task, np.full((3, 2), -0.1, np.float32), row, ["ndcg@10", "mrr@10", "recall@1"])
    assert all(value == 1.0 for value in result.means.values())


def test_mistakes_are_named_before_anything_is_embedded(stores):
    sound = task_of("t", stores, range(3), range(10))
    broken = task_from_qrels("b", queries(2), documents(4), {"q0": {"gone": 1}})
    for tasks, metrics, says in (
        ([sound], ["nddcg@10"], "Did you mean 'ndcg@10'"),
        ([sound, sound], METRICS, "same name"),
        ([sound, broken], METRICS, "'b' cannot be measured"),
    ):
        with pytest.raises(ValueError, match=says):
            evaluate(None, tasks, metrics)


def test_task_of_a_prepared_catalog(stores):
    class Stored:
        corpus, query, document = np.array([30, 10, 20]), np.array([7, 3, 7, 3]), np.array([10, 30, 20, 55])
        relevance = np.float32([1, 2, 0, 1])

    class Prepared:
        queries, documents = stores
        none, some = {"queries": 0, "judgments": 0}, {"queries": 2, "judgments": 4}
        counts = {"tasks": {"novel_query": {"dev": some, "test": none}}}

        def task(self, name, part):
            assert (name, part) == ("novel_query", "dev")
            return Stored

    task = from_prepared(Prepared(), "novel_query", "dev")
    assert task.name == "novel_query.dev"
    assert list(task.queries.ids) == ["q3", "q7"] and list(task.corpus.ids) == ["d030", "d010", "d020"]
    assert task.qrels == {"q3": {"d030": 2.0, "d055": 1.0}, "q7": {"d010": 1.0, "d020": 0.0}}
    assert task.judgments.gains(np.array([[0, 1, 2, -1], [1, -1, 2, 0]]), 3).tolist() == [[2, 0, 0, 0], [1, 0, 0, 0]]
