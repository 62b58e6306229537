"""What a search may hold besides a text: filters, a product to be like, shares of a mix; and many searches at once."""

import threading

import numpy as np
import pytest

from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field
from gcl.serve.engine import Engine, Query
from gcl.serve.facets import columns_of
from gcl.serve.refusal import BadRequest
from helpers.page_shop import ATTACK, picture, shop_table


def rows(hits) -> list[int]:
    return [hit.row for hit in hits]


FILTERS = [
    {"category": ["Shoes"]},
    {"category": ["Shoes", "Bags"]},
    {"price": {"from": 15, "to": 30.5}},
    {"price": {"to": 20}, "category": ["Bags"]},
    {"price": {"from": 1000}},
]


def passes(row: int, filters) -> bool:
    cells = {n: values for ids, block, _ in shop_table() for n, *values in zip(ids, *block.values(), strict=True)}
    category, price, *_ = cells.get(f"p{row}", [None, None])
    number = float(price.split()[0]) if price else None
    ends = filters.get("price", {})
    return ("category" not in filters or category in filters["category"]) and (
        not ends or (number is not None and ends.get("from", 0) <= number <= ends.get("to", 1e9))
    )


@pytest.mark.parametrize("filters", FILTERS)
def test_filters_apply_before_the_best_are_taken(engine, filters):
    """The k best of the filtered are what is left of the whole order, however far down it lies."""
    whole, some = engine.search("red", k=40), engine.search("red", k=3, filters=filters)
    for label, hits in some.items():
        expected = [hit for hit in whole[label] if passes(hit.row, filters)][:3]
        assert rows(hits) == rows(expected)
        assert [hit.score for hit in hits] == [hit.score for hit in expected]


def test_columns_to_filter_by_are_those_people_filter_by(columns, readable):
    assert [facet.name for facet in columns.facets] == ["category", "price"]
    assert columns.links is not None and columns.links[7] == "https://shop.example/p7" and 1 not in columns.links
    category, price = columns.facets
    assert set(category.values) == {"Shoes", "Bags", " ".join(ATTACK[:40].split())} and category.of(1) is None
    assert price.of(7) == 17.5 and price.of(10) is None

    many = 60
    side = {"title": Field(), "brand": Field()}
    records = [{"title": f"thing {n}", "brand": f"Brand {n % 4}" if n else None} for n in range(many)]
    table = {
        "brand": ["other"] * many, "sku": [str(n) for n in range(many)], "rating": [str(n % 5) for n in range(many)],
        "weight": [f"{n}.5" for n in range(many)], "rare": ["a"] + [None] * (many - 1), "same": ["x"] * many,
    }  # fmt: skip
    ids = [f"{n}" for n in range(many)]
    blocks = [([*ids, "unknown"], {k: [*v, "?"] for k, v in table.items()}, ".")]
    found = columns_of(ListRecords(ids, records, side), blocks)
    kinds = {facet.name: facet.values and sorted(facet.values) for facet in found.facets}
    assert kinds == {"brand": [f"Brand {n}" for n in range(4)], "rating": list("01234"), "weight": None}
    assert found.links is None


def test_like_a_product_is_a_search_with_its_vector(engine, encoders, readable):
    found = engine.search(like="p7", k=5)
    for hits in found.values():
        assert 7 not in rows(hits) and len(hits) == 5
    twin = engine.search(like="p3", k=1)["base"][0]
    assert twin.row == 4 and twin.score == pytest.approx(1, abs=1e-5)
    near = engine.search(image=picture(7), weights={"image": 1.0}, k=6)["base"]
    like = engine.search(like="p7", weights={"image": 1.0}, k=5)["base"]
    assert rows(near)[1:] == rows(like) and near[0].row == 7
    assert engine.search(like="p1", weights={"image": 1.0})["base"] == [], "it has no picture to be like"


def test_the_share_of_a_mix_moves_from_the_words_to_the_picture(engine):
    words, image = engine.search("blue")["tuned"], engine.search(image=picture(7))["tuned"]
    assert engine.search("blue", picture(7), mix=0.0)["tuned"] == words
    assert engine.search("blue", picture(7), mix=1.0)["tuned"] == image
    assert engine.mix == 0.5
    assert rows(engine.search("blue", picture(7))["tuned"]) == rows(engine.search("blue", picture(7), mix=0.5)["tuned"])
    assert engine.search("blue", like="p7", mix=1.0, k=3)["tuned"] == engine.search(like="p7", k=3)["tuned"]
    assert engine.search("blue", mix=1.0)["tuned"] == words, "there is nothing to mix"


QUERIES = [
    Query("red"), Query("blue", k=3), Query(image=picture(5), k=4), Query("red", like="p9", mix=0.2),
    Query("red", weights={"title": 1.0}), Query("green", filters={"category": ["Bags"]}), Query(like="p1"),
]  # fmt: skip


def test_together_and_alone_are_the_same(encoders, readable, columns):
    """In one request, and from many threads at once."""
    alone = Engine(encoders, readable, facets=columns.facets)
    expected = [alone.search_all([query])[0] for query in QUERIES]
    same(Engine(encoders, readable, facets=columns.facets).search_all(QUERIES), expected)

    crowded = Engine(encoders, readable, facets=columns.facets)
    found: dict[int, dict] = {}

    def ask(number: int) -> None:
        found[number] = crowded.search_all([QUERIES[number % len(QUERIES)]])[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4 * len(QUERIES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same([found[number] for number in range(len(threads))], expected * 4)
    assert crowded.waiting == 0


def same(found: list[dict], expected: list[dict]) -> None:
    for one, other in zip(found, expected, strict=True):
        for label, hits in one.items():
            assert rows(hits) == rows(other[label])
            assert np.allclose([h.score for h in hits], [h.score for h in other[label]], atol=1e-6)


def test_one_failure_is_not_the_others(engine, monkeypatch):
    """What goes wrong with one of several searches that were answered together concerns that one."""
    searcher = next(iter(engine._searchers.values()))
    real, begun, let_go = searcher._search, threading.Event(), threading.Event()

    def search(jobs):
        begun.set()
        let_go.wait()
        if any("broken" in job.record.values() for job in jobs):
            raise RuntimeError("no")
        return real(jobs)

    monkeypatch.setattr(searcher, "_search", search)
    ends: dict[str, object] = {}

    def ask(text: str) -> None:
        try:
            ends[text] = engine.search(text)
        except RuntimeError as error:
            ends[text] = error

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("first", "broken", "whole", "sound")]
    threads[0].start()
    begun.wait()
    for thread in threads[1:]:
        thread.start()
    while engine.waiting < 3:
        pass
    let_go.set()
    for thread in threads:
        thread.join()
    assert isinstance(ends.pop("broken"), RuntimeError)
    assert len(ends) == 3 and all(len(answer["base"]) == 10 for answer in ends.values())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"filters": {"color": ["red"]}}, "no filter 'color'; there is: category, price"),
        ({"filters": {"category": ["Hats"]}}, "No product has 'Hats' as its category"),
        ({"filters": {"category": []}}, "is a list of values, for example"),
        ({"filters": {"category": {"from": 1}}}, "is a list of values"),
        ({"filters": {"price": ["10"]}}, "is a range of numbers"),
        ({"filters": {"price": {}}}, "is a range of numbers"),
        ({"filters": {"price": {"from": float("nan")}}}, "is a range of numbers"),
        ({"filters": {"price": {"from": True}}}, "is a range of numbers"),
        ({"mix": 1.5}, "share of the picture"),
        ({"mix": float("nan")}, "share of the picture"),
        ({"like": "p99"}, "no product 'p99'"),
        ({"like": ""}, "no product ''"),
        ({"like": "p7", "image": picture(1)}, "not both"),
    ],
)
def test_what_cannot_be_is_told(engine, options, words):
    with pytest.raises(BadRequest, match=words):
        engine.search("red", **options)
