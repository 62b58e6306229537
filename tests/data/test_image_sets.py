"""A field of several images: stored in order, read back whole or one by one, cut into bounded pieces; a set of one is
that image."""

import csv
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gcl.data.batches.batch import Features, ImageSets, SideBatch, SideReader, cut, size_of
from gcl.data.catalog import Catalog, Split, Store
from gcl.data.check import check_catalog
from gcl.data.mix import complete_mix
from gcl.data.prepare.copies import group_products
from gcl.data.prepare.mixed import JoinedStore
from gcl.data.prepare.parts import Part
from gcl.data.prepare.prepare import prepare_part
from gcl.data.store.records import EachImage, images_of
from gcl.data.store.shard_writer import ShardWriter, content_hash
from gcl.data.store.store import RecordStore
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Images, Modality
from helpers.small_catalog import catalog, drawn, image, prepared, text, write_table

ONE = {"image": Field(Modality.image), "title": Field()}
SETS = {"image": Field(Modality.image, images=Images.all), "title": Field()}
COUNTS = [3, 0, 1, 2, 1, 0, 5, 2]
FILES = [tuple(drawn(10 * row + n) for n in range(count)) for row, count in enumerate(COUNTS)]
TITLES = [None if row % 3 == 0 else f"thing {row}" for row in range(len(COUNTS))]


class Pixels:
    """A file's bytes as a tensor of their hash: which image it was can be read off."""

    size = (1, 2)

    def image(self, data):
        return torch.frombuffer(bytearray(content_hash(data)[:6]), dtype=torch.uint8).view(3, 1, 2)

    def text(self, texts):
        return torch.tensor([[len(text)] for text in texts])

    def augment(self, data, generator):
        return self.image(data) + int(generator.integers(100))


def write(folder, side, records):
    with ShardWriter(folder, "documents", side=side, shard_bytes=9000) as writer:
        for row, record in enumerate(records):
            writer.write(f"p{row}", record)
    return RecordStore(folder, "documents", side)


@pytest.fixture(params=["stored", "in memory"])
def records(request, tmp_path):
    given = [{"image": files or None, "title": title} for files, title in zip(FILES, TITLES, strict=True)]
    if request.param == "stored":
        return write(tmp_path / "sets", SETS, given)
    return ListRecords([f"p{row}" for row in range(len(given))], given, SETS)


def test_a_set_is_read_as_it_was_written(records):
    rows = np.array([6, 0, 6, 1, 2])
    for some in (records, pickle.loads(pickle.dumps(records))):
        assert [record["image"] for record in map(some.__getitem__, range(len(some)))] == [f or None for f in FILES]
        assert some.column("image", rows) == [FILES[row] or None for row in rows]
    assert records.present(rows)[:, 0].tolist() == [True, True, True, False, True]
    part = records.subset(rows)
    assert part.column("image", np.array([1])) == [FILES[0]]
    assert list(map(list, part.image_hashes("image"))) == [[content_hash(f) for f in FILES[row]] for row in rows]


def test_the_hash_of_a_set_is_its_images_in_order(records, tmp_path):
    hashes = list(records.hashes("image"))
    assert [value is None for value in hashes] == [not files for files in FILES]
    assert hashes[2] == content_hash(FILES[2][0])  # a set of one is that image
    turned = [{"image": files[::-1] or None, "title": "x"} for files in FILES]
    other = list(write(tmp_path / "turned", SETS, turned).hashes("image"))
    assert [a == b for a, b in zip(hashes, other, strict=True)] == [len(files) < 2 for files in FILES]


def test_every_image_as_a_record_of_its_own(records):
    each, flat = EachImage(records, "image"), [file for files in FILES for file in files]
    assert len(each) == len(flat)
    rows = np.array([13, 0, 5, 2, 2])
    assert each.column("image", rows) == [flat[row] for row in rows]
    assert list(each.hashes("image")) == [content_hash(file) for file in flat]
    assert each.ids[1] == "p0#1" and "p0" in each.place(1) and each.place(1).endswith("image 2")
    some = each.subset(rows)
    assert some.column("image", np.array([1, 4])) == [flat[0], flat[2]] and some.ids[2] == each.ids[5]


def test_single_images_can_be_seen_one_by_one_too(tmp_path):
    given = [{"image": files[0] if files else None, "title": "x"} for files in FILES]
    each = EachImage(write(tmp_path / "one", ONE, given), "image")
    assert each.column("image", each.rows) == [files[0] for files in FILES if files]


def test_an_index_of_sets_is_not_read_as_single_images_nor_the_other_way(tmp_path):
    sets = write(tmp_path / "sets", SETS, [{"image": FILES[0]}])
    one = write(tmp_path / "one", ONE, [{"image": FILES[0][0]}])
    with pytest.raises(ValueError, match=r"no image field 'image'; it was written with image \(images\)"):
        RecordStore(sets.folder, "documents", ONE)
    with pytest.raises(ValueError, match=r"no images field 'image'; it was written with image \(image\)"):
        RecordStore(one.folder, "documents", SETS)
    with pytest.raises(ValueError, match="expected a tuple of images, not bytes"):
        write(tmp_path / "wrong", SETS, [{"image": FILES[0][0]}])
    with pytest.raises(ValueError, match="expected one image, not tuple"):
        write(tmp_path / "wrong", ONE, [{"image": FILES[0]}])


def test_a_changed_image_of_a_set_is_named(tmp_path):
    store = write(tmp_path / "sets", SETS, [{"image": files, "title": "x"} for files in FILES if files])
    place = pq.read_table(store.folder / "documents.parquet")["image.offset"][2].as_py()[1]
    path = store.folder / store.shards[store.shard[2]]["name"]
    data = bytearray(path.read_bytes())
    data[place + 30] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"row 2, id 'p2', field image"):
        RecordStore(store.folder, "documents", SETS).verify()


def test_the_tar_names_the_images_of_a_set_in_order(tmp_path):
    import tarfile

    store = write(tmp_path / "sets", SETS, [{"image": FILES[0], "title": "x"}])
    with tarfile.open(store.folder / store.shards[0]["name"]) as tar:
        names = [member.name.split(".", 1)[1] for member in tar]
        assert names == ["image.jpg", "image.1.jpg", "image.2.jpg", "title.txt", "json"]
        assert [tar.extractfile(member).read() for member in tar.getmembers()[:3]] == list(FILES[0])


@pytest.mark.parametrize("parts", [0, 2])
def test_a_table_s_sets_are_prepared_without_their_bad_images(tmp_path, parts):
    for row, files in enumerate(FILES):
        for n, data in enumerate(files):
            (tmp_path / f"{row}-{n}.jpg").write_bytes(data)
    (tmp_path / "broken.jpg").write_bytes(FILES[0][0][:99])
    names = [[f"{row}-{n}.jpg" for n in range(count)] for row, count in enumerate(COUNTS)]
    names[0].insert(1, "broken.jpg")
    names[1] = ["broken.jpg", "gone.jpg"]
    names[6] *= 4  # of 20 images the first 16 are taken
    rows = [{"product_id": f"p{n}", "title": f"thing {n}", "image": "|".join(one)} for n, one in enumerate(names)]
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", [{"query": f"query {n}", "product_id": f"p{n}"} for n in range(len(rows))])
    given = catalog(
        tmp_path, products="products.csv", pairs="pairs.csv", store=Store(workers=2, image_side=parts or None),
        document={"image": image(images=Images.all, separator="|"), "title": text()},
    )  # fmt: skip
    for number in range(parts):
        prepare_part(given, tmp_path / "out", Part(number + 1, parts), progress=False)
    found = prepared(given, tmp_path / "out")
    stored = [images_of(record) for record in found.documents.column("image", np.arange(len(rows)))]
    assert [len(images) for images in stored] == [3, 0, 1, 2, 1, 0, 16, 2]
    if not parts:  # with image_side they are shrunk
        assert stored[0] == FILES[0] and stored[6] == (FILES[6] * 4)[:16]
    assert found.counts["bad_images"]["document.image"]["too many images"] == 1
    with open(found.folder / "bad_images.csv", newline="", encoding="utf-8") as file:
        listed = [(line["id"], line["reason"]) for line in csv.DictReader(file)]
    assert [name for name, _ in listed] == ["p0", "p1", "p1", "p6"] and listed[2][1] == "no such image"


def test_products_that_share_an_image_are_split_together(tmp_path):
    a, b, c, d, e = FILES[6]
    sets = [(a, b), (c,), (d, d), (e, a), (c, b, e), (drawn(99),)]
    store = write(tmp_path / "sets", SETS, [{"image": s, "title": f"thing {n}"} for n, s in enumerate(sets)])
    assert group_products(store, Split()).first.tolist() == [0, 0, 2, 0, 0, 5]
    ring = [(FILES[6][n % 5], drawn(50 + n), FILES[6][(n + 2) % 5]) for n in range(5)]
    store = write(tmp_path / "ring", SETS, [{"image": s, "title": f"thing {n}"} for n, s in enumerate(ring[::-1])])
    assert group_products(store, Split()).first.tolist() == [0] * 5


def test_catalogs_of_a_mix_have_sets_or_none_of_that_name(tmp_path):
    sets = [{"image": files, "title": f"thing {row}"} for row, files in enumerate(FILES)]
    stores = {
        "one": write(tmp_path / "one", SETS, sets),
        "texts": write(tmp_path / "texts", {"title": Field()}, [{"title": "x"}, {"title": "y"}]),
    }
    joined, rows = JoinedStore("documents", stores, SETS), np.array([9, 0, 8, 2])
    assert joined.column("image", rows) == [None, FILES[0], None, FILES[2]]
    assert [len(several or ()) for several in joined.image_hashes("image")] == [*COUNTS, 0, 0]
    each = EachImage(joined, "image")
    assert len(each) == sum(COUNTS) and each.column("image", np.array([3])) == [FILES[2][0]]
    catalogs = {
        name: Catalog(name=name, query={"query": Field()}, document={"image": Field(Modality.image, images=images)})
        for name, images in (("a", Images.all), ("b", Images.first))
    }
    with pytest.raises(ValueError, match=r"in a and image in b: set data.catalogs.b.document.image.images=all"):
        complete_mix(Catalog(name="both", mix={"a": 0.5, "b": 0.5}, catalogs=catalogs))


def test_ready_shards_have_no_sets():
    given = Catalog(name="x", shards="x.tar", query={"query": Field()}, document={"image": SETS["image"]})
    with pytest.raises(ValueError, match="document.image.images is all, but a sample of ready shards has one image"):
        check_catalog(given)


def test_a_batch_has_every_image_with_its_record(records):
    rows = np.array([6, 1, 2, 0])
    batch = SideReader(records, SETS, Pixels())(rows)
    sets = batch.fields["image"]
    assert sets.row.tolist() == [0] * 5 + [2] + [3] * 3
    flat = [file for row in rows for file in FILES[row]]
    assert torch.equal(sets.value, torch.stack([Pixels().image(file) for file in flat]))
    assert batch.present[:, 0].tolist() == [True, False, True, True]


def test_cached_features_stand_for_the_same_images(records):
    each = EachImage(records, "image")
    features = {"image": np.arange(len(each), dtype=np.float32)[:, None]}
    rows = np.array([6, 1, 2, 0])
    for store, at in ((records, rows), (records.subset(rows), np.arange(4))):
        if isinstance(store, ListRecords) and store is not records:
            continue  # a list's subset is a list of its own
        batch = SideReader(store, SETS, Pixels(), features)(at)
        flat = [image for row in rows for image in np.flatnonzero(each.row == row)]
        assert isinstance(batch.fields["image"].value, Features)
        assert batch.fields["image"].value.value[:, 0].tolist() == flat
        assert batch.fields["image"].row.tolist() == [0] * 5 + [2] + [3] * 3
    with pytest.raises(ValueError, match="Features of image have 3 rows, the records 14"):
        SideReader(records, SETS, Pixels(), {"image": np.zeros((3, 2))})


def test_a_set_of_one_is_read_and_augmented_as_a_single_image(tmp_path):
    rows = np.arange(len(FILES))
    single = [{"image": files[0] if files else None, "title": "x"} for files in FILES]
    one = write(tmp_path / "one", ONE, single)
    sets = write(tmp_path / "sets", SETS, [{"image": r["image"] and (r["image"],), "title": "x"} for r in single])
    assert list(one.hashes("image")) == list(sets.hashes("image"))
    for seed in (None, (0, 3, 4, 1)):
        a, b = (SideReader(s, side, Pixels())(rows, augment_seed=seed) for s, side in ((one, ONE), (sets, SETS)))
        assert torch.equal(a.present, b.present)
        assert torch.equal(a.fields["image"][b.fields["image"].row], b.fields["image"].value)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 100])
def test_pieces_are_bounded_and_together_the_batch(most):
    count = torch.tensor([2, 0, 1, 1, 5, 0, 0, 2, 2])
    row = torch.repeat_interleave(torch.arange(len(count)), count)
    value = torch.arange(len(row))
    text = torch.arange(len(count))
    batch = SideBatch({"image": ImageSets(value, row), "title": text}, torch.stack([count > 0, text >= 0], 1))
    assert size_of(batch) == 13
    pieces = cut(batch, most)
    for piece in pieces:
        assert len(piece.present) <= most
        assert len(piece.fields["image"].value) <= most or len(piece.present) == 1
        has = torch.bincount(piece.fields["image"].row, minlength=len(piece.present)) > 0
        assert torch.equal(piece.present[:, 0], has)
    assert torch.cat([p.fields["image"].value for p in pieces]).equal(value)
    assert torch.cat([p.fields["title"] for p in pieces]).equal(text)
    starts = np.cumsum([0, *(len(p.present) for p in pieces)])
    assert torch.cat([p.fields["image"].row + s for p, s in zip(pieces, starts, strict=False)]).equal(row)
    if most < 100:  # no piece could have been longer
        assert all(
            len(a.present) == most or len(a.fields["image"].value) + int(count[s + len(a.present)]) > most
            for a, s in zip(pieces[:-1], starts, strict=False)
        )
    by_rows = cut(batch, most, by_rows=True)
    assert [len(piece.present) for piece in by_rows][:-1] == [min(most, 9)] * ((9 - 1) // most)


def test_pieces_of_records_without_sets_are_their_rows():
    batch = SideBatch({"title": torch.arange(7)}, torch.ones(7, 1, dtype=torch.bool))
    assert [piece.fields["title"].tolist() for piece in cut(batch, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert size_of(batch) == 7


def test_images_of_any_value():
    assert [images_of(value) for value in (None, b"", b"x", (b"x", b"y"), "text")] == [
        (),
        (),
        (b"x",),
        (b"x", b"y"),
        (),
    ]
