"""What is mined, against explicit loops over the vectors, and BM25 against its formula."""

import math
import re

import numpy as np
import pytest
import torch

from gcl.data.batches.settings import HardNegatives, Miner
from gcl.model.load import load_model
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.mining import mine
from gcl.retrieval.page.mined import write_mined_page
from gcl.retrieval.search.bm25 import BM25, search_blocks
from helpers.small_catalog import catalog, prepared, text, write_table

COLORS, THINGS = ("red", "blue", "green", "black"), ("shoe", "shirt", "mug", "lamp", "bag")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    named = [f"{color} {thing}" for color in COLORS for thing in THINGS]
    rows = [{"product_id": f"p{n:02d}", "title": f"{named[n % 20]}{' xl' if n >= 20 else ''}"} for n in range(38)]
    rows += [{"product_id": f"p{n}", "title": named[0]} for n in (38, 39)]  # the title of what "red shoe" should find
    write_table(root / "products.csv", rows)
    table = [
        {"query": name, "product_id": f"p{n:02d}", "score": score}
        for at, name in enumerate(named)
        for n, score in ((at, 3), ((at + 1) % 20, 0), ((at + 20) % 38, 1))
    ]
    write_table(root / "pairs.csv", table)
    return prepared(catalog(root, products="products.csv", pairs="pairs.csv", score="score"), root / "out")


@pytest.fixture(scope="module")
def encoder(shop):
    torch.manual_seed(0)
    return load_model("gcl-tiny", schema=shop.schema)


def expected(shop, encoder, ranks, margin):
    """Query by query, document by document."""
    query = embed(encoder, shop.queries, "query").fused().astype(np.float64)
    document = embed(encoder, shop.documents, "document").fused().astype(np.float64)
    pairs, no = shop.pairs, shop.not_relevant
    mined = set()
    for q in sorted(set(pairs.query.tolist())):
        own = [d for p, d in zip(pairs.query, pairs.document, strict=True) if p == q]
        judged = {*own, *(d for p, d in zip(no.query, no.document, strict=True) if p == q)}
        trained = sorted({*pairs.document.tolist(), *no.document.tolist()})
        ordered = sorted(trained, key=lambda d: (-np.float32(query[q] @ document[d]), shop.documents.ids[d]))
        most = np.mean([query[q] @ document[d] for d in own])
        for place, d in enumerate(ordered, start=1):
            twin = shop.documents[d]["title"] in {shop.documents[o]["title"] for o in own}
            within = margin is None or query[q] @ document[d] <= most - (1 - margin) * abs(most)
            if ranks[0] <= place <= ranks[1] and d not in judged and not twin and within:
                mined.add((q, d))
    return mined


@pytest.mark.parametrize("ranks, margin", [([1, 40], None), ([3, 12], 0.95), ([1, 40], 0.6)])
def test_the_models_own_results_are_the_loop(shop, encoder, ranks, margin):
    settings = HardNegatives(source=Miner.model, ranks=ranks, margin=margin)
    mined = mine(encoder, shop, settings, EmbedOptions(progress=False))
    found = list(zip(mined.query.tolist(), mined.document.tolist(), strict=True))
    assert len(found) == len(set(found)) > 0
    assert set(found) == expected(shop, encoder, ranks, margin)


def test_learned_weights_are_what_it_searches_with(tmp_path):
    brands = ("north", "south", "east", "west")
    rows = [
        {"product_id": f"p{n}", "title": f"{COLORS[n % 4]} {THINGS[n % 5]}", "brand": brands[n // 5]} for n in range(20)
    ]
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", [{"query": row["title"], "product_id": row["product_id"]} for row in rows])
    fields = {"title": text(), "brand": text(weight=0.1)}
    shop = prepared(catalog(tmp_path, products="products.csv", pairs="pairs.csv", document=fields), tmp_path / "out")
    torch.manual_seed(0)
    encoder = load_model("gcl-tiny", schema=shop.schema)
    learned = {"title": 0.1, "brand": 0.9}
    settings, options = HardNegatives(source=Miner.model, ranks=[1, 5], margin=None), EmbedOptions(progress=False)
    mined = mine(encoder, shop, settings, options, {"document": learned})
    with_them = shop.schema.weighted({"query": {"query": 1.0}, "document": learned})
    assert mined.digest == mine(encoder.with_schema(with_them), shop, settings, options).digest
    assert mined.digest != mine(encoder, shop, settings, options).digest


def test_words_and_a_table_of_ones_own(shop, encoder, tmp_path):
    mined = mine(encoder, shop, HardNegatives(source=Miner.bm25, ranks=[1, 20], margin=None), EmbedOptions())
    names = {(shop.queries[q]["query"], shop.documents[d]["title"]) for q, d in
             zip(mined.query.tolist(), mined.document.tolist(), strict=True)}  # fmt: skip
    assert ("red shoe", "red bag") in names and ("red shoe", "blue shoe xl") in names
    assert all(set(query.split()) & set(title.split()) for query, title in names) and ("red shoe",) * 2 not in names
    rows = [{"query": shop.queries.ids[3], "document": name} for name in ("p00", "p07", "p99")]
    rows[1]["query"] = " " + shop.queries[3]["query"]  # by its text
    rows.append({"query": "unknown", "document": "p00"})
    path = write_table(tmp_path / "mine.csv", rows)
    of_file = HardNegatives(source=Miner.file, file=str(path))
    mined = mine(encoder, shop, of_file, EmbedOptions())
    assert [shop.documents.ids[d] for d in mined.document] == ["p00", "p07"] and set(mined.query) == {3}
    write_table(tmp_path / "mine.csv", rows[-1:])
    with pytest.raises(ValueError, match="none of its 1 rows names a query"):
        mine(encoder, shop, of_file, EmbedOptions())


def test_bm25_is_its_formula():
    texts = ["red shoes for running", "blue shoes", "a red red hat", "", "running in the rain, in red"]
    queries = ["red hat", "running shoes shoes", "nothing here", ""]
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, words)) / len(words)

    def score(query, d):
        total = 0.0
        for term in re.findall(r"\w+", query.lower()):
            df, tf = sum(term in one for one in words), words[d].count(term)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            total += idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * len(words[d]) / mean))
        return total

    found, rows = (index := BM25(texts)).search(queries, 4, rank=np.arange(5, dtype=np.int32))
    for q, query in enumerate(queries):
        best = sorted((d for d in range(5) if score(query, d) > 0), key=lambda d: (-np.float32(score(query, d)), d))[:4]
        assert rows[q].tolist() == best + [-1] * (4 - len(best))
        assert found[q, : len(best)] == pytest.approx([score(query, d) for d in best], rel=1e-6)
    every = index.scores(queries, np.repeat(np.arange(4), 5), np.tile(np.arange(5), 4))
    assert every == pytest.approx([score(query, d) for query in queries for d in range(5)], rel=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_words_are_searched_block_by_block_as_in_one_index(rows):
    random = np.random.default_rng(0)
    words = [f"w{n}" for n in range(30)]
    texts = [" ".join(random.choice(words, random.integers(0, 9))) for _ in range(300)]
    queries = [" ".join(random.choice(words, 3)) for _ in range(20)] + ["w1 w1", "nothing of it", ""]
    score, row = BM25(texts).search(queries, 10, rank=np.arange(300, dtype=np.int32))
    found = search_blocks(lambda: (texts[at : at + rows] for at in range(0, 300, rows)), queries, 10)
    assert np.array_equal(found[0], score) and np.array_equal(found[1], row)


def test_the_page_shows_both_rounds(shop, encoder, tmp_path):
    paths = []
    for step, ranks in ((0, [1, 10]), (30, [5, 20])):
        path = tmp_path / f"{step:08d}.parquet"
        settings = HardNegatives(source=Miner.model, ranks=ranks, margin=None)
        mine(encoder, shop, settings, EmbedOptions(progress=False)).write(path)
        paths.append(path)
    write_mined_page(tmp_path / "mined.html", shop, title="Hard negatives of <shop>", rounds=paths)
    page = (tmp_path / "mined.html").read_text(encoding="utf-8")
    assert (
        "step 0" in page and "step 30" in page and "of 20 searches" in page and "Hard negatives of &lt;shop&gt;" in page
    )
    assert page.count("<article") == 20 and "should find" in page and "<script>" in page and "http:" not in page


@pytest.mark.parametrize(
    "given, words",
    [({"ranks": [10, 5]}, r"hard_negatives\.ranks=\[10, 5\]"), ({"source": Miner.file}, "file=<table> need each other"),
     ({"source": Miner.bm25, "every": 10}, "every=10 needs")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        HardNegatives(**given).check("plan.hard_negatives.")
