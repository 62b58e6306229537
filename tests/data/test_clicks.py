"""Scores made of a click log: on a log drawn from known relevances they order products better than click rates do."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest

from gcl.data.catalog import Clicks
from gcl.data.prepare.clicks import fit_power, grade
from gcl.data.prepare.prepare import prepare
from helpers.small_catalog import catalog, prepared, products, write_table

QUERIES, DOCUMENTS, SHOWN, POWER = 30, 12, 400, 1.0


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, axis=-1), axis=-1)


def agreement(values: np.ndarray, truth: np.ndarray) -> float:
    """Mean over queries of Spearman's rank correlation."""
    a, b = ranks(values) - (DOCUMENTS - 1) / 2, ranks(truth) - (DOCUMENTS - 1) / 2
    return float(((a * b).sum(1) / (b * b).sum(1)).mean())


@pytest.fixture(scope="module")
def log():
    """A shop whose ranking has little to do with relevance, a little shuffled for each visitor."""
    random = np.random.default_rng(0)
    truth = random.uniform(0.02, 0.6, (QUERIES, DOCUMENTS))
    ranking = random.normal(size=(QUERIES, DOCUMENTS))
    rows, rate = [], np.zeros((QUERIES, DOCUMENTS))
    for query in range(QUERIES):
        shown: dict[tuple[int, int], list[int]] = {}
        for _ in range(SHOWN):
            order = np.argsort(-(ranking[query] + 0.3 * random.normal(size=DOCUMENTS)))
            for position, document in enumerate(order, 1):
                clicked = random.random() < position**-POWER * truth[query, document]
                cell = shown.setdefault((int(document), position), [0, 0])
                cell[0] += 1
                cell[1] += clicked
                rate[query, document] += clicked / SHOWN
        rows += [
            {"query": f"query {query}", "product_id": f"{document:04d}", "position": position, "shown": n, "clicks": c}
            for (document, position), (n, c) in shown.items()
        ]
    return rows, truth, rate


@pytest.fixture
def given(log, tmp_path):
    write_table(tmp_path / "log.csv", log[0])
    write_table(tmp_path / "products.csv", products(DOCUMENTS))
    return catalog(tmp_path, products="products.csv", pairs="log.csv", clicks=Clicks(impressions="shown"))


def scores(found) -> np.ndarray:
    table = np.zeros((QUERIES, DOCUMENTS))
    for query, document, score in zip(found.pairs.query, found.pairs.document, found.pairs.score, strict=True):
        number = int(found.queries[int(query)]["query"].split()[1])
        table[number, int(found.documents.ids[int(document)])] = score
    return table


def test_the_true_order_is_recovered_better_than_by_click_rates(log, given, tmp_path):
    _, truth, rate = log
    found = scores(prepared(given, tmp_path / "out"))
    assert found.min() >= 1 and (found.max(1) == 100).all()
    raw, corrected = agreement(rate, truth), agreement(found, truth)
    assert corrected > 0.85 and corrected > raw + 0.15, (raw, corrected)
    about = json.loads(next((tmp_path / "out").glob("small-clicks-*/about.json")).read_text())
    assert about["fitted"] and abs(about["power"] - POWER) < 0.1
    known = scores(prepared(replace(given, clicks=replace(given.clicks, power=POWER)), tmp_path / "out"))
    assert agreement(known, truth) == pytest.approx(corrected, abs=0.02)


def test_rows_one_by_one_are_the_same_log(log, given, tmp_path):
    single = [{**row, "clicks": int(number < row["clicks"])} for row in log[0][:40] for number in range(row["shown"])]
    summed = log[0][:40]
    found = []
    for name, rows, clicks in (("one", single, Clicks()), ("sum", summed, Clicks(impressions="shown"))):
        write_table(tmp_path / f"{name}.csv", rows)
        found.append(prepared(replace(given, pairs=f"{name}.csv", clicks=clicks, max_bad=1.0), tmp_path / name).pairs)
    assert np.allclose(found[0].score, found[1].score)


def test_a_log_is_read_once(given, tmp_path):
    first = prepare(given, tmp_path / "out", progress=False)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert prepare(given, tmp_path / "out", progress=False) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == written
    other = prepare(replace(given, clicks=replace(given.clicks, power=0.2)), tmp_path / "out", progress=False)
    assert other != first


def test_purchases_and_rare_pairs(tmp_path):
    shown = {"query": "q", "position": 1, "n": 100, "clicks": 10}
    rows = [{**shown, "product_id": f"{n:04d}", "bought": 5 * (n == 3)} for n in range(6)]
    rows += [{"query": "q", "product_id": "0007", "position": 1, "n": 1, "clicks": 1, "bought": 1}]
    write_table(tmp_path / "log.csv", rows)
    write_table(tmp_path / "products.csv", products(8))
    clicks = Clicks(impressions="n", purchases="bought", least_shown=10)
    found = prepared(catalog(tmp_path, products="products.csv", pairs="log.csv", clicks=clicks), tmp_path / "out")
    score = dict(zip(found.pairs.document.tolist(), found.pairs.score.tolist(), strict=True))
    assert score[3] == 100 and 7 not in score and max(score[n] for n in range(6) if n != 3) < 60


def test_bad_rows_are_listed_and_too_many_stop(given, tmp_path):
    rows = [{"query": "q", "product_id": "0001", "position": "1", "shown": "9", "clicks": "3"} for _ in range(10)]
    rows[2]["position"], rows[4]["clicks"], rows[6]["clicks"], rows[8]["query"] = "0", "ten", "10", None
    write_table(tmp_path / "log.csv", rows)
    with pytest.raises(ValueError, match="4 of 10 rows of log.csv cannot be used"):
        prepare(given, tmp_path / "out", progress=False)
    prepare(replace(given, max_bad=0.5), tmp_path / "out", progress=False)
    listed = next((tmp_path / "out").glob("small-clicks-*/quarantine.csv")).read_text()
    for reason in ("position is not 1 or more", "a count is not a number", "more clicks than", "no query or product"):
        assert reason in listed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"power": -1.0}, "power is -1"),
        ({"scale": "page"}, "'query' or 'log'"),
        ({"prior": 0.0}, "prior is 0"),
        ({"position": "place"}, "no column 'place' \\(data.clicks.position\\)"),
    ],
)
def test_settings_that_make_no_sense(given, tmp_path, change, words):
    with pytest.raises((ValueError, KeyError), match=words):
        prepare(replace(given, clicks=replace(given.clicks, **change)), tmp_path / "out", progress=False)


def test_power_and_grades():
    random = np.random.default_rng(1)
    pair, position = np.repeat(np.arange(500), 8), np.tile(np.arange(1.0, 9), 500)
    shown = np.full(4000, 300.0)
    for power in (0.0, 0.5, 1.5):
        clicks = random.poisson(shown * position**-power * random.uniform(0.05, 0.3, 500)[pair]).astype(float)
        assert fit_power(pair, position, shown, clicks) == pytest.approx(power, abs=0.05)
    assert fit_power(np.arange(5), np.arange(1.0, 6), np.ones(5), np.ones(5)) == 1.0  # nothing to learn it from
    assert grade(np.zeros(3), np.zeros(3, int)).tolist() == [1, 1, 1]


def test_what_is_written_says_how_sure_it_is(given, tmp_path):
    prepare(given, tmp_path / "out", progress=False)
    table = parquet.read_table(next((tmp_path / "out").glob("small-clicks-*/pairs.parquet")))
    assert table.column_names == ["query", "product_id", "relevance", "looks", "score"]
    assert len(table) == QUERIES * DOCUMENTS


def test_what_was_looked_at_and_never_clicked_is_a_negative(tmp_path):
    shown = {"query": "q", "n": 100, "clicks": 0}
    rows = [{**shown, "product_id": "0000", "position": 1, "clicks": 10}]
    rows += [{**shown, "product_id": f"{n:04d}", "position": n} for n in (1, 2, 3, 4, 5)]  # looks: 100, 50, 33, 25, 20
    write_table(tmp_path / "log.csv", rows)
    write_table(tmp_path / "products.csv", products(8))
    log = Clicks(impressions="n", power=1.0)
    given = catalog(tmp_path, products="products.csv", pairs="log.csv", clicks=log)
    graded = prepared(given, tmp_path / "out")
    assert sorted(graded.pairs.document.tolist()) == [0, 1, 2, 3, 4, 5] and graded.pairs.score.min() > 0
    split = prepared(replace(given, clicks=replace(log, negative_looks=30)), tmp_path / "out")
    assert split.not_relevant.document.tolist() == [1, 2, 3] and (split.not_relevant.score == 0).all()
    pairs = dict(zip(split.pairs.document.tolist(), split.pairs.score.tolist(), strict=True))
    assert set(pairs) == {0, 4, 5} and pairs[0] == 100
