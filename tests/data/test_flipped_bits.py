"""A bit that changes in anything stored is noticed before it is used: prepared folders and cached arrays."""

import json
import logging
import os
import shutil

import numpy as np
import pytest

from gcl.cli import main
from gcl.data.catalog import Clicks, Split, Verify
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared, read_index
from gcl.files.arrays import ArrayCache
from helpers.small_catalog import catalog, drawn, pairs, products, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("flips")
    write_table(place / "products.csv", products(30))
    write_table(place / "pairs.csv", pairs(60, 30))
    tables = {"products": "products.csv", "pairs": "pairs.csv", "score": "score"}
    return prepare(catalog(place, split=Split(queries=0.7, documents=0.6), **tables), place / "out", progress=False)


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def files_of(folder):
    """What index.json commits, and itself; the list of unusable rows is for people."""
    index = json.loads((folder / "index.json").read_text())
    return ["index.json", *index["tables"], *(shard["name"] for shard in index["shards"])]


def test_every_file_of_a_prepared_folder(folder, tmp_path):
    rng = np.random.default_rng(0)
    copy = tmp_path / folder.name
    for name in files_of(folder) * 8:
        shutil.copytree(folder, copy)
        flip(copy / name, rng)
        with pytest.raises((ValueError, OSError)) as refused:
            open_prepared(copy, verify=Verify.always)
        assert str(copy) in str(refused.value) and "prepare" in str(refused.value).lower()
        shutil.rmtree(copy)


@pytest.mark.slow
def test_fifty_flips_before_the_doctor(tmp_path, capsys):
    """`gcl doctor verify=true` names every prepared file in which a bit changed: pictures, sets of them, texts, pairs,
    tasks of every kind and their corpora. A damaged index is named and made again."""
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
    rows = [row | {"photo": f"{n}.jpg", "views": f"{n}.jpg|{(n + 1) % 40}.jpg", "kind": f"kind {n % 5}"}
            for n, row in enumerate(products(40))]  # fmt: skip
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", pairs(60, 40))
    write_table(tmp_path / "queries.csv", [{"query_id": f"t{n}", "query": f"typed {n}"} for n in range(9)])
    judged = [{"query_id": f"t{n % 9}", "product_id": f"{n:04d}", "score": 1 + n % 3} for n in range(40)]
    write_table(tmp_path / "qrels.csv", judged)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "many.yaml").write_text(json.dumps({
        "name": "many", "root": str(tmp_path), "products": "products.csv", "pairs": "pairs.csv", "score": "score",
        "query": {"query": {"modality": "text"}},
        "document": {"photo": {"modality": "image"}, "views": {"modality": "image", "images": "all", "separator": "|"},
                     "title": {"modality": "text"}},
        "tasks": {"typed": {"queries": "queries.csv", "qrels": "qrels.csv", "corpus": "all"},
                  "kinds": {"column": "kind", "corpus": "all"}},
        "split": {"queries": 0.7, "documents": 0.6}, "store": {"shard_bytes": 1_000_000},
    }))  # fmt: skip

    words = ["--config-dir", str(tmp_path / "conf"), "data=many", "model=tiny", "train.batch_size=16",
             f"cache_dir={tmp_path / 'cache'}"]  # fmt: skip

    def doctor():
        capsys.readouterr()
        try:
            main(["doctor", *words, "verify=true"])
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return status, "".join(capsys.readouterr())

    main(["prepare", *words])
    (place,) = [path.parent for path in (tmp_path / "cache").glob("many-*/index.json")]
    (index_name, *names), rng = files_of(place), np.random.default_rng(5)
    assert any("kinds.corpus" in name for name in names) and any("typed.test" in name for name in names)
    for turn in range(50):
        path = place / (names[turn % len(names)] if turn else index_name)
        whole, index = path.read_bytes(), (place / "index.json").read_bytes()
        flip(path, rng)
        status, said = doctor()
        assert str(path) in said, (path, said)
        if path.name == "index.json":
            assert "Prepared again" in said and json.loads(path.read_bytes()) == json.loads(index)
        else:
            assert status == 2 and "Traceback" not in said, said
            path.write_bytes(whole)


@pytest.mark.parametrize("made, options", [
    ("clicks", {"products": "products.csv", "pairs": "log.csv", "clicks": Clicks(impressions="shown")}),
    ("woocommerce", {"products": "shop.csv", "layout": "woocommerce", "pairs": "pairs.csv", "score": "score"}),
])  # fmt: skip
def test_tables_that_are_made_of_others_are_made_again(tmp_path, caplog, made, options):
    write_table(tmp_path / "products.csv", products(12))
    write_table(tmp_path / "pairs.csv", pairs(20, 12))
    log = [row | {"position": 1 + n % 5, "clicks": n % 3, "shown": 9} for n, row in enumerate(pairs(20, 12))]
    write_table(tmp_path / "log.csv", log)
    shop = [{"ID": row["product_id"], "Type": "simple", "SKU": row["product_id"], "Name": row["title"], "Images": ""}
            for row in products(12)]  # fmt: skip
    write_table(tmp_path / "shop.csv", shop)
    given, rng = catalog(tmp_path, **options), np.random.default_rng(3)
    first = prepare(given, tmp_path / "out", progress=False)
    (table,) = (tmp_path / "out").glob(f"small-{made}-*/*.parquet")
    whole = table.read_bytes()
    for _ in range(5):
        flip(table, rng)
        caplog.clear()
        assert prepare(given, tmp_path / "out", progress=False) == first
        assert f"{table} is damaged, so it is made again." in caplog.text and table.read_bytes() == whole


def test_an_index_without_its_own_digest(folder, tmp_path):
    """Older folders stay readable; one bit that changes in such an index is unnoticed or said in a sentence, and in an
    index with a digest it is always noticed, in the digest's key as well."""
    copy = shutil.copytree(folder, tmp_path / folder.name)
    path = copy / "index.json"
    index = json.loads(path.read_text())
    whole = path.read_bytes()
    for place in range(whole.rindex(b'"sha256"'), len(whole) - 2):
        data = bytearray(whole)
        data[place] ^= 1 << place % 7
        path.write_bytes(data)
        with pytest.raises(ValueError, match="prepare"):
            read_index(copy)
    del index["sha256"]
    path.write_text(json.dumps(index))
    assert len(open_prepared(copy).documents) == len(open_prepared(folder).documents)
    old = path.read_bytes()
    for place in range(0, len(old), 3):
        data = bytearray(old)
        data[place] ^= 1 << place % 7
        path.write_bytes(data)
        try:
            read_index(copy)
        except (ValueError, FileNotFoundError) as refused:
            assert str(copy) in str(refused) and "prepare" in str(refused), refused
    shard = index["shards"][0]
    for damage in ({"shards": [shard | {"size": None}]}, {"counts": {}}, {"schema": []}, {"tables": None}):
        path.write_text(json.dumps(index | damage))
        with pytest.raises(ValueError, match="is damaged"):
            read_index(copy)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is damaged"):
        read_index(copy)


def test_what_is_compared_when(folder, tmp_path):
    """Shards only where size or time changed, unless the catalog says otherwise."""
    copy = shutil.copytree(folder, tmp_path / folder.name)
    shard = copy / "documents-00000.tar"
    about = shard.stat()
    flip(shard, np.random.default_rng(1))
    open_prepared(copy, verify=Verify.never)
    with pytest.raises(ValueError, match="SHA-256"):
        open_prepared(copy)
    os.utime(shard, ns=(about.st_atime_ns, about.st_mtime_ns))
    open_prepared(copy)  # a fault of the disk that leaves the time alone
    with pytest.raises(ValueError, match="SHA-256"):
        open_prepared(copy, verify=Verify.always)


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_cached_arrays_are_whole_or_missing(tmp_path, caplog, in_memory):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(50, 8)).astype(np.float32)
    cache = ArrayCache(tmp_path)

    def make(allocate):
        array = allocate(values.shape)
        array[:] = values
        return array

    path = tmp_path / "entry.npy"
    for turn in range(40):
        cache.make("entry", make, in_memory=in_memory)
        np.testing.assert_array_equal(cache.load("entry", 50), values)
        np.testing.assert_array_equal(np.load(path), values)  # the seal does not concern numpy
        path.rename(tmp_path / "moved.npy")
        (tmp_path / "moved.npy").rename(path)  # the same file: not read again
        if turn % 2:
            flip(path, rng)  # the same file, written again
        else:
            shutil.copy(path, tmp_path / "copy")
            flip(tmp_path / "copy", rng)
            path.unlink()
            shutil.move(tmp_path / "copy", path)  # another file, perhaps with an inode that is known
        os.utime(path, (turn, turn))  # two writes may fall into one tick of the file system's clock
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert cache.load("entry", 50) is None
        assert f"{path} is damaged" in caplog.text
