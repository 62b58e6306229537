"""The embedded catalog: the same for the same seed, varied, with honest gaps; judgments follow the attributes."""

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from gcl.data.catalog import Catalog
from gcl.data.demo.catalog import draw_catalog
from gcl.data.demo.picture import SHAPES, draw_picture
from gcl.data.demo.products import KINDS, MISSING, Product, draw_product, write_row
from gcl.data.demo.queries import KIND_ONLY, Query, draw_judgments, draw_queries, score_product
from gcl.data.demo.surface import COLORS
from gcl.schema import Modality

CONFIG = Path(__file__).parents[2] / "conf" / "data" / "demo.yaml"
COUNT = 1600


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def products():
    return [draw_product(number, seed=0) for number in range(COUNT)]


@pytest.fixture(scope="module")
def judged(products):
    queries = draw_queries(products, 480, seed=0)
    by_query = defaultdict(list)
    for query, product, score in draw_judgments(queries, products, seed=0)[0]:
        by_query[query].append((product, score))
    return by_query


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return draw_catalog(tmp_path_factory.mktemp("demo"), products=60, queries=20, side=64)


def test_same_seed_gives_the_same_bytes(small, tmp_path):
    again = draw_catalog(tmp_path / "again", products=60, queries=20, side=64)
    assert digests(again) == digests(small)
    other = draw_catalog(tmp_path / "other", products=60, queries=20, side=64, seed=1)
    assert digests(other)["images/P00007.jpg"] != digests(small)["images/P00007.jpg"]
    assert digests(other)["products.csv"] != digests(small)["products.csv"]


def test_a_picture_does_not_depend_on_what_was_drawn_before():
    product = draw_product(11, seed=0)
    first = draw_picture(product, seed=0, side=64)[0].tobytes()
    draw_picture(draw_product(12, seed=0), seed=0, side=64)
    assert draw_picture(product, seed=0, side=64)[0].tobytes() == first


def test_tables_and_pictures_agree(small):
    rows, pairs = table(small / "products.csv"), table(small / "pairs.csv")
    assert len(rows) == 60
    columns = "product_id,title,brand,category,color,pattern,material,size,description,image"
    assert (small / "products.csv").read_text(encoding="utf-8").splitlines()[0] == columns
    assert {row["image"] for row in rows} - {""} == {f"images/{path.name}" for path in (small / "images").iterdir()}
    for row in rows:
        if row["image"]:
            with Image.open(small / row["image"]) as image:
                assert (image.size, image.mode, image.format) == ((64, 64), "RGB", "JPEG")
    assert {pair["product_id"] for pair in pairs} <= {row["product_id"] for row in rows}
    assert not list(small.rglob("*.partial"))


def test_a_size_that_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="side=8"):
        draw_catalog(tmp_path, side=8)
    with pytest.raises(ValueError, match="products=0"):
        draw_catalog(tmp_path, products=0)


def test_catalog_is_large_and_varied(products):
    assert set(SHAPES) == set(KINDS) and len(KINDS) >= 12
    kinds = Counter(product.kind for product in products)
    assert min(kinds.values()) >= 80 and max(kinds.values()) <= 90
    assert len({product.brand for product in products}) >= 10
    assert set(COLORS) == {product.color for product in products}
    assert {product.pattern for product in products} == {"plain", "striped", "dotted", "checked", "floral"}
    assert len({product.material for product in products}) >= 15
    assert len({product.product_id for product in products}) == COUNT


def test_gaps_are_as_frequent_as_declared(products):
    rows = [write_row(product, seed=0) for product in products]
    for name, share in MISSING.items():
        missing = np.mean([getattr(row, name) == "" for row in rows])
        assert abs(missing - share) < 4 * np.sqrt(share * (1 - share) / COUNT), name
    assert all(row.title or row.image for row in rows)
    assert len({row.title for row in rows}) > 0.9 * COUNT


def test_most_titles_name_what_was_asked_for_but_not_always(products):
    rows = [write_row(product, seed=0) for product in products]
    named = np.mean([product.color in row.title.lower() for product, row in zip(products, rows, strict=True)])
    assert 0.6 < named < 0.85  # the others show their colour in the picture only


def test_queries_are_distinct_and_graded(judged):
    assert len(judged) == 480 and len({query.text for query in judged}) == 480
    counts = [len(answers) for answers in judged.values()]
    assert 6000 <= sum(counts) <= 10_000
    assert min(counts) >= 8 and np.quantile(counts, 0.9) <= 34
    for query, answers in judged.items():
        scores = [score for _, score in answers]
        assert all(1 <= score <= 100 for score in scores) and max(scores) == 100
        assert len(set(scores)) >= (3 if query.wanted else 2), query.text
        assert len({product.number for product, _ in answers}) == len(answers)


def test_every_exact_answer_is_judged(judged, products):
    for query, answers in list(judged.items())[::7]:
        exact = {product.number for product in products if score_product(query, product) == 100}
        assert exact == {product.number for product, score in answers if score == 100}


def test_scores_fall_with_what_is_missing():
    query = Query("blue striped mug", frozenset({"mug"}), (("color", "blue"), ("pattern", "striped")))

    def score(kind, color, pattern):
        return score_product(query, Product(0, kind, "Nordvik", color, pattern, "ceramic", "350 ml"))

    order = [
        score("mug", "blue", "striped"),
        score("mug", "blue", "plain"),
        score("mug", "purple", "plain"),  # a colour near the one asked for
        score("mug", "red", "plain"),
        score("teapot", "blue", "striped"),
        score("teapot", "red", "plain"),
        score("sofa", "blue", "striped"),
        score("sofa", "red", "plain"),
    ]
    assert order == sorted(order, reverse=True) and len(set(order)) == len(order)
    assert order[0] == 100 and order[-1] == 0


def test_every_quarter_of_the_split_holds_enough_judgments(judged, products):
    rng = np.random.default_rng(3)
    held_out = rng.random(COUNT) < 0.4
    queries = [answers for answers in judged.values() if rng.random() < 0.3]
    good = [sum(score >= 60 and held_out[product.number] for product, score in answers) for answers in queries]
    assert np.mean(np.array(good) > 0) > 0.9


def test_pictures_show_the_named_color(products):
    """The mean colour under a plain product lies nearest to its own name far more often than chance (1 in 12)."""
    names, values = list(COLORS), np.array(list(COLORS.values()), dtype=np.float64)
    plain = [p for p in products if p.pattern == "plain" and p.kind not in ("clock", "plant pot", "lamp")][:150]
    hits, mean = [], []
    for product in plain:
        image, cover = draw_picture(product, seed=0, side=64)
        pixels = np.asarray(image, dtype=np.float64)[cover > 0.9]
        mean.append(np.median(pixels, axis=0))
        hits.append(names[int(np.argmin(((values - mean[-1]) ** 2).sum(1)))] == product.color)
    assert np.mean(hits) > 0.6
    wanted = np.array([COLORS[product.color] for product in plain])
    for channel in range(3):
        assert np.corrcoef(wanted[:, channel], np.array(mean)[:, channel])[0, 1] > 0.8


def test_pictures_show_the_kind(products):
    """Silhouettes alone, compared pixel by pixel with those of other products, name the kind."""
    chosen = products[: 12 * len(KINDS)]
    covers = np.stack([draw_picture(product, seed=0, side=32)[1].ravel() for product in chosen])
    covers -= covers.mean(1, keepdims=True)
    covers /= np.linalg.norm(covers, axis=1, keepdims=True)
    nearness = covers @ covers.T
    np.fill_diagonal(nearness, -1)
    kinds = np.array([product.kind for product in chosen])
    assert np.mean(kinds[nearness.argmax(1)] == kinds) > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_object_fills_the_picture_and_stands_out(kind):
    numbers = [number for number in range(200) if draw_product(number, seed=0).kind == kind][:4]
    for number in numbers:
        image, cover = draw_picture(draw_product(number, seed=0), seed=0, side=64)
        assert 0.04 < (cover > 0.5).mean() < 0.75
        assert np.isfinite(cover).all() and cover.min() >= 0 and cover.max() <= 1 + 1e-5
        pixels = np.asarray(image, dtype=np.float64)
        assert pixels.std() > 8


def test_config_is_a_catalog(small):
    catalog = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Catalog), OmegaConf.load(CONFIG)))
    assert isinstance(catalog, Catalog)
    catalog.schema.check()
    assert catalog.document["image"].modality is Modality.image
    columns = set(table(small / "products.csv")[0])
    assert {field.column or name for name, field in catalog.document.items()} <= columns
    assert catalog.document_id in columns
    assert set(table(small / "pairs.csv")[0]) == {*catalog.query, catalog.document_id, catalog.score}
    module, function = catalog.generator.split(":")
    assert (module, function) == (draw_catalog.__module__, draw_catalog.__name__)
    assert all((small / name).exists() for name in (catalog.products, catalog.pairs, catalog.judgments))


def test_everything_relevant_is_judged(small):
    """Complete: every product of the right kind, with the score of the pairs."""
    pairs, judgments = table(small / "pairs.csv"), table(small / "judgments.csv")
    grades = {(row["query"], row["product_id"]): int(row["score"]) for row in judgments}
    assert len(grades) == len(judgments) and min(grades.values()) == KIND_ONLY
    for row in pairs:
        score = int(row["score"])
        assert grades.get((row["query"], row["product_id"])) == (score if score >= KIND_ONLY else None)


@pytest.mark.slow
def test_the_whole_catalog(tmp_path):
    folder = draw_catalog(tmp_path)
    assert len(table(folder / "products.csv")) == COUNT
    assert len(list((folder / "images").iterdir())) > 0.96 * COUNT
