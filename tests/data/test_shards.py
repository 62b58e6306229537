"""What is written is what is read, by us and by anybody's tar reader, and the same records give the same bytes."""

import hashlib
import tarfile

import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcl.data.store.shard_writer import BLOCK, RECORD, ShardWriter, content_hash, image_extension
from gcl.data.store.store import RecordStore
from gcl.data.store.tar import pack_header
from gcl.schema import Field, Modality

SIDE = {"image": Field(Modality.image), "title": Field(), "long_text": Field()}
MAGIC = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b""]

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
images = st.none() | st.builds(lambda magic, body: magic + body, st.sampled_from(MAGIC), st.binary(max_size=1500))
records = st.fixed_dictionaries({"image": images, "title": texts, "long_text": texts}).filter(lambda r: any(r.values()))


def write(folder, stored, *, shard_bytes=1 << 20, side=SIDE):
    with ShardWriter(folder, "documents", side=side, shard_bytes=shard_bytes) as writer:
        for number, record in enumerate(stored):
            assert writer.write(f"id-{number}", record) == number
    return writer


def some(count):
    image = b"\xff\xd8\xff"
    return [
        {"image": image + bytes([i % 256]) * 700, "title": f"título {i}", "long_text": None if i % 3 else "l" * i}
        for i in range(count)
    ]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(stored=st.lists(records, max_size=12), shard_bytes=st.sampled_from([1, 4096, 1 << 20]))
def test_writing_then_reading_is_the_identity(tmp_path_factory, stored, shard_bytes):
    folder = tmp_path_factory.mktemp("shards")
    write(folder, stored, shard_bytes=shard_bytes)
    store = RecordStore(folder, "documents", SIDE)
    assert len(store) == len(stored)
    expected = [{name: record[name] or None for name in SIDE} for record in stored]  # "" and b"" are absent
    assert [store[row] for row in range(len(store))] == expected
    assert list(store.ids) == [f"id-{number}" for number in range(len(stored))]
    store.verify()


def test_stock_webdataset_reads_the_same_samples(tmp_path):
    stored = some(40)
    write(tmp_path, stored, shard_bytes=20_000)
    tars = sorted(str(path) for path in tmp_path.glob("*.tar"))
    assert len(tars) > 2
    read = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8", partial=True, only=["json"]))
    assert [sample["__key__"] for sample in read] == [f"{row:09d}" for row in range(40)]
    for row, (sample, record) in enumerate(zip(read, stored, strict=True)):
        values = {name: value for name, value in sample.items() if not name.startswith("__")}
        expected = {"image.jpg": record["image"], "title.txt": record["title"].encode(), "json": {"id": f"id-{row}"}}
        if record["long_text"]:
            expected["long_text.txt"] = record["long_text"].encode()
        assert values == expected


def test_tars_are_plain_and_repeatable(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, some(25), shard_bytes=9000)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "documents.parquet" in files and not any("partial" in name for name in files)
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with tarfile.open(tmp_path / "a" / "documents-00000.tar") as tar:
        found = tar.getmembers()
    keys = [member.name.split(".")[0] for member in found]
    assert keys == sorted(keys), "members of a sample lie together"
    assert all((m.mtime, m.uid, m.gid, m.uname, m.mode, m.isreg()) == (0, 0, 0, "", 0o644, True) for m in found)
    assert (tmp_path / "a" / "documents-00000.tar").stat().st_size % RECORD == 0


@pytest.mark.parametrize("length", [*range(RECORD - 4 * BLOCK - 2, RECORD - 4 * BLOCK + 3), RECORD - 3 * BLOCK])
def test_the_end_of_the_archive_is_always_marked(tmp_path, length):
    writer = write(tmp_path, [{"title": "t" * length}], side={"title": Field()})
    data = (tmp_path / "documents-00000.tar").read_bytes()
    assert len(data) % RECORD == 0 and data.endswith(bytes(2 * BLOCK))
    assert writer.shards == [
        {"name": "documents-00000.tar", "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "records": 1}
    ]


@given(name=st.text("éab. 1", min_size=1, max_size=50), size=st.integers(0, 8**11 - 1))
@settings(max_examples=80, deadline=None)
def test_a_member_s_header_is_tarfile_s(name, size):
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    ours, theirs = pack_header(name, size), member.tobuf(tarfile.USTAR_FORMAT)
    if not any(theirs[329:345]):  # older versions of Python put zeros as digits into the device fields
        assert ours == theirs
    read = tarfile.TarInfo.frombuf(ours, "utf-8", "strict")  # checks the checksum
    assert (read.name, read.size, read.mode, read.isreg()) == (name, size, 0o644, True)


def test_what_a_header_cannot_hold_is_refused():
    for name, size in (("n" * 101, 1), ("n", 8**11)):
        with pytest.raises(ValueError, match="100 bytes of name"):
            pack_header(name, size)


def test_index_says_where_each_value_lies(tmp_path):
    stored = some(30)
    writer = write(tmp_path, stored, shard_bytes=9000)
    table = pq.read_table(tmp_path / "documents.parquet").to_pylist()
    assert sum(shard["records"] for shard in writer.shards) == 30 == len(table)
    for row, record in zip(table, stored, strict=True):
        data = (tmp_path / f"documents-{row['shard']:05d}.tar").read_bytes()
        for name, value in record.items():
            value = value.encode() if isinstance(value, str) else value
            if value:
                assert data[row[f"{name}.offset"] :][: row[f"{name}.length"]] == value
                assert row[f"{name}.hash"] == content_hash(value) == hashlib.sha256(value).digest()[:16]
            else:
                assert (row[f"{name}.length"], row[f"{name}.hash"]) == (-1, None)


def test_nothing_is_left_of_a_writing_that_failed(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path, "documents", side=SIDE, shard_bytes=9000) as writer:
        for record in some(30):
            writer.write("x", record)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"image": None, "title": ""}, "no value in any of its fields"),
        ({}, "no value"),
        ({"title": "a", "titel": "b"}, "'titel'.*fields: image, title"),
        ({"image": "path.jpg"}, "an image is bytes, not str"),
        ({"title": b"bytes"}, "a text is str, not bytes"),
        ({"title": "half \ud800 pair"}, "title.*not valid Unicode"),
    ],
)
def test_records_that_are_none_are_refused_by_id(tmp_path, record, words):
    with pytest.raises(ValueError, match=f"'sku-7'.*{words}"), ShardWriter(tmp_path, "documents", side=SIDE) as writer:
        writer.write("sku-7", record)


def test_fields_that_webdataset_cannot_tell_apart_are_refused(tmp_path):
    with pytest.raises(ValueError, match="upper and lower case"):
        ShardWriter(tmp_path, "documents", side={"Title": Field(), "title": Field()})
    with pytest.raises(ValueError, match="shard_bytes is 0"):
        ShardWriter(tmp_path, "documents", side=SIDE, shard_bytes=0)


def test_image_extension_is_what_the_bytes_say():
    assert [image_extension(m + b"rest") for m in (*MAGIC[:3], b"GIF89a", b"BM", b"MM\0*", b"II*\0", b"<!DOCTYPE")] == [
        "jpg", "png", "webp", "gif", "bmp", "tif", "tif", "bin",
    ]  # fmt: skip
