"""Model.index: the search page's engine over products in memory."""

import polars as pl
import pytest
from PIL import Image

from gcl.commands.search import SearchOptions, open_engine


@pytest.fixture(scope="module")
def index(model, products):
    return model.index(products)


def test_it_finds_what_the_search_page_finds(index, finished):
    _, engine, _ = open_engine(finished, SearchOptions(cache_dir=finished.read_config().cache_dir))
    for weights in (None, {**engine.weights, "image": 0.2}):
        page = engine.search("red shoe", k=20, weights=weights)["tuned"]
        hits = index.search("red shoe", 20, weights=weights and {"image": 0.2})
        assert hits.ids == [engine.documents.ids[hit.row] for hit in page]
        assert hits.scores == [hit.score for hit in page]


def test_queries_of_every_form(index, products):
    text = index.search("red shoe", 3)
    assert index.search({"query": "red shoe"}, 3).scores == text.scores
    picture = products[0]["image"]
    found = index.search(Image.open(picture), 3)
    assert found.scores == index.search({"image": picture}, 3).scores
    assert index.search({"query": "red shoe", "image": picture}, 3).scores != text.scores


def test_results_are_rows_and_pictures(index, products):
    hits = index.search("red shoe", 4)
    assert len(hits) == 4 and list(hits) == list(zip(hits.ids, hits.scores, strict=True))
    assert hits.scores == sorted(hits.scores, reverse=True)
    by_id = {row["product_id"]: row for row in products}
    assert [row["title"] for row in hits.records] == [by_id[name]["title"] for name in hits.ids]
    assert hits.to_pandas()["id"].tolist() == hits.to_polars()["id"].to_list() == hits.ids
    assert pl.DataFrame(hits).columns == ["id", "score", "product_id", "title", "brand", "image"]
    html = hits._repr_html_()
    assert html.count("<figure") == 4 and "data:image/webp;base64," in html
    assert hits.ids[0] in repr(hits)


def test_a_title_is_text_in_a_notebook(model):
    hits = model.index([{"title": "<script>alert(1)</script>"}], id="title").search("script")
    assert "<script>" not in hits._repr_html_() and "&lt;script&gt;" in hits._repr_html_()


def test_mistakes_are_answered_in_sentences(index, model, products):
    for query, options, said in (
        ("", {}, "The search is empty"),
        ({}, {}, "has no field"),
        ("red", {"k": 0}, "at least 1"),
        (["red", "blue"], {}, "one query, and this is a list"),
        ("red", {"weights": {"imag": 1}}, "There is no field 'imag' to weight"),
    ):
        with pytest.raises(ValueError, match=said):
            index.search(query, **options)
    with pytest.raises(ValueError, match="id='brand': row 1 has no value there"):
        model.index(products, id="brand")
    with pytest.raises(ValueError, match="'red' is there more than once"):
        model.index([{"title": "red"}, {"title": "red"}], id="title")
