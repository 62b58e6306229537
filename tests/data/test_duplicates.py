"""What a table says twice, differently, counts as the catalog says, and is told; copies never lie on both sides."""

import numpy as np
import pytest

from gcl.data.catalog import Copies, Duplicates, SamePair, SameProduct, Split, Task
from gcl.data.prepare.copies import Shared, first_of_equals
from gcl.data.prepare.prepare import prepare
from gcl.data.prepare.repeated import settle_scores
from gcl.data.store.prepared import Pairs
from helpers.small_catalog import catalog, contents, drawn, image, pairs, prepared, products, text, write_table

SPLIT = Split(queries=0.7, documents=0.5)


@pytest.fixture
def shop(tmp_path):
    write_table(tmp_path / "products.csv", products(80))
    write_table(tmp_path / "pairs.csv", pairs(60, 80))
    return tmp_path


def shop_catalog(root, **options):
    return catalog(root, **{"products": "products.csv", "pairs": "pairs.csv", "score": "score", **options})


@pytest.mark.parametrize(
    ("rule", "expected"), [("max", [4, 2, 4, 3, 5]), ("mean", [2.5, 2, 2.5, 3, 5]), ("last", [1, 2, 1, 3, 5])]
)
def test_contradicting_scores_become_one_and_rows_stay(rule, expected):
    given = Pairs(np.array([0, 1, 0, 2, 0]), np.array([7, 7, 7, 1, 8]), np.array([4, 2, 1, 3, 5], np.float32))
    settled = settle_scores(given, SamePair(rule))
    assert settled.pairs.score.tolist() == expected and settled.contradictions == 1
    assert settled.pairs.query is given.query and settled.example.scores == [4, 1]


def test_equal_repetitions_stay_as_they_are():
    given = Pairs(np.array([0, 0, 1]), np.array([7, 7, 7]), np.array([4, 4, 1], np.float32))
    assert settle_scores(given, SamePair.mean).pairs is given and settle_scores(given, SamePair.max).contradictions == 0


def test_contradicting_pairs_are_counted_told_or_refused(shop):
    rows = pairs(60, 80)
    write_table(shop / "pairs.csv", [*rows, *(row | {"score": "0.5"} for row in rows[::6])])
    lines = []
    folder = prepare(shop_catalog(shop), shop / "out", progress=False, report=lines.append)
    assert any("60 pairs have several scores" in line and "data.duplicates.pairs=max" in line for line in lines), folder
    found = prepared(shop_catalog(shop), shop / "out")
    assert found.counts["contradicting_pairs"] == 60 and found.pairs.score.min() == 1
    refuse = shop_catalog(shop, duplicates=Duplicates(pairs=SamePair.refuse))
    with pytest.raises(ValueError, match=r"'query 0' with product '0000': 1 and 0.5. Set data.duplicates.pairs to max"):
        prepare(refuse, shop / "out", progress=False)


@pytest.mark.parametrize(("rule", "relevance"), [("max", 3), ("mean", 2), ("last", 1)])
def test_contradicting_judgments_count_once_and_are_told(shop, rule, relevance):
    write_table(shop / "queries.csv", [{"query_id": f"q{n}", "query": f"query {n}"} for n in range(40)])
    judged = [{"query_id": f"q{n}", "product_id": f"{n:04d}", "score": 3} for n in range(40)]
    write_table(shop / "qrels.csv", [*judged, *judged, judged[0] | {"score": 0}] if rule == "mean" else
                [*judged, *judged, judged[0] | {"score": 1}])  # fmt: skip
    tasks = {"t": Task(queries="queries.csv", qrels="qrels.csv", corpus="all")}
    lines = []
    given = shop_catalog(shop, tasks=tasks, duplicates=Duplicates(judgments=SamePair(rule)))
    prepare(given, shop / "out", progress=False, report=lines.append)
    assert any("1 judgments of t have several scores" in line and f"judgments={rule}" in line for line in lines)
    found = prepared(given, shop / "out")
    rows = [row for part in ("dev", "test") for row in contents(found)["tasks"].get(("t", part), ([], []))[1]]
    assert len(rows) == 40 and {score for query, _, score in rows if query == "q0"} == {relevance}


def test_a_repeated_product_is_refused_with_both_rows_and_the_way_out(shop):
    write_table(shop / "products.csv", [*products(80), products(80)[5], {"product_id": "0003", "title": "other"}])
    said = r"'0003' \(products.csv row 4 and products.csv row 82\): title: 'thing number 3' and 'other'.*products=first"
    with pytest.raises(ValueError, match=said):
        prepare(shop_catalog(shop), shop / "out", progress=False)


@pytest.mark.parametrize(("rule", "title", "brand"), [("first", "a", None), ("last", "b", "B"), ("merge", "a", "B")])
def test_one_row_of_a_repeated_product_counts(shop, rule, title, brand):
    rows = [row | {"brand": "x"} for row in products(80)]
    rows[3] |= {"title": "a", "brand": None}
    write_table(shop / "products.csv", [*rows, rows[9], {"product_id": " 0003", "title": "b", "brand": "B"}])
    fields = {"title": text(), "brand": text()}
    given = shop_catalog(shop, document=fields, duplicates=Duplicates(products=SameProduct(rule)))
    found = prepared(given, shop / "out")
    assert len(found.documents) == 80 and found.documents.ids[3] == "0003"
    assert found.documents[3] == {"title": title, "brand": brand}
    assert f"data.duplicates.products={rule}" in found.counts["notes"][0]


@pytest.mark.parametrize("again", ["12.0", "4.0e+15", "12\xa0"])
def test_ids_that_differ_in_form_only_are_repeated_ones(shop, again):
    one = "4000000000000000" if "e" in again else "12"
    ids = [{"product_id": one, "title": "a"}, {"product_id": again, "title": "b"}]
    write_table(shop / "products.csv", [*products(80), *ids])
    given = shop_catalog(shop, duplicates=Duplicates(products=SameProduct.last))
    assert contents(prepared(given, shop / "out"))["documents"][one] == {"title": "b"}


@pytest.mark.parametrize("rule", ["first", "last", "merge"])
@pytest.mark.parametrize("own", [False, True])
def test_only_the_row_that_counts_asks_for_its_product(shop, rule, own):
    """Products alone, and products whose queries data.own_queries makes."""
    title = "other" if rule == "last" else "thing number 3"
    again = {"product_id": "0003", "title": "other"}
    rows = [row | {"brand": "x"} for row in [*products(80), products(80)[5], again]]
    write_table(shop / "products.csv", rows)
    made = {"own_queries": {"query": "title"}} if own else {"query": {"query": text(column="title")}}
    given = shop_catalog(
        shop,
        pairs=None,
        score=None,
        document={"title": text(), "brand": text()},
        duplicates=Duplicates(products=SameProduct(rule)),
        **made,
    )
    asked = {query["query"] for query in contents(prepared(given, shop / "out"))["queries"].values()}
    assert asked == {row["title"] for row in products(80)} - {"thing number 3"} | {title}


def test_words_are_grades_where_the_catalog_says_so(shop):
    words = {"1": "Bad", "2": "Poor", "3": "Fair", "4": "Good", "5": "Best", "6": "Top"}
    write_table(shop / "pairs.csv", [row | {"score": words[row["score"]]} for row in pairs(60, 80)])
    with pytest.raises(ValueError, match="'score' of pairs.csv holds words.*'Bad' 60.*data.grades={Bad: …, Best: …"):
        prepare(shop_catalog(shop), shop / "out", progress=False)
    grades = {word.lower(): float(score) for score, word in words.items()}
    found = contents(prepared(shop_catalog(shop, grades=grades), shop / "out"))
    write_table(shop / "pairs.csv", pairs(60, 80))
    assert found == contents(prepared(shop_catalog(shop), shop / "out"))


def test_pairs_may_call_the_product_otherwise(shop):
    expected = contents(prepared(shop_catalog(shop), shop / "out"))
    renamed = [{"query": row["query"], "sku": row["product_id"], "score": row["score"]} for row in pairs(60, 80)]
    write_table(shop / "renamed.csv", renamed)
    given = shop_catalog(shop, pairs="renamed.csv", pairs_document_id="sku")
    assert contents(prepared(given, shop / "out")) == expected


def sides(found):
    trained = set(found.pairs.document.tolist())
    measured = {row for name in ("novel_document", "zero_shot") for row in found.task(name, "test").corpus.tolist()}
    assert trained.isdisjoint(measured)
    return trained, measured


def test_copies_and_groups_never_lie_on_both_sides(shop):
    """Products of one image, of equal texts or of one parent; the first of each falls where it falls alone."""
    (shop / "images").mkdir()
    for number in range(80):
        (shop / "images" / f"{number}.jpg").write_bytes(drawn(number))
    rows = [row | {"image": f"images/{n}.jpg", "parent": f"p{n // 4}"} for n, row in enumerate(products(80))]
    write_table(shop / "products.csv", rows)
    fields = {"image": image(), "title": text()}
    plain = prepared(shop_catalog(shop, document=fields, split=SPLIT), shop / "out")
    apart = Split(queries=0.7, documents=0.5, copies=Copies.apart)
    assert contents(prepared(shop_catalog(shop, document=fields, split=apart), shop / "out")) == contents(plain)
    copied = [row | ({"image": rows[n - 1]["image"]} if n % 8 == 1 else {}) for n, row in enumerate(rows)]
    for n in range(5, 80, 8):
        copied[n] = copied[n] | {"title": f" {rows[n - 1]['title'].upper()}"}
    write_table(shop / "products.csv", copied)
    cases = [
        (SPLIT, lambda n: n - 1 if n % 8 in (1, 5) else n),
        (Split(queries=0.7, documents=0.5, group=["parent"]), lambda n: n // 4 * 4),
    ]
    for split, first in cases:
        found = prepared(shop_catalog(shop, document=fields, split=split), shop / "out")
        trained, measured = sides(found)
        leaders = [{first(n) for n in rows_} for rows_ in (trained, measured)]
        assert leaders[0].isdisjoint(leaders[1]) and found.counts["together"]["groups"] >= 20
        alone = set(plain.pairs.document.tolist())
        assert {n for n in trained if first(n) == n} >= {n for n in alone if first(n) == n}


def test_what_many_products_share_holds_none_together(shop):
    """A category of half of the catalog is no copy, and a long chain of copies is dissolved."""
    rows = [row | {"title": "shoes" if n % 2 else row["title"]} for n, row in enumerate(products(80))]
    write_table(shop / "products.csv", rows)
    found = prepared(shop_catalog(shop, split=SPLIT), shop / "out")
    assert found.counts["together"] == {"groups": 0, "records": 0, "largest": 1, "too_common": 1, "dissolved": 0}


def test_queries_in_other_case_fall_together_and_are_held_out_together(shop):
    rows = pairs(60, 80) + [row | {"query": f" {row['query'].upper()}"} for row in pairs(60, 80)]
    write_table(shop / "pairs.csv", rows)
    write_table(shop / "queries.csv", [{"query_id": f"q{n}", "query": f"query  {n}"} for n in range(30)])
    write_table(shop / "qrels.csv", [{"query_id": f"q{n}", "product_id": f"{n:04d}", "score": 1} for n in range(30)])
    tasks = {"t": Task(queries="queries.csv", qrels="qrels.csv", corpus="all")}
    found = prepared(shop_catalog(shop, split=SPLIT, tasks=tasks), shop / "out")
    trained = {" ".join(found.queries[row]["query"].lower().split()) for row in found.pairs.query.tolist()}
    assert trained.isdisjoint({f"query {n}" for n in range(30)}) and trained
    for name in ("novel_query", "zero_shot"):
        asked = {found.queries[row]["query"] for row in found.task(name, "test").query.tolist()}
        assert trained.isdisjoint({" ".join(query.lower().split()) for query in asked})


def test_groups_are_what_a_search_finds():
    draw = np.random.default_rng(3)
    columns = [draw.integers(0, 30, 60).astype(np.uint64) for _ in range(2)]
    first = first_of_equals([Shared(column, 4) for column in columns], 60)
    reached = np.arange(60)
    for _ in range(60):
        for column in columns:
            for value in range(1, 30):
                rows = np.flatnonzero(column == value)
                if 1 < len(rows) <= 4:
                    reached[rows] = reached[rows].min()
    assert first.tolist() == reached.tolist()
