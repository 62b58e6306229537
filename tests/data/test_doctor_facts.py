"""The doctor counts what a plain loop over the same catalog counts."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gcl.data.batches.plan import Plan
from gcl.data.catalog import Copies, Split, Task
from gcl.data.doctor.facts import examine, expected_repeats, repeats
from gcl.data.doctor.images import Seen, close_hashes, look_at, near_pairs
from gcl.data.doctor.samples import distribution, sample_rows
from gcl.data.prepare.copies import fold
from gcl.data.store.prepared import Pairs
from helpers.small_catalog import catalog, drawn, image, pairs, prepared, text, write_table

HALVES = Split(queries=0.6, documents=0.5, dev=0.5, seed=1, copies=Copies.apart)


def scene(seed: int, size=(120, 90)) -> Image.Image:
    """A picture with large shapes, as photos have them: noise would not survive being made smaller."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, form="JPEG", **options) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """60 products: 12 has the title of 0 and so on up to 23, 24..35 the picture, 36..41 a near copy of it."""
    root = tmp_path_factory.mktemp("shop")
    rows = []
    for number in range(60):
        copied = number % 12
        data = encoded(scene(copied if 24 <= number < 42 else number), quality=90 if number < 36 else 60)
        (root / f"{number}.jpg").write_bytes(data)
        title = f"  THING  number {copied}" if 12 <= number < 24 else f"thing number {number}"
        rows.append(
            {"product_id": f"{number:04d}", "title": title, "brand": "ab"[number % 2], "image": f"{number}.jpg"}
        )
    write_table(root / "products.csv", rows)
    write_table(
        root / "pairs.csv", pairs(30, 60, each=12) + [{"query": "QUERY  1", "product_id": "0000", "score": "3"}]
    )
    given = catalog(
        root,
        products="products.csv",
        pairs="pairs.csv",
        score="score",
        document={"title": text(), "brand": text(), "image": image()},
        split=HALVES,
    )
    return prepared(given, root / "prepared")


@pytest.fixture(scope="module")
def facts(shop):
    return examine(shop, everything=True)


def test_duplicates_are_those_that_were_planted(facts):
    found = facts["duplicates"]
    assert found["equal_text"]["title"]["rows"] == 24 and found["equal_text"]["title"]["groups"] == 12
    assert "brand" not in found["equal_text"]  # equal brands are no news
    assert found["equal_image"]["image"]["rows"] == 24 and found["equal_image"]["image"]["groups"] == 12
    groups = [[product["id"] for product in group] for group in found["equal_image"]["image"]["examples"]]
    assert ["0000", "0024"] in groups and found["equal_image"]["image"]["sizes"] == [2, 2, 2]
    assert found["equal_in_every_field"]["rows"] == 0
    assert found["near_image"]["image"]["rows"] == 6 * 3 and found["near_image"]["image"]["looked_at"] == 60


def test_leaks_are_what_two_loops_find(shop, facts):
    trained, relevant = set(shop.pairs.document.tolist()), set()
    for name in shop.task_names:
        for part in ("dev", "test"):
            task = shop.task(name, part)
            relevant |= set(task.document[task.relevance > 0].tolist())
    held_out = relevant - trained
    leak = facts["leakage"]["document"]
    assert (leak["held_out"], leak["trained"]) == (len(held_out), len(trained)) and held_out
    values = {
        "title": lambda row: fold(shop.documents[row]["title"]),
        "image": lambda row: shop.documents[row]["image"],
    }
    for name, value in values.items():
        seen = {value(row) for row in trained}
        kind = "equal_text" if name == "title" else "equal_image"
        expected = sum(value(row) in seen for row in held_out)
        assert leak[kind][name]["rows"] == expected > 0
    copies = {row: {other for other in range(60) if (other % 12 == row % 12 and 24 <= other < 42) or other == row % 12}
              for row in [*range(6), *range(24, 30), *range(36, 42)]}  # fmt: skip
    numbers = {row: int(shop.documents.ids[row]) for row in range(60)}
    picture = [shop.documents[row]["image"] for row in range(60)]
    near = sum(
        any(numbers[seen] in copies.get(numbers[row], ()) and picture[seen] != picture[row] for seen in trained)
        for row in held_out
    )
    assert leak["near_image"]["image"]["rows"] == near


def test_a_query_that_differs_in_case_only_is_the_same(shop, facts):
    query = facts["leakage"]["query"]
    ids = [row for row in range(len(shop.queries)) if fold(shop.queries[row]["query"]) == "query 1"]
    assert len(ids) == 2
    trained = set(shop.pairs.query.tolist())
    assert query["equal_text"]["query"]["rows"] == int(len(trained & set(ids)) == 1)


def test_fields_scores_and_what_was_left_out(shop, facts, tmp_path):
    assert facts["fields"]["document.title"] == {"modality": "text", "rows": 60, "present": 60, "share": 1.0}
    assert facts["scores"]["count"] == len(shop.pairs) and facts["scores"]["quantiles"]["most"] == 12
    assert sum(count for _, count in facts["scores"]["histogram"]) == len(shop.pairs)
    assert [label for label, _ in facts["scores"]["histogram"]] == [str(n) for n in range(1, 13)], "not ten bins"
    images = facts["images"]["document.image"]
    assert (images["looked_at"], images["modes"], images["width"]["median"]) == (60, {"RGB": 60}, 120)
    write_table(tmp_path / "pairs.csv", [*pairs(20, 20), {"query": "q", "product_id": "1", "score": "-1"}])
    title = {"title": text(column="product_id")}
    given = catalog(tmp_path, pairs="pairs.csv", score="score", document=title, max_bad=0.1)
    left = examine(prepared(given, tmp_path / "out"))["unreadable"]
    assert left["tables"]["pairs.csv"]["reasons"] == {"negative score": 1}
    assert left["examples"]["negative score"] == ["row 121 1 -1"]


def test_judgments_of_unknown_products_are_counted(shop, tmp_path):
    write_table(tmp_path / "pairs.csv", [row | {"title": f"t {row['product_id']}"} for row in pairs(20, 20)])
    write_table(tmp_path / "queries.csv", [{"query_id": f"q{n}", "query": f"asked {n}"} for n in range(8)])
    judged = [{"query_id": f"q{n}", "product_id": f"{n if n < 5 else 900 + n:04d}", "score": "1"} for n in range(8)]
    write_table(tmp_path / "qrels.csv", judged)
    own = Task("queries.csv", "qrels.csv", corpus="all")
    given = catalog(tmp_path, pairs="pairs.csv", score="score", tasks={"own": own})
    given = replace(given, split=replace(given.split, dev=0.3, seed=2))
    task = examine(prepared(given, tmp_path / "out"))["tasks"]["own"]
    assert task["dangling_judgments"] == 3 and task["queries_without_relevant"] == 3
    assert task["dangling"][0] == "query q5: product 0905: not in the catalog"


def test_in_batch_repeats_by_formula_and_by_count():
    random = np.random.default_rng(0)
    table = Pairs(random.integers(0, 40, 2000), random.integers(0, 700, 2000), np.ones(2000, np.float32))
    found = repeats(table, Plan(table, batch_size=100, seed=0), everything=True)
    assert found["batches"] == 20
    assert found["query"]["counted_pairs"] == pytest.approx(found["query"]["expected_pairs"], rel=0.1)
    assert found["query"]["expected_pairs"] == pytest.approx(100 * 99 / 2 / 40, rel=0.05)
    assert found["query"]["counted_places"] == pytest.approx(100 - 40 * (1 - 0.975**100), abs=2)
    assert repeats(table, Plan(table, batch_size=40, seed=0, unique="query"))["query"]["counted_pairs"] == 0
    assert expected_repeats(np.zeros(5), 5) == 10


def test_near_copies_are_found_and_others_are_not():
    pictures = [encoded(scene(seed)) for seed in range(40)]
    pictures += [encoded(scene(3), quality=40), encoded(scene(4).resize((61, 46))), encoded(scene(5), "PNG")]
    pictures.append(encoded(Image.new("L", (30, 30))))
    looks = [look_at(data) for data in pictures]
    assert looks[-1].hash is None and look_at(b"no picture") is None
    assert (looks[41].width, looks[41].format, looks[42].format) == (61, "JPEG", "PNG")
    seen = Seen(
        np.array([look.hash or (0, 0) for look in looks], np.uint64),
        np.stack([np.frombuffer(look.thumbnail, np.uint8) for look in looks]),
    )
    assert near_pairs(seen).tolist() == [[3, 40], [4, 41], [5, 42]]


def test_close_hashes_are_all_that_a_full_comparison_finds():
    random = np.random.default_rng(1)
    base = random.integers(1, 2**63, (50, 2), dtype=np.uint64)
    flips = np.uint64(1) << random.integers(0, 64, (150, 2), dtype=np.uint64)
    hashes = np.concatenate([base, np.tile(base, (3, 1)) ^ flips, np.zeros((3, 2), np.uint64)])
    bits = np.unpackbits(hashes.view(np.uint8).reshape(len(hashes), 16), axis=1).astype(int)
    apart = np.abs(bits[:, None] - bits[None]).sum(-1)
    expected = [[i, j] for i in range(200) for j in range(i + 1, 200) if apart[i, j] <= 4]
    assert close_hashes(hashes, distance=4).tolist() == expected and len(expected) >= 150


def test_sampling_and_distributions():
    rows = np.arange(0, 3000, 3)
    some = sample_rows(rows, 50)
    assert len(some) == 50 and set(some) <= set(rows) and (np.diff(some) > 0).all()
    assert (some == sample_rows(rows, 50)).all() and len(sample_rows(rows, None)) == 1000
    assert distribution(np.empty(0)) == {"count": 0}
    assert distribution(np.array([1.0, 1, 4]))["mean"] == 2


def test_pictures_of_every_mode_are_looked_at():
    for mode, form in (("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("1", "PNG")):
        look = look_at(drawn(3, mode=mode, form=form))
        assert (look.mode, look.format) == (mode, form)
