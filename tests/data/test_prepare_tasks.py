"""Explicit tasks: their queries stay out of training, their judgments in their corpus, nothing vanishes silently."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from gcl.data.catalog import Split, Task
from gcl.data.prepare.prepare import prepare
from gcl.data.titles import task_titles, title_of
from gcl.retrieval.metrics.functions import JUDGED
from gcl.retrieval.tasks.task import from_prepared
from helpers.small_catalog import catalog, contents, pairs, prepared, products, quarantined, write_table

QUERIES = [{"qid": f"q{n}", "query": f"query {n}", "kind": "even ones" if n % 2 == 0 else "odd"} for n in range(20)]
QUERIES += [{"qid": f"n{n}", "query": f"unseen {n}", "kind": "even ones"} for n in range(20)]
JUDGMENTS = [
    {"qid": row["qid"], "product_id": f"{(n * 3 + step) % 80:04d}", "score": step % 4}
    for n, row in enumerate(QUERIES)
    for step in range(12)
]


@pytest.fixture
def shop(tmp_path):
    write_table(tmp_path / "products.csv", products(80))
    write_table(tmp_path / "pairs.csv", pairs(60, 60))
    write_table(tmp_path / "queries.csv", QUERIES)
    write_table(tmp_path / "qrels.csv", JUDGMENTS)
    return tmp_path


def with_task(root, *, split=None, max_bad=0.01, **options):
    given = {"queries": "queries.csv", "qrels": "qrels.csv", "query_id": "qid"}
    return catalog(
        root,
        products="products.csv",
        pairs="pairs.csv",
        score="score",
        split=split or Split(queries=0.7, documents=0.6),
        tasks={"bench": Task(**given | options)},
        max_bad=max_bad,
    )


def judged(found, name):
    rows = []
    for part in ("dev", "test"):
        rows += contents(found)["tasks"].get((name, part), ([], []))[1]
    return rows


def test_a_task_is_its_tables(shop):
    found = prepared(with_task(shop, corpus="all"), shop / "out")
    assert found.task_names == ["in_domain", "novel_query", "novel_document", "zero_shot", "bench"]
    expected = {(row["qid"], row["product_id"], float(row["score"])) for row in JUDGMENTS}
    assert set(judged(found, "bench")) == expected
    assert found.task("bench", "dev").corpus.tolist() == list(range(80))
    dev, test = (set(found.task("bench", part).query.tolist()) for part in ("dev", "test"))
    assert dev and test and dev.isdisjoint(test)


def test_each_kind_is_a_task(shop):
    found = prepared(with_task(shop, kind="kind", corpus="all"), shop / "out")
    assert found.task_names[4:] == ["even_ones", "odd"]
    assert {query for query, _, _ in judged(found, "odd")} == {row["qid"] for row in QUERIES if row["kind"] == "odd"}
    one = prepared(with_task(shop, kind="kind", kinds=["odd"], corpus="all"), shop / "out")
    assert one.task_names[4:] == ["odd"] and judged(one, "odd") == judged(found, "odd")
    assert "n0" not in list(one.queries.ids)
    with pytest.raises(
        ValueError, match="'oddd', which the column 'kind' of queries.csv does not hold.*'even ones', 'odd'"
    ):
        prepare(with_task(shop, kind="kind", kinds=["oddd"]), shop / "out", progress=False)


def test_training_never_shows_a_query_of_a_task(shop):
    everything = Split(queries=1.0, documents=0.6)
    asked = {row["query"] for row in QUERIES}

    def trained_on(found):
        return {found.queries[row]["query"] for row in found.pairs.query.tolist()}

    held = prepared(with_task(shop, split=everything), shop / "out")
    assert trained_on(held) == {f"query {n}" for n in range(20, 60)}
    assert {"novel_query", "zero_shot"} < set(held.task_names)  # where their pairs of the log are now
    for name in ("novel_query", "zero_shot"):
        queries = {query for query, _, _ in judged(held, name)}
        assert queries == {f"q{n}" for n in range(20)}  # with the ids of the task, not of their content
    for name in ("in_domain", "novel_document"):
        found = contents(held)
        assert asked.isdisjoint(found["queries"][query]["query"] for query, _, _ in judged(held, name))
    shown = prepared(with_task(shop, split=everything, hold_out_queries=False), shop / "out")
    assert trained_on(shown) == {f"query {n}" for n in range(60)}


def test_held_out_corpus_is_what_no_training_pair_shows(shop):
    found = prepared(with_task(shop), shop / "out")
    trained = set(found.pairs.document.tolist())
    assert set(found.task("bench", "test").corpus.tolist()) == set(range(80)) - trained
    inside = {(query, document) for query, document, _ in judged(found, "bench")}
    all_judged = {(row["qid"], row["product_id"]) for row in JUDGMENTS}
    outside = {pair for pair in all_judged if found.documents.ids[0] and int(pair[1]) in trained}
    dropped = found.counts["tasks"]["bench"]
    assert inside <= all_judged - outside
    assert dropped["judgments_outside_corpus"] == len(outside)
    with pytest.raises(ValueError, match="every product is in a training pair.*tasks.bench.corpus=all"):
        write_table(shop / "products.csv", products(60))
        write_table(shop / "qrels.csv", [row for row in JUDGMENTS if row["product_id"] < "0060"])
        prepare(with_task(shop, split=Split(1, 1), hold_out_queries=False), shop / "out", progress=False)


def test_judgments_of_unknown_products_are_counted_and_listed(shop):
    write_table(
        shop / "qrels.csv", [*JUDGMENTS, *(row | {"product_id": f"gone {row['product_id']}"} for row in JUDGMENTS)]
    )
    found = prepared(with_task(shop, corpus="all"), shop / "out")
    assert found.counts["tasks"]["bench"]["dangling_judgments"] == len(JUDGMENTS)
    with open(found.folder / "tasks" / "bench.dangling.csv", newline="") as source:
        listed = list(csv.DictReader(source))
    assert len(listed) == len(JUDGMENTS)
    assert listed[0] == {"query_id": "q0", "document_id": "gone 0000", "score": "0", "reason": "not in the catalog"}


def test_bad_rows_of_a_task_are_bad_rows(shop):
    rows = [dict(row) for row in JUDGMENTS]
    rows[3]["score"], rows[4]["qid"], rows[5]["product_id"], rows[6]["qid"] = "good", "q999", None, " "
    write_table(shop / "qrels.csv", rows)
    write_table(
        shop / "queries.csv", [*QUERIES, {"qid": None, "query": "x", "kind": "odd"}, {"qid": "e", "kind": "odd"}]
    )
    found = prepared(with_task(shop, max_bad=0.05), shop / "out")
    assert all(row["detail"] for row in quarantined(found.folder)), "each with what was tried"
    assert [(row["table"], row["row"], row["id"], row["reason"]) for row in quarantined(found.folder)] == [
        ("queries.csv", "41", "", "no query id"),
        ("queries.csv", "42", "e", "empty record"),
        ("qrels.csv", "4", "q0", "score is not a number"),
        ("qrels.csv", "5", "q999", "unknown query id"),
        ("qrels.csv", "6", "q0", "no product id"),
        ("qrels.csv", "7", "", "no query id"),
    ]
    with pytest.raises(ValueError, match="4 of 480 rows of qrels.csv cannot be used"):
        write_table(shop / "queries.csv", QUERIES)
        prepare(with_task(shop, max_bad=0.005), shop / "out", progress=False)


def test_bad_rows_of_a_trec_file_are_told_of_that_file(shop):
    (shop / "qrels.trec").write_text(
        "".join(f"{row['qid']} 0 {row['product_id']} 1\n" for row in JUDGMENTS) + "q999 0 x 1\n"
    )
    with pytest.raises(ValueError, match=r"1 of 481 rows of qrels.trec cannot be used .* Fix qrels.trec"):
        prepare(with_task(shop, max_bad=0, qrels="qrels.trec"), shop / "out", progress=False)


def test_a_column_of_groups_that_is_not_there_is_told(shop):
    with pytest.raises(KeyError, match=r"products.csv has no column 'brnd' \(data.split.group\)"):
        prepare(with_task(shop, split=Split(group=["brnd"])), shop / "out", progress=False)


def test_two_tasks_may_use_the_same_ids(shop):
    write_table(shop / "other.csv", [{"qid": "q0", "query": "something else"}, {"qid": "q1", "query": "query 1"}])
    write_table(shop / "other-qrels.csv", [{"qid": f"q{n}", "product_id": "0001", "score": 1} for n in range(2)])
    given = with_task(shop, corpus="all", split=Split(0.7, 0.6, dev=0))
    given.split.dev = 0.0
    given.tasks["other"] = Task(queries="other.csv", qrels="other-qrels.csv", query_id="qid", corpus="all")
    found = prepared(given, shop / "out")
    assert judged(found, "other") == [("q1", "0001", 1.0), ("other/q0", "0001", 1.0)]
    said = contents(found)["queries"]
    assert said["q0"]["query"] == "query 0" and said["other/q0"]["query"] == "something else"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"corpus": "held-out"}, ValueError, "data.tasks.bench.corpus is 'held-out'"),
        ({"kinds": ["odd"]}, ValueError, "kinds is set but data.tasks.bench.kind is not"),
        ({"queries": "query.csv"}, FileNotFoundError, "data.tasks.bench.queries.*Did you mean queries.csv"),
        ({"query_id": "query_id"}, KeyError, "'query_id' .data.tasks.bench.query_id."),
        ({"document_id": "sku"}, KeyError, "'sku' .data.tasks.bench.document_id."),
        ({"score": "grade"}, KeyError, "'grade' .data.tasks.bench.score."),
        ({"kind": "kinds"}, KeyError, "'kinds' .data.tasks.bench.kind.*Did you mean 'kind'"),
    ],
)
def test_mistakes_are_sentences(shop, options, kind, message):
    with pytest.raises(kind, match=message):
        prepare(with_task(shop, **options), shop / "out", progress=False)


def test_tasks_that_would_share_a_name_are_refused(shop):
    write_table(shop / "queries.csv", [row | {"kind": "zero shot"} for row in QUERIES])
    with pytest.raises(ValueError, match="Two tasks are called 'zero_shot'"):
        prepare(with_task(shop, kind="kind"), shop / "out", progress=False)


def test_tasks_without_an_answer_are_refused(shop):
    write_table(shop / "qrels.csv", [row | {"score": 0} for row in JUDGMENTS])
    with pytest.raises(ValueError, match="'bench' has no query with a relevant product in its corpus of"):
        prepare(with_task(shop), shop / "out", progress=False)
    write_table(shop / "qrels.csv", JUDGMENTS[:12])
    for seed in range(8):
        split = Split(0.7, 0.6, seed=seed)
        try:
            found = prepared(with_task(shop, split=split, corpus="all"), shop / "out")
            assert found.counts["tasks"]["bench"]["test"]["queries"] == 1
            assert found.counts["tasks"]["bench"]["queries_without_relevant"] == 39
        except ValueError as error:
            assert "None of the 1 queries of the task 'bench' falls into its test half" in str(error)


def test_judgments_measure_what_is_held_out_and_change_nothing_that_is_trained_on(shop):
    graded = [{"query": f"query {n}", "product_id": f"{(n + step) % 80:04d}", "score": 50} for n in range(60)
              for step in range(0, 40, 7)]  # fmt: skip
    write_table(shop / "graded.csv", graded)
    plain = with_task(shop)
    plain.tasks = {}
    before = prepared(plain, shop / "out")
    after = prepared(replace(plain, judgments="graded.csv", complete=True), shop / "out")
    assert after.folder != before.folder and contents(after)["pairs"] == contents(before)["pairs"]
    allowed = {(row["query"], row["product_id"]) for row in graded}
    tasks = [from_prepared(after, name, "all") for name in after.task_names]
    assert len(tasks) == 4
    for task in tasks:
        for identifier, found in task.qrels.items():
            text = task.queries[list(task.queries.ids).index(identifier)]["query"]
            assert found and {(text, product) for product in found} <= allowed
        rows = np.tile(np.arange(-1, len(task.corpus)), (len(task.queries), 1))
        assert set(task.judgments.status(rows, len(task.corpus))[:, 1:].ravel()) == {JUDGED}
    with pytest.raises(ValueError, match="data.judgments measures what is held out of data.pairs"):
        prepare(replace(plain, pairs=None, judgments="graded.csv"), shop / "out")


def test_a_title_is_what_people_read(shop):
    spec = with_task(shop, kind="kind", corpus="all", title={"odd": "Odd searches"})
    titles = task_titles(spec)
    assert titles == {"odd": "Odd searches"} and title_of("odd.test", titles) == "Odd searches"
    assert (
        prepared(spec, shop / "out").folder == prepared(with_task(shop, kind="kind", corpus="all"), shop / "out").folder
    )
    with pytest.raises(ValueError, match=r"data.tasks.bench.title is 3; expected a text, or \{kind: text\}"):
        prepare(with_task(shop, title=3), shop / "out")
