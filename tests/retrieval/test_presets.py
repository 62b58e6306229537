"""Presets against the published evaluator's description; slices, compression and sweep on small tasks."""

from dataclasses import replace

import numpy as np
import pytest

from gcl.retrieval.analysis import compression as compress
from gcl.retrieval.analysis import slices
from gcl.retrieval.analysis import weight_sweep as sweep
from gcl.retrieval.embedding.embed import FieldEmbeddings
from gcl.retrieval.embedding.quantize import VectorFormat, parse_format
from gcl.retrieval.embedding.quantize import compress as quantized
from gcl.retrieval.evaluate import result_of
from gcl.retrieval.search.search import search
from gcl.retrieval.tasks.protocol import Rules, rescale, sample, sorting_keys, under, with_queries
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from helpers.tiny_encoder import SCHEMA, documents, queries


def small_task(seed=0, asked=30, corpus=80, relevance=lambda g: float(g.random())):
    generator = np.random.default_rng(seed)
    qrels = {
        f"q{n}": {f"d{d:03d}": relevance(generator) for d in generator.permutation(corpus)[:9]} for n in range(asked)
    }
    return task_from_qrels("t", queries(asked), documents(corpus), qrels)


def unit(rows, width, seed):
    made = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_rescaling_is_the_published_formula():
    score = np.random.default_rng(0).normal(size=200)
    low, high = score.min(), score.max()
    assert rescale(score).tolist() == [int((s - low) / (high - low) * 99 + 1) for s in score]


def test_sampling_draws_what_pandas_draws():
    pandas = pytest.importorskip("pandas")
    weight, ids = np.random.default_rng(0).random(300) * 50, [f"q{n}" for n in range(300)]
    table = pandas.DataFrame({"query": ids, "weight": weight}).groupby("query")[["weight"]].sum()
    for how, weights in (("weight", table["weight"]), ("uniform", None)):
        drawn = table.sample(n=40, weights=weights, random_state=1, replace=False)
        assert [ids[position] for position in sample(ids, weight, 40, how)] == list(drawn.index)


def test_sampling_is_fixed():
    """What pandas 2 draws from five queries of these weights."""
    assert sample([f"q{n}" for n in range(5)], np.array([1.0, 2, 3, 4, 5]), 3).tolist() == [3, 4, 0]
    with pytest.raises(ValueError, match="given 'luck'"):
        sample(["a"], np.ones(1), 1, "luck")


def test_queries_are_sorted_by_their_text_as_published():
    """The suffix of the published keys decides: "red" stands behind "red shoe", since "_" comes after a space."""
    records = ListRecords(["1", "2"], [{"query": "red"}, {"query": "red shoe"}], SCHEMA.query)
    keys = sorting_keys(records)
    assert sorted(keys) == [keys[1], keys[0]] and sorted(["red", "red shoe"]) == ["red", "red shoe"]
    with_pictures = ListRecords(
        ["b", "a"], [{}, {}], {"query": SCHEMA.query["query"], "image": SCHEMA.document["image"]}
    )
    assert sorting_keys(with_pictures) == ["b", "a"]


def test_rules_draw_by_all_judgments_and_keep_the_most_relevant_of_them():
    task = small_task()
    cut = under(task, Rules(queries=12, rescale=True, judged=4))
    assert len(cut.queries) == 12 and len(cut.corpus) == 80 and len(cut.judgments) == 48
    everything = np.concatenate([list(judged.values()) for judged in task.qrels.values()])
    low, high = everything.min(), everything.max()
    graded = {q: {d: int((r - low) / (high - low) * 99 + 1) for d, r in j.items()} for q, j in task.qrels.items()}
    for name, judged in cut.qrels.items():
        best = sorted(task.qrels[name].items(), key=lambda item: -item[1])[:4]
        assert judged == {d: graded[name][d] for d, _ in best}
    texts = sorting_keys(task.queries)
    total = np.array([float(sum(graded[name].values())) for name in task.queries.ids])
    assert list(cut.queries.ids) == [task.queries.ids[place] for place in sample(texts, total, 12)]
    assert under(task, Rules()).qrels == task.qrels


def test_dangling_judgments_survive_a_selection():
    task = task_from_qrels(
        "t", queries(3), documents(4), {"q0": {"x": 1, "d000": 1}, "q1": {"y": 2}, "q2": {"z": 3, "d001": 1}}
    )
    assert with_queries(task, np.array([2, 0])).qrels == {"q2": {"z": 3.0, "d001": 1.0}, "q0": {"x": 1.0, "d000": 1.0}}


def test_published_ties_are_a_mixture():
    task = small_task(relevance=lambda g: int(g.integers(1, 5)))
    row = np.stack([np.random.default_rng(n).permutation(80)[:50] for n in range(30)])
    score = -np.sort(-np.repeat(np.float32([[3, 2, 1, 0, -1]]), 10, axis=1)).repeat(30, axis=0)
    names = ["mrr@10", "ndcg@5", "err@50"]
    found = result_of(task, score, row, names, ties="published")
    listed, by_id = (result_of(task, score, row, names, ties=ties) for ties in ("listed", "descending"))
    assert list(found.values) == names
    assert found.values["mrr@10"].tolist() == listed.values["mrr@10"].tolist() != by_id.values["mrr@10"].tolist()
    assert found.values["ndcg@5"].tolist() == by_id.values["ndcg@5"].tolist() != listed.values["ndcg@5"].tolist()


def test_rules_refuse_what_they_cannot_do():
    task = small_task()
    for words, sentence in (
        ({"ties": "luck"}, "given 'luck'"),
        ({"sample": "some"}, "given 'some'"),
        ({"queries": 0}, "least 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            under(task, Rules(**words))


def test_judged_and_hole_against_a_loop():
    """judged@k counts judgments of this query, hole@k results that nobody judged for any query; -1 is nothing."""
    task = small_task(asked=6)
    row = np.stack([np.random.default_rng(n).permutation(80)[:8] for n in range(6)])
    row[2, 5:] = -1
    found = result_of(
        task, np.zeros((6, 8), np.float32), row, ["judged@5", "hole@5", "judged@10"], ties="listed"
    ).values
    anywhere = {document for judged in task.qrels.values() for document in judged}
    for place, (query, judged) in enumerate(task.qrels.items()):
        names = [task.corpus.ids[d] for d in row[place] if d >= 0]
        assert found["judged@5"][place] == sum(name in judged for name in names[:5]) / 5, query
        assert found["hole@5"][place] == sum(name not in anywhere for name in names[:5]) / 5
        assert found["judged@10"][place] == sum(name in judged for name in names) / 10
    assert 0 < found["hole@5"].mean() < 1 and found["judged@5"].max() > 0


def test_slices_mark_what_is_too_few():
    before, after = np.zeros(50), np.linspace(0, 1, 50)
    found = slices.slices(["text"] * 45 + [None] * 5, before, after)
    assert [(s.value, s.comparison.n, s.too_few) for s in found] == [("text", 45, False), ("none", 5, True)]
    table = slices.slices_table([slices.Sliced("t", "tuned", "kind", "ndcg@10", found)]).text()
    row = ["t", "tuned", "kind", "none", "0.0000", "0.9592", "+0.9592", "too", "few", "5"]
    assert table.splitlines()[4].split() == row
    with pytest.raises(ValueError, match="49 values"):
        slices.slices(["text"] * 49, before, after)


def test_compression_costs_what_it_should():
    task = small_task(relevance=lambda g: 1)
    corpus, query = unit(80, 256, 0), unit(30, 256, 1)
    for q, d in zip(task.judgments.query, task.judgments.document, strict=True):
        query[q] += 0.6 * corpus[d]
    query /= np.linalg.norm(query, axis=1, keepdims=True)

    def measured(form):
        score, row = search(*quantized(query, corpus, form), 20, rank=task.id_ranks)
        return result_of(task, score, row, ["ndcg@10", "recall@10"])

    forms = [*map(parse_format, (128, 64, "int8", "binary", "binary both"))]
    smaller = {form: measured(form).values for form in forms}
    result = replace(measured(VectorFormat()), width=256, smaller=smaller)
    rows = compress.of_result(result, ["ndcg@10", "recall@10"])
    found = {str(row.form): row for row in rows}
    assert list(found) == ["128 x float32", "64 x float32", "all x int8", "all x binary", "all x binary both"]
    assert [row.bytes for row in found.values()] == [512, 256, 256, 32, 32]
    change = {name: row.comparisons["ndcg@10"].change for name, row in found.items()}
    assert abs(change["all x int8"]) < 0.01 and change["64 x float32"] < change["128 x float32"] <= 0.01
    assert change["all x binary both"] < 0.01
    exact = result_of(task, *search(query, corpus, 20, rank=task.id_ranks), ["ndcg@10"]).means["ndcg@10"]
    assert found["all x int8"].comparisons["ndcg@10"].before == pytest.approx(exact)
    by_model = compress.of_models({"base": {"t": result}}, ["ndcg@10", "recall@10"])
    assert by_model == {"base": {"t": rows}}
    assert len(compress.compression_table(by_model).text().splitlines()) == 3 + 5 * 2
    assert len(compress.compression_table(by_model, all_metrics=False).text().splitlines()) == 3 + 5
    with pytest.raises(ValueError, match="quantization is one of float32, int8, binary, binary both; given 'int4'"):
        quantized(query, corpus, VectorFormat(None, "int4"))


def test_sweep_finds_the_field_that_knows():
    task = small_task(relevance=lambda g: 1)
    query, title, image = unit(30, 32, 1), unit(80, 32, 0), unit(80, 32, 2)
    for q, d in zip(task.judgments.query, task.judgments.document, strict=True):
        title[d] += query[q]
    title /= np.linalg.norm(title, axis=1, keepdims=True)
    present = np.ones((80, 2), dtype=bool)
    present[5, 1] = False  # no title: its image stands in for it
    fields = FieldEmbeddings(np.stack([image, title], axis=1), present, SCHEMA.document)
    asked = FieldEmbeddings(query[:, None], np.ones((30, 1), dtype=bool), SCHEMA.query)
    embedded = sweep.Embedded(task, asked, fields)
    found = sweep.sweep_weights([embedded], start={"image": 3, "title": 1}, steps=4, most=10)
    assert len(found) == 5 and found[-1].weights == {"image": 1.0, "title": 0.0}
    assert found[0].weights["title"] >= 0.75 and found[0].means["ndcg@10"] > found[-1].means["ndcg@10"]
    assert sweep.weights_table(found, 2).text().splitlines()[0].split() == ["image", "title", "ndcg@10"]
    assert len(list(sweep.grid("abc", 10))) == 66
    finer = sweep.sweep_weights([embedded], steps=64, most=30)  # a grid of 14 first, then steps that halve
    assert len(finer) <= 30 and finer[0].means["ndcg@10"] >= found[0].means["ndcg@10"]
    assert sweep.usable({"image": 0.0, "title": 1.0}, {"image": 0.5, "title": 0.5}) == {"image": 1e-6, "title": 1.0}
