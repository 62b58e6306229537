"""Records by row number, in any process; a folder that is not what was written is refused with a sentence."""

import multiprocessing
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcl.data.store import store as store_module
from gcl.data.store.shard_writer import ShardWriter, content_hash
from gcl.data.store.store import RecordStore
from gcl.schema import Field, Modality

SIDE = {"image": Field(Modality.image), "title": Field()}
STORED = [
    {"image": b"\xff\xd8\xff" + bytes([i]) * (300 + i) if i % 5 else None, "title": f"tïtle {i}" if i % 4 else None}
    for i in range(1, 60)
    if i % 20
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with ShardWriter(folder, "documents", side=SIDE, shard_bytes=8000) as writer:
        for number, record in enumerate(STORED):
            writer.write(f"sku.{number}", record)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def read_all(store):
    return [store[row] for row in range(len(store))]


def child(store, queue):
    queue.put(read_all(store))


def test_rows_columns_and_presence_agree(folder):
    store = RecordStore(folder, "documents", SIDE)
    assert len(store.shards) > 2
    assert read_all(store) == STORED
    rows = np.array([5, 0, 5, len(store) - 1, 19])
    for name in SIDE:
        assert store.column(name, rows) == [STORED[row][name] for row in rows]
    assert store.present(rows).tolist() == [[STORED[row][name] is not None for name in SIDE] for row in rows]
    assert store.column("title", np.array([], dtype=np.int64)) == []
    assert (np.diff(store.shard) >= 0).all() and store.shard[-1] == len(store.shards) - 1


def test_ids_and_hashes_are_sequences(folder):
    store = RecordStore(folder, "documents", SIDE)
    assert list(store.ids) == [f"sku.{n}" for n in range(len(store))] and len(store.ids) == len(store)
    assert store.ids[3] == "sku.3" and list(store.ids[2:4]) == ["sku.2", "sku.3"]
    assert "sku.7" in store.ids
    expected = [None if r["title"] is None else content_hash(r["title"].encode()) for r in STORED]
    assert list(store.hashes("title")) == expected
    with pytest.raises(KeyError, match="no field 'titel'; fields: image, title"):
        store.hashes("titel")


def test_a_part_of_the_fields_can_be_read(folder):
    store = RecordStore(folder, "documents", {"title": Field()})
    assert store[1] == {"title": STORED[1]["title"]} and store.present(np.array([3])).shape == (1, 1)


def test_rows_that_do_not_exist(folder):
    store = RecordStore(folder, "documents", SIDE)
    for row in (-1, len(store)):
        with pytest.raises(IndexError):
            store[row]
        with pytest.raises(IndexError):
            store.column("title", np.array([0, row]))
        with pytest.raises(IndexError):
            store.subset(np.array([row]))


def test_a_subset_is_a_store_of_some_rows(folder):
    store = RecordStore(folder, "documents", SIDE)
    rows = np.array([9, 2, 2, 40])
    part = store.subset(rows)
    assert len(part) == 4 and part.rows.tolist() == rows.tolist() and store.rows.tolist() == list(range(len(store)))
    assert read_all(part) == [STORED[row] for row in rows]
    assert list(part.ids) == [f"sku.{row}" for row in rows]
    assert list(part.hashes("image")) == [store.hashes("image")[int(row)] for row in rows]
    positions = np.array([3, 0])
    assert part.column("title", positions) == [STORED[40]["title"], STORED[9]["title"]]
    assert (part.present(positions) == store.present(rows[positions])).all()
    assert part.subset(positions).rows.tolist() == [40, 9]
    assert part.place(0) == store.place(9) and "row 9, id 'sku.9'" in part.place(0)
    assert read_all(pickle.loads(pickle.dumps(part))) == read_all(part)
    with pytest.raises(IndexError):
        part[-1]


def test_a_pickled_store_is_small_and_reads_the_same(folder):
    store = RecordStore(folder, "documents", SIDE)
    read_all(store)
    list(store.ids)
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert read_all(pickle.loads(data)) == STORED


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(folder, method):
    context = multiprocessing.get_context(method)
    store, queue = RecordStore(folder, "documents", SIDE), context.Queue()
    read_all(store)  # maps that are open when the processes begin
    processes = [context.Process(target=child, args=(store, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert read_all(store) == STORED
    assert [queue.get(timeout=900) for _ in processes] == [STORED, STORED]
    for process in processes:
        process.join()


def test_few_maps_stay_open(folder, monkeypatch):
    monkeypatch.setattr(store_module, "_OPEN_MAPS", 2)
    store = RecordStore(folder, "documents", SIDE)
    rows = np.random.default_rng(0).permutation(len(store))
    assert store.column("title", rows) == [STORED[row]["title"] for row in rows]
    assert len(store._maps) == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-512])


def overwrite(path):
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)


def no_metadata(folder):
    table = pq.read_table(folder / "documents.parquet")
    pq.write_table(table.replace_schema_metadata(None), folder / "documents.parquet")


def cut_index(folder):
    path = folder / "documents.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def too_few_rows(folder):
    path = folder / "documents.parquet"
    table, metadata = pq.read_table(path), pq.read_metadata(path).metadata
    pq.write_table(table.slice(0, 5).replace_schema_metadata({b"gcl": metadata[b"gcl"]}), path)


def outside_of_the_shard(folder):
    path = folder / "documents.parquet"
    table, metadata = pq.read_table(path), pq.read_metadata(path).metadata
    column = table.schema.get_field_index("title.length")
    table = table.set_column(column, table.schema.field(column), pa.array([10**9] * len(table)))
    pq.write_table(table.replace_schema_metadata({b"gcl": metadata[b"gcl"]}), path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: cut(f / "documents-00001.tar"), r"documents-00001.tar has 9,728 bytes, .* says 10,240"),
        (lambda f: (f / "documents-00002.tar").unlink(), r"Shard .*documents-00002.tar is missing"),
        (lambda f: (f / "documents.parquet").unlink(), r"documents.parquet is missing"),
        (lambda f: (f / "documents.parquet").write_text("<html>"), r"documents.parquet is not a Parquet file"),
        (cut_index, r"documents.parquet is not a Parquet file"),
        (no_metadata, r"documents.parquet is not an index of format 1"),
        (too_few_rows, r"documents.parquet has 5 rows, 57 were written"),
        (outside_of_the_shard, r"documents.parquet points outside of its shards"),
    ],
)
def test_a_folder_that_was_harmed_is_refused(folder, harm, words):
    harm(folder)
    with pytest.raises(ValueError, match=words):
        RecordStore(folder, "documents", SIDE)


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ({"name": Field()}, r"no text field 'name'; it was written with image \(image\), title \(text\)"),
        ({"title": Field(Modality.image)}, r"no image field 'title'"),
    ],
)
def test_a_schema_that_was_not_written_is_refused(folder, side, words):
    with pytest.raises(ValueError, match=words):
        RecordStore(folder, "documents", side)


def test_a_shard_cut_while_the_store_is_open_is_refused(folder):
    store = RecordStore(folder, "documents", SIDE)
    cut(folder / "documents-00002.tar")
    with pytest.raises(ValueError, match=r"documents-00002.tar has"):
        read_all(store)


def test_an_index_written_anew_is_not_mixed_with_the_old_one(folder):
    data = pickle.dumps(RecordStore(folder, "documents", SIDE))
    with ShardWriter(folder, "documents", side=SIDE) as writer:
        writer.write("other", STORED[0])
    with pytest.raises(ValueError, match="written anew"):
        pickle.loads(data)


def test_verify_finds_a_changed_byte(folder):
    store = RecordStore(folder, "documents", SIDE)
    store.verify()
    overwrite(folder / "documents-00001.tar")
    with pytest.raises(ValueError, match="documents-00001.tar has SHA-256"):
        store.verify()


def test_text_that_is_no_text_names_its_place(folder):
    store = RecordStore(folder, "documents", {"title": Field()})
    row = 2
    path = folder / store.shards[store.shard[row]]["name"]
    data = bytearray(path.read_bytes())
    at = int(pq.read_table(folder / "documents.parquet")["title.offset"][row].as_py())
    data[at] = 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"shard {path.name}, row 2, id 'sku.2': field title cannot be read as text"):
        store[row]


def test_content_keys_are_of_the_content_alone(folder, tmp_path):
    keys = list(RecordStore(folder, "documents", SIDE).content_keys())
    assert len(set(keys)) == len(STORED)
    with ShardWriter(tmp_path / "other", "documents", side=SIDE, shard_bytes=4096) as writer:
        for number in reversed(range(len(STORED))):
            writer.write(f"other-{number}", STORED[number])
    assert list(RecordStore(tmp_path / "other", "documents", SIDE).content_keys()) == keys[::-1]
    titles = RecordStore(folder, "documents", {"title": SIDE["title"]})
    assert list(titles.content_keys()) != keys
