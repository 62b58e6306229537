"""Ready shards are indexed where they lie, and split and judged exactly as tables are."""

import io
import json
import tarfile

import pytest

from gcl.data.catalog import Split, Store, Task
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
    found = prepared(shard_catalog(shop), shop / "out")
    assert found.counts["rows"] == {"data.shards": 300} and found.counts["bad_rows"] == {"data.shards": 1}
    (row,) = quarantined(found.folder)
    assert (row["table"], row["row"], row["id"], row["reason"]) == ("part-002.tar", "11", "000210", "unreadable image")
    sentence = r"1 of 300 rows of data.shards cannot be used .*The first: part-002.tar, row 11, '000210': unreadable im"
    with pytest.raises(ValueError, match=sentence):
        prepare(shard_catalog(shop, max_bad=0.001), shop / "out", progress=False)


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
