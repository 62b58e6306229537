"""Metrics against pytrec_eval, against loops written from the definitions, and their names."""

import math

import numpy as np
import pytest
import pytrec_eval

from gcl.retrieval.evaluate import result_of
from gcl.retrieval.metrics.functions import Hits, precision, recall
from gcl.retrieval.metrics.metrics import (
    METRICS,
    Cutoff,
    Metric,
    depth,
    explained,
    measure,
    parse_metric,
    spelled,
)  # fmt: skip
from gcl.retrieval.page.page import write_page
from gcl.retrieval.report import results_table, single_rows
from gcl.retrieval.search.ties import id_ranks, with_ties
from gcl.retrieval.tasks.task import JudgedPairs, task_from_qrels
from helpers.tiny_encoder import documents, queries

CUTOFFS = (1, 3, 10, 25)
OURS_AND_THEIRS = {
    "ndcg": "ndcg", "map": "map", "mrr": "recip_rank", "rprec": "Rprec",
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in CUTOFFS}, **{f"map@{k}": f"map_cut_{k}" for k in CUTOFFS},
    **{f"recall@{k}": f"recall_{k}" for k in CUTOFFS}, **{f"precision@{k}": f"P_{k}" for k in CUTOFFS},
    **{f"hit@{k}": f"success_{k}" for k in CUTOFFS},
}  # fmt: skip
ASKED = {"ndcg", "map", "recip_rank", "Rprec"} | {
    f"{name}.{','.join(map(str, CUTOFFS))}" for name in ("ndcg_cut", "map_cut", "recall", "P", "success")
}


def random_run(
    seed: int, queries: int = 40, documents: int = 60, retrieved: int = 30, highest: int = 4, lowest: int = 0
):
    """Scores with many ties, half of them negative; unjudged documents, missed ones, short and empty results."""
    generator = np.random.default_rng(seed)
    ids = [f"d{number}" for number in generator.permutation(documents * 3)[:documents]]
    score = np.zeros((queries, retrieved), np.float32)
    row = np.full((queries, retrieved), -1)
    qrels = {}
    for q in range(queries):
        count = generator.choice([0, 1, retrieved // 2, retrieved])
        row[q, :count] = generator.permutation(documents)[:count]
        score[q, :count] = generator.integers(-8, 8, count) / 8
        judged = generator.permutation(documents)[: generator.integers(1, 40)]
        qrels[q] = {int(d): int(generator.integers(lowest, highest + 1)) for d in judged}
    return ids, score, row, qrels


def in_order(ids, score, row, qrels, ties):
    row = with_ties(score, row, id_ranks(ids), ties)[1]
    pairs = [(q, d, r) for q, judged in qrels.items() for d, r in judged.items()]
    judgments = JudgedPairs(*(np.array(column) for column in zip(*pairs, strict=True)))
    return {"gains": judgments.gains(row, len(ids)), "judged": judgments.by_query(len(row))}


@pytest.mark.parametrize("seed", range(6))
def test_equals_pytrec_eval_under_its_tie_rule(seed):
    ids, score, row, qrels = random_run(seed, lowest=-2 if seed > 3 else 0)
    run = {str(q): {ids[d]: float(s) for d, s in zip(row[q], score[q], strict=True) if d >= 0} for q in range(len(row))}
    # JudgedPairs below 0 count as 0; pytrec_eval dies of them (a fault in its memory), so it is given the 0.
    named = {str(q): {ids[d]: max(r, 0) for d, r in judged.items()} for q, judged in qrels.items()}
    theirs = pytrec_eval.RelevanceEvaluator(named, ASKED).evaluate(run)
    ours = measure(list(OURS_AND_THEIRS), **in_order(ids, score, row, qrels, "descending"))
    for mine, other in OURS_AND_THEIRS.items():
        for q in range(len(row)):  # pytrec_eval leaves out queries without results; they score 0
            assert ours[mine][q] == pytest.approx(theirs.get(str(q), {}).get(other, 0.0), abs=1e-9), (mine, q)


def test_tie_rules_differ_and_are_what_they_say():
    ids, score, row = ["b", "a", "c"], np.float32([[1, 0, 1, 1]]), np.array([[0, -1, 2, 1]])
    for ties, expected in (("ascending", ["a", "b", "c"]), ("descending", ["c", "b", "a"])):
        scores, rows = with_ties(score, row, id_ranks(ids), ties)
        assert [ids[d] for d in rows[0, :3]] == expected and rows[0, 3] == -1
        assert scores.tolist() == [[1, 1, 1, -np.inf]]
    assert with_ties(score, row, id_ranks(ids), "listed")[1] is row
    with pytest.raises(ValueError, match="sideways"):
        with_ties(score, row, id_ranks(ids), "sideways")


def err_loop(gains, highest, k, grades):
    """Chapelle et al. 2009, algorithm 2."""
    total, arrives = 0.0, 1.0
    for rank, gain in enumerate(gains[:k], start=1):
        p = (2 ** (4 * gain / highest) - 1) / 2**4 if grades else (2**gain - 1) / 2**highest
        total += arrives * p / rank
        arrives *= 1 - p
    return total


@pytest.mark.parametrize("highest", [1, 4, 100])
def test_err_rbp_and_exponential_ndcg_equal_loops(highest):
    ids, score, row, qrels = random_run(3, highest=highest)
    given = in_order(ids, score, row, qrels, "ascending")
    k = 7
    ours = measure([f"err@{k}", "err", f"err_grades@{k}", "rbp.8", "rbp.95@7", "ndcg_exp@7"], **given)
    for q, gains in enumerate(given["gains"].astype(float)):
        judged = sorted(qrels[q].values(), reverse=True)
        top = judged[0]
        if top == 0:
            assert all(values[q] == 0 for values in ours.values())
            continue
        assert ours["err"][q] == pytest.approx(err_loop(gains, top, None, False), abs=1e-12)
        assert ours["err@7"][q] == pytest.approx(err_loop(gains, top, k, False), abs=1e-12)
        assert ours["err_grades@7"][q] == pytest.approx(err_loop(gains, top, k, True), abs=1e-12)
        for name, p, stop in (("rbp.8", 0.8, None), ("rbp.95@7", 0.95, 7)):
            rbp = (1 - p) * sum(g / top * p**rank for rank, g in enumerate(gains[:stop]))
            assert ours[name][q] == pytest.approx(rbp, abs=1e-12)
        reached = sum((2**g - 1) / math.log2(rank + 2) for rank, g in enumerate(gains[:k]))
        ideal = sum((2**g - 1) / math.log2(rank + 2) for rank, g in enumerate(judged[:k]))
        assert ours["ndcg_exp@7"][q] == pytest.approx(reached / ideal, abs=1e-12)


def test_published_err_saturates_and_the_graded_one_does_not():
    relevances = np.arange(100, 0, -1)[None]
    shuffled = np.random.default_rng(0).permutation(relevances[0])[None]
    best = measure(["err", "err_grades"], gains=relevances, judged=relevances)
    chance = measure(["err", "err_grades"], gains=shuffled, judged=relevances)
    assert chance["err"][0] < 0.15 * best["err"][0]
    assert chance["err_grades"][0] > 0.15 * best["err_grades"][0]


def test_what_is_judged_and_what_is_judged_for_no_query():
    """judged@k and hole@k against loops; documents that are judged for another query only are neither."""
    ids, _score, row, qrels = random_run(2, documents=400)
    judgments = JudgedPairs(*(np.array(c) for c in zip(*((q, d, r) for q, j in qrels.items() for d, r in j.items()),
                                                     strict=True)))  # fmt: skip
    found = measure(["judged@7", "hole@7"], gains=judgments.gains(row, len(ids)), judged=judgments.by_query(len(row)),
                    status=judgments.status(row, len(ids)))  # fmt: skip
    anywhere = {document for judged in qrels.values() for document in judged}
    for q, rows in enumerate(row[:, :7].tolist()):
        assert found["judged@7"][q] == sum(d in qrels[q] for d in rows) / 7
        assert found["hole@7"][q] == sum(d >= 0 and d not in anywhere for d in rows) / 7
    assert 0 < found["judged@7"].mean() and 0 < found["hole@7"].mean()


def test_a_query_does_not_depend_on_the_others_or_on_the_padding():
    ids, score, row, qrels = random_run(1)
    given = in_order(ids, score, row, qrels, "ascending")
    names = ["ndcg@10", "ndcg_exp@10", "map", "err@10", "rbp.8", "rprec", "recall@3"]
    together = measure(names, **given)
    for q in range(len(row)):
        wide = {key: np.pad(value[q : q + 1], ((0, 0), (0, 9))) for key, value in given.items()}
        for name, value in measure(names, **wide).items():
            assert value[0] == together[name][q]  # bit for bit


def test_nothing_found_and_nothing_to_find():
    names = ["ndcg@10", "map", "mrr", "recall@5", "rprec", "err", "rbp.5", "hit@1"]
    for gains, judged in ((np.zeros((2, 0)), np.ones((2, 3))), (np.zeros((2, 5)), np.zeros((2, 0)))):
        for values in measure(names, gains=gains, judged=judged).values():
            assert values.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="one row per query"):
        Hits.of(np.zeros((1, 2)), np.zeros((2, 2)))


@pytest.mark.parametrize("family", METRICS)
def test_every_record_is_named_measured_within_its_range_and_explained(family):
    metric = METRICS[family]
    name = f"{family}{'.8' if metric.parameter else ''}{'' if metric.cutoff is Cutoff.none else '@5'}"
    assert str(parse_metric(name)) == name and parse_metric(name).metric is metric
    ids, score, row, qrels = random_run(5, documents=400)
    pairs = [(q, d, r) for q, judged in qrels.items() for d, r in judged.items()]
    judgments = JudgedPairs(*(np.array(column) for column in zip(*pairs, strict=True)))
    given = in_order(ids, score, row, qrels, "ascending") | {"status": judgments.status(row, len(ids))}
    values = measure([name], **given)[name]
    low, high = metric.range
    assert (
        values.shape == (len(row),) and values.dtype == np.float64 and (low <= values).all() and (values <= high).all()
    )
    assert (values > low).any()
    assert spelled(name).startswith(metric.spelled) and explained(name).startswith(f"{spelled(name)} ")
    assert "{" not in explained(name)
    for other in metric.elsewhere:
        with pytest.raises(ValueError, match=f"Did you mean '{family}"):
            parse_metric(other)
    if metric.cutoff is Cutoff.required:
        with pytest.raises(ValueError, match="needs a cutoff"):
            parse_metric(family)


def test_one_record_is_a_metric_everywhere(monkeypatch, tmp_path):
    """Parsing, its errors, measuring, the printed table and the page know a metric whose record was added."""

    def f1(hits, k):
        p, r = precision(hits, k), recall(hits, k)
        return np.divide(2 * p * r, p + r, out=np.zeros(len(p)), where=p + r > 0)

    record = Metric("f1", "F1", f1, "balances precision and recall within {first}", cutoff=Cutoff.required)
    with pytest.raises(ValueError, match="no metric 'f1@10'"):
        parse_metric("f1@10")
    monkeypatch.setitem(METRICS, "f1", record)
    with pytest.raises(ValueError, match="needs a cutoff, for example 'f1@10'"):
        parse_metric("f1")
    with pytest.raises(ValueError, match=r"Did you mean 'f1@3'\? .* hole, f1,"):
        parse_metric("f_1@3")
    task = task_from_qrels("t", queries(4), documents(6), {f"q{n}": {"d000": 1, f"d00{n + 1}": 2} for n in range(4)})
    row = np.array([[0, 1, 2], [2, 3, 4], [5, 3, 0], [4, 0, 5]])
    result = result_of(task, np.float32([[3, 2, 1]] * 4), row, ["f1@2", "precision@2", "recall@2"])
    p, r = result.values["precision@2"], result.values["recall@2"]
    assert result.values["f1@2"] == pytest.approx(
        [2 * a * b / (a + b) if a + b else 0 for a, b in zip(p, r, strict=True)]
    )
    assert 0 < result.means["f1@2"] < 1 and depth(["f1@7"]) == 7
    assert f"f1@2 {result.means['f1@2']:.4f}" in " ".join(results_table(single_rows({"t": result})).text().split())
    page = write_page(tmp_path / "r.html", title="x", tasks=[task], models={"base": {"t": result}}, metrics=["f1@2"])
    assert "F1@2 balances precision and recall within the first 2 results." in page.read_text()


@pytest.mark.parametrize(
    "name",
    "ndcg ndcg@10 ndcg_exp@5 map@1000 mrr@10 recall@50 precision@10 hit@10 rprec err@10 err_grades@10 rbp.8@9".split(),
)
def test_names_read_back(name):
    assert str(parse_metric(name)) == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ngcd@10", "Did you mean 'ndcg@10'"),
        ("NDCG@10", "Did you mean 'ndcg@10'"),
        ("P@5", "Did you mean 'precision@5'"),
        ("recall_10", "Did you mean 'recall'"),
        ("precision", "needs a cutoff, for example 'precision@10'"),
        ("rbp@10", "persistence"),
        ("rprec@10", "write 'rprec'"),
        ("ndcg@0", "at least 1"),
        ("ndcg.5@10", "There is no metric"),
        ("ndcg@ten", "There is no metric"),
        ("", "There is no metric"),
    ],
)
def test_wrong_names_say_what_is_right(name, says):
    with pytest.raises(ValueError, match=says):
        parse_metric(name)
