"""Presets against the published evaluator's description; slices, compression and sweep on small tasks."""

import numpy as np
import pytest
from small_models import SCHEMA, documents, queries

from gcl.retrieval import compress, slices, sweep
from gcl.retrieval.compress import Form, compression_table
from gcl.retrieval.embed import FieldEmbeddings
from gcl.retrieval.evaluate import result_of
from gcl.retrieval.presets import PRESETS, Preset, measured_by, prepared_for, preset, rescale, sample, with_queries
from gcl.retrieval.search import search
from gcl.retrieval.task import task_from_qrels


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
    table = pandas.DataFrame({"query": ids, "weight": weight}).groupby("query", as_index=False)["weight"].sum()
    for how, weights in (("weight", "weight"), ("uniform", None)):
        drawn = table.sample(40, weights=weights, random_state=1)["query"]
        assert [ids[position] for position in sample(ids, weight, 40, how)] == drawn.tolist()


def test_sampling_is_fixed():
    """What pandas 2 draws from five queries of these weights."""
    assert sample([f"q{n}" for n in range(5)], np.array([1.0, 2, 3, 4, 5]), 3).tolist() == [3, 4, 0]
    with pytest.raises(ValueError, match="not 'luck'"):
        sample(["a"], np.ones(1), 1, "luck")


def test_preset_keeps_the_most_relevant_judgments_and_whole_queries():
    task = small_task()
    rule = Preset(metrics=("ndcg@10",), queries=12, rescaled=True, judged=4)
    cut = prepared_for(task, rule)
    assert len(cut.queries) == 12 and len(cut.corpus) == 80 and len(cut.judgments) == 48
    everything = np.concatenate([list(judged.values()) for judged in task.qrels.values()])
    low, high = everything.min(), everything.max()
    for name, judged in cut.qrels.items():
        best = sorted(task.qrels[name].items(), key=lambda item: -item[1])[:4]
        assert judged == {d: int((r - low) / (high - low) * 99 + 1) for d, r in best}


def test_dangling_judgments_survive_a_selection():
    task = task_from_qrels(
        "t", queries(3), documents(4), {"q0": {"x": 1, "d000": 1}, "q1": {"y": 2}, "q2": {"z": 3, "d001": 1}}
    )
    assert with_queries(task, np.array([2, 0])).qrels == {"q2": {"z": 3.0, "d001": 1.0}, "q0": {"x": 1.0, "d000": 1.0}}


def test_gcl_preset_mixes_the_tie_rules_as_published():
    task = prepared_for(small_task(relevance=lambda g: int(g.integers(1, 5))), PRESETS["gcl"])
    row = np.stack([np.random.default_rng(n).permutation(80)[:50] for n in range(30)])
    score = np.repeat(np.float32([[3, 2, 1, 0, -1]]), 10, axis=1).reshape(1, 5, 10).transpose(0, 2, 1).reshape(1, 50)
    score = -np.sort(-np.repeat(score, 30, axis=0), axis=1)
    found = measured_by(task, PRESETS["gcl"], score, row)
    assert tuple(found.values) == PRESETS["gcl"].metrics
    listed = result_of(task, score, row, ["mrr@10", "ndcg@5"], ties="listed")
    by_id = result_of(task, score, row, ["mrr@10", "ndcg@5"], ties="descending")
    assert found.values["mrr@10"].tolist() == listed.values["mrr@10"].tolist() != by_id.values["mrr@10"].tolist()
    assert found.values["ndcg@5"].tolist() == by_id.values["ndcg@5"].tolist() != listed.values["ndcg@5"].tolist()


def test_every_preset_can_be_measured_and_a_wrong_name_is_answered():
    task = small_task()
    score, row = search(unit(30, 8, 1), unit(80, 8, 2), 80, rank=task.id_ranks)
    for name in PRESETS:
        asked = prepared_for(task, preset(name))
        assert tuple(measured_by(asked, preset(name), score, row).values) == preset(name).metrics
    with pytest.raises(ValueError, match="did you mean 'marqtune'"):
        preset("marqtun")


def test_slices_mark_what_is_too_few():
    before, after = np.zeros(50), np.linspace(0, 1, 50)
    found = slices.slices(["text"] * 45 + [None] * 5, before, after)
    assert [(s.value, s.comparison.n, s.too_few) for s in found] == [("text", 45, False), ("none", 5, True)]
    table = slices.as_text("kind", found)
    assert table.splitlines()[3].split() == ["none", "0.0000", "0.9592", "+0.9592", "too", "few", "5"]
    with pytest.raises(ValueError, match="49 values"):
        slices.slices(["text"] * 49, before, after)


def test_compression_costs_what_it_should():
    task = small_task(relevance=lambda g: 1)
    corpus, query = unit(80, 256, 0), unit(30, 256, 1)
    for q, d in zip(task.judgments.query, task.judgments.document, strict=True):
        query[q] += 0.6 * corpus[d]
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    found = {str(row.form): row for row in compression_table(task, query, corpus, k=20)}
    assert list(found) == ["128 x float32", "64 x float32", "all x int8", "all x binary", "all x binary both"]
    assert [row.bytes for row in found.values()] == [512, 256, 256, 32, 32]
    change = {name: row.comparisons["ndcg@10"].change for name, row in found.items()}
    assert abs(change["all x int8"]) < 0.01 and change["64 x float32"] < change["128 x float32"] <= 0.01
    assert change["all x binary both"] < 0.01
    exact = result_of(task, *search(query, corpus, 20, rank=task.id_ranks), ["ndcg@10"]).means["ndcg@10"]
    assert found["all x int8"].comparisons["ndcg@10"].before == pytest.approx(exact)
    assert len(compress.as_text(list(found.values())).splitlines()) == 7
    with pytest.raises(ValueError, match="not 'int4'"):
        compress.compress(query, corpus, Form(None, "int4"))


def test_sweep_finds_the_field_that_knows():
    task = small_task(relevance=lambda g: 1)
    query, title, image = unit(30, 32, 1), unit(80, 32, 0), unit(80, 32, 2)
    for q, d in zip(task.judgments.query, task.judgments.document, strict=True):
        title[d] += query[q]
    title /= np.linalg.norm(title, axis=1, keepdims=True)
    present = np.ones((80, 2), dtype=bool)
    present[5, 1] = False  # no title: its image stands in for it
    fields = FieldEmbeddings(np.stack([image, title], axis=1), present, SCHEMA.document)
    found = sweep.sweep_weights(task, query, fields, candidates=list(sweep.grid(["image", "title"], 4)))
    assert len(found) == 5 and found[-1].weights == {"image": 1.0, "title": 0.0}
    assert found[0].weights["title"] >= 0.75 and found[0].means["ndcg@10"] > found[-1].means["ndcg@10"]
    assert sweep.as_text(found, 2).splitlines()[0].split() == ["image", "title", "ndcg@10"]
    assert len(list(sweep.grid("abc", 10))) == 66
