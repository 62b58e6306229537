"""Ready shards are indexed where they lie, and split and judged exactly as tables are."""

import io
import json
import tarfile

import pytest

from gcl.data.catalog import BadImages, Duplicates, SameProduct, Split, Store, Task
from gcl.data.prepare.prepare import prepare
from helpers.small_catalog import catalog, contents, drawn, image, prepared, quarantined, text

SPLIT = Split(queries=0.7, documents=0.6)


def write_tar(path, samples):
    with tarfile.open(path, "w") as target:
        for key, members in samples.items():
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                target.addfile(member, io.BytesIO(data))


def sample(number, **about):
    words = {"score": 1 + number % 5, "query": f"query {number % 50}", **about}
    return {"jpg": drawn(number % 40), "txt": f"thing {number % 40}".encode(), "json": json.dumps(words).encode()}


@pytest.fixture
def shop(tmp_path):
    for shard in range(3):
        numbers = range(100 * shard, 100 * shard + 100)
        write_tar(tmp_path / f"part-{shard:03d}.tar", {f"{number:06d}": sample(number) for number in numbers})
    return tmp_path


def shard_catalog(root, **options):
    fields = {"image": image(), "title": text(column="txt")}
    given = {"shards": "part-{000..002}.tar", "document": fields, "score": "score", "split": SPLIT}
    return catalog(root, **given | options)


def test_shards_are_split_and_judged_like_tables(shop):
    before = {path: path.read_bytes() for path in shop.glob("*.tar")}
    found = prepared(shard_catalog(shop), shop / "out")
    assert len(found.documents) == 40 and len(found.queries) == 50
    assert found.task_names == ["in_domain", "novel_query", "novel_document", "zero_shot"]
    said = contents(found)
    expected = {(f"query {n % 50}", f"thing {n % 40}") for n in range(300)}
    rows = [*said["pairs"], *(row for _, rows in said["tasks"].values() for row in rows)]
    pairs = {(said["queries"][query]["query"], said["documents"][document]["title"]) for query, document, _ in rows}
    assert pairs == expected
    assert {record["image"] for record in said["documents"].values()} == {drawn(number) for number in range(40)}
    assert {path: path.read_bytes() for path in shop.glob("*.tar")} == before
    assert not list(found.folder.glob("*.tar"))


def test_shards_are_prepared_once_until_they_change(shop):
    folder = prepare(shard_catalog(shop), shop / "out", progress=False)
    assert prepare(shard_catalog(shop), shop / "out", progress=False) == folder
    write_tar(shop / "part-002.tar", {f"{number:06d}": sample(number) for number in range(150)})
    assert prepare(shard_catalog(shop), shop / "out", progress=False) != folder


def test_bad_samples_are_counted_and_listed(shop):
    samples = {f"{number:06d}": sample(number) for number in range(200, 300)}
    samples["000210"]["jpg"] = samples["000210"]["jpg"][:200]
    write_tar(shop / "part-002.tar", samples)
    found = prepared(shard_catalog(shop, bad_images=BadImages.drop), shop / "out")
    assert found.counts["rows"] == {"data.shards": 300} and found.counts["bad_rows"] == {"data.shards": 1}
    (row,) = quarantined(found.folder)
    assert (row["table"], row["row"], row["id"], row["reason"]) == ("part-002.tar", "11", "000210", "unreadable image")
    sentence = r"1 of 300 rows of data.shards cannot be used .*The first: part-002.tar, row 11, '000210': unreadable im"
    with pytest.raises(ValueError, match=sentence):
        prepare(shard_catalog(shop, max_bad=0.001, bad_images=BadImages.drop), shop / "out", progress=False)


def test_a_sample_goes_on_without_an_image_that_cannot_be_used(shop):
    samples = {f"{number:06d}": sample(number) for number in range(200, 300)}
    samples["000210"]["jpg"] = samples["000210"]["jpg"][:200]
    write_tar(shop / "part-002.tar", samples)
    found = prepared(shard_catalog(shop), shop / "out")
    assert found.counts["bad_rows"] == {"data.shards": 0} and quarantined(found.folder) == []
    assert found.counts["images"]["document.image"]["absent"] == 1 and len(found.documents) == 41
    listed = (found.folder / "bad_images.csv").read_text().splitlines()
    assert len(listed) == 2 and "000210,document.image,unreadable image" in listed[1]
    with pytest.raises(ValueError, match="data.bad_images is refuse"):
        prepare(shard_catalog(shop, bad_images=BadImages.refuse), shop / "out", progress=False)


def json_shards(root, rows):
    """One shard of samples whose values are all in their JSON, with an image each."""
    write_tar(
        root / "json.tar",
        {
            f"{number:06d}": {"jpg": drawn(number), "json": json.dumps(about).encode()}
            for number, about in enumerate(rows)
        },
    )
    fields = {"image": image(column="jpg"), "title": text()}
    given = {"shards": "json.tar", "document": fields, "query": {"query": text()}, "score": "score"}
    return lambda **options: catalog(root, **given | {"split": Split(1, 1)} | options)


def abouts(count=40):
    return [{"query": f"query {n}", "title": f"thing {n}", "score": 1 + n % 5, "product_id": n} for n in range(count)]


def test_the_id_decides_whatever_its_key_is_called(tmp_path):
    for key in ("product_id", "sku"):
        rows = [{**about, key: about["product_id"] // 2} for about in abouts()]
        shards = json_shards(tmp_path, [row if key == "product_id" else row | {"product_id": "x"} for row in rows])
        with pytest.raises(
            ValueError, match=f"(?i)document id repeated.*data.document_id={key}.*duplicates.products=first"
        ):
            prepare(shards(document_id=key), tmp_path / "out", progress=False)
        first = prepared(shards(document_id=key, duplicates=Duplicates(products=SameProduct.first)), tmp_path / "out")
        assert len(first.documents) == 20 and len(first.pairs) == 40
        assert first.documents[3]["title"] == "thing 6" and "20 samples bring other content" in first.counts["notes"][0]
    without = [{name: value for name, value in about.items() if name != "product_id"} for about in abouts()]
    assert len(prepared(json_shards(tmp_path, without)(), tmp_path / "out").documents) == 40


def test_values_of_samples_are_read_as_those_of_tables(tmp_path):
    rows = abouts()
    expected = contents(prepared(json_shards(tmp_path, rows)(), tmp_path / "out"))
    written = [row | {"score": f"{row['score']},0", "product_id": float(row["product_id"])} for row in rows]
    assert contents(prepared(json_shards(tmp_path, written)(decimal=","), tmp_path / "out")) == expected
    words = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "best"}
    graded = [row | {"score": words[row["score"]]} for row in rows]
    grades = {word: float(score) for score, word in words.items()}
    assert contents(prepared(json_shards(tmp_path, graded)(grades=grades), tmp_path / "out")) == expected
    with pytest.raises(
        ValueError, match="holds words where a score is expected.*'best' 8.*data.grades={bad: …, best: "
    ):
        prepare(json_shards(tmp_path, graded)(), tmp_path / "out", progress=False)


def test_missing_words_and_what_a_mac_adds_are_nothing(tmp_path):
    rows = [row | ({"title": "N/A"} if n == 7 else {}) for n, row in enumerate(abouts())]
    clean = prepared(json_shards(tmp_path, rows)(), tmp_path / "out")
    expected = contents(clean)
    assert [clean.documents[row]["title"] for row in (6, 7)] == ["thing 6", None]
    samples = {f"{n:06d}": {"jpg": drawn(n), "json": json.dumps(row).encode()} for n, row in enumerate(rows)}
    litter = {f"._{n:06d}": {"jpg": b"\0\5\x16\7", "json": b"{"} for n in range(40)}
    litter |= {"__MACOSX/000000": {"jpg": b"\0"}}
    shards = json_shards(tmp_path, rows)
    write_tar(tmp_path / "json.tar", litter | samples)
    found = prepared(shards(), tmp_path / "out")
    assert contents(found) == expected and found.counts["bad_rows"] == {"data.shards": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": {"bench": Task(queries="q.csv", qrels="j.csv")}}, "data.tasks needs tables"),
        ({"store": Store(image_side=64)}, "ready shards are used as they are"),
        ({"shards": "part-{000..003}.tar"}, "part-003.tar is not a file"),
        ({"products": "products.csv"}, "data.shards and data.products"),
    ],
)
def test_mistakes_are_sentences(shop, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(shard_catalog(shop, **options), shop / "out", progress=False)
