"""Shards that stay in an object store: a real S3 server on the loopback, and batches as if they lay here."""

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from gcl.data.batches.batch import PairDataset, SideReader
from gcl.data.batches.loader import WatchedLoader
from gcl.data.batches.plan import Plan
from gcl.data.batches.read_ahead import read_ahead
from gcl.data.catalog import Split, Store
from gcl.data.prepare.prepare import prepare
from gcl.data.store import remote_shards
from gcl.data.store.prepared import open_prepared
from helpers.bucket import s3_bucket
from helpers.small_catalog import catalog, contents, drawn, image, pairs, prepared, products, shard, text, write_table

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
SHARDS, ROWS = 6, 20
EVERYTHING = Split(queries=1.0, documents=1.0, dev=0.0)


class Bytes:
    """A transform whose tensors are the stored bytes."""

    def image(self, data: bytes) -> torch.Tensor:
        padded = np.zeros(3 * 16 * 16, np.uint8)
        padded[: min(len(data), 768)] = np.frombuffer(data[-768:], np.uint8)
        return torch.from_numpy(padded.reshape(3, 16, 16))

    def text(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[sum(one.encode()), len(one)] for one in texts])


@pytest.fixture(scope="module")
def store():
    with s3_bucket() as files:
        for number in range(SHARDS):
            files.pipe(f"shop/shards/{number:03}.tar", shard(number, rows=ROWS, queries=50))
        yield files


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remote_shards, "_IDLE", 0.3)


def ready(shards, **options):
    fields = {"query": {"query": text(column="txt")}, "document": {"photo": image(column="jpg")}}
    return catalog(None, shards=str(shards), **fields, split=EVERYTHING, **options)


@pytest.fixture(scope="module")
def near(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("near")
    for number in range(SHARDS):
        (folder / f"{number:03}.tar").write_bytes(shard(number, rows=ROWS, queries=50))
    return prepared(ready(folder / "{000..005}.tar"), folder)


def dataset(found, rank=0, world=1, *, window=2):
    plan = Plan(found.pairs, batch_size=8, seed=3, shard_of_document=found.documents.shard, shuffle_shards=window)
    sides = {name: SideReader(getattr(found, f"{plural}"), found.schema.side(name), Bytes())
             for name, plural in (("query", "queries"), ("document", "documents"))}  # fmt: skip
    return PairDataset(found.pairs, plan, **sides, rank=rank, world=world)


def batches(found, *, first=0, steps=15, rank=0, world=1, workers=0):
    data = dataset(found, rank, world)
    loader = WatchedLoader(data, batch_size=None, sampler=range(first, steps), num_workers=workers)
    loader.ahead = read_ahead(data, first, ranks_here=world)
    return [flat(batch) for batch in loader]


def flat(batch):
    fields = [batch.query.fields["query"], batch.document.fields["photo"]]
    return [tensor.tolist() for tensor in (*fields, batch.query_row, batch.document_row, batch.score)]


def cached(folder):
    return [path for path in (folder / "shards").iterdir() if not path.name.startswith(".")]


def gigabytes(files, shards):
    """What so many shards and a half have."""
    return (shards + 0.5) * files.size("shop/shards/000.tar") / 1e9


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bucket_larger_than_the_cache_gives_the_same_batches(store, near, tmp_path, workers):
    most = gigabytes(store, 4)
    given = ready("s3://shop/shards/{000..005}.tar", cache_gb=most)
    found = open_prepared(prepare(given, tmp_path, progress=False), cache_gb=most)
    assert contents(found)["documents"] == contents(near)["documents"]
    assert batches(found, steps=30, workers=workers) == batches(near, steps=30)
    assert sum(path.stat().st_size for path in cached(tmp_path)) <= most * 1e9 and len(cached(tmp_path)) < SHARDS


def test_resumes_in_the_middle_of_an_epoch_with_an_empty_cache(store, near, tmp_path):
    most = gigabytes(store, 5)
    found = open_prepared(
        prepare(ready("s3://shop/shards/{000..005}.tar", cache_gb=most), tmp_path, progress=False), cache_gb=most
    )
    for path in cached(tmp_path):
        path.unlink()
    assert batches(found, first=11, steps=20) == batches(near, steps=20)[11:]


def test_shards_that_others_drop_while_they_are_read_are_read_whole(store, near, tmp_path):
    """A large shard takes longer to read than one that nobody touches is kept."""
    read, others = threading.Event(), 0

    def drop():
        nonlocal others
        while not read.wait(0.001):
            for path in cached(tmp_path) if (tmp_path / "shards").is_dir() else ():
                path.unlink(missing_ok=True)
                others += 1

    dropping = threading.Thread(target=drop)
    dropping.start()
    try:
        folder = prepare(ready("s3://shop/shards/{000..005}.tar"), tmp_path, progress=False)
    finally:
        read.set()
        dropping.join()
    found = open_prepared(folder)
    assert others and contents(found)["documents"] == contents(near)["documents"]
    assert batches(found) == batches(near)


def test_each_of_two_ranks_fetches_its_own_part(store, near, tmp_path):
    given = ready("s3://shop/shards/{000..005}.tar")
    for rank in range(2):
        found = open_prepared(prepare(given, tmp_path / str(rank), progress=False))
        for path in cached(tmp_path / str(rank)):
            path.unlink()
        assert batches(found, steps=2, rank=rank, world=2) == batches(near, steps=2, rank=rank, world=2)
    wanted = [dataset(found, rank, 2, window=5).remote_shards(0) for rank in range(2)]
    whole = dataset(found, window=5).remote_shards(0)
    assert wanted[0] | wanted[1] == whole and len(wanted[0] & wanted[1]) <= 1
    assert all(0 < len(part) < len(whole) for part in wanted)


def test_two_ranks_share_a_bounded_folder(store, near, tmp_path):
    most = gigabytes(store, 6) * 1.2
    found = open_prepared(
        prepare(ready("s3://shop/shards/{000..005}.tar", cache_gb=most), tmp_path, progress=False), cache_gb=most
    )
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda rank: batches(found, rank=rank, world=2), range(2)))
    assert both == [batches(near, rank=rank, world=2) for rank in range(2)]


def test_a_cache_that_is_smaller_than_a_window_is_refused_with_both_numbers(store, tmp_path):
    most = gigabytes(store, 2) / 0.8 - gigabytes(store, 1) / 0.8  # room for one shard of a window's two
    given = ready("s3://shop/shards/{000..005}.tar")
    found = open_prepared(prepare(given, tmp_path, progress=False), cache_gb=most)
    size = f"{2 * store.size('shop/shards/000.tar') / 1e9:.3g} GB"
    with pytest.raises(ValueError, match=f"A window of shards has {size} .*{most:.3g} GB in"):
        read_ahead(dataset(found), 0)


def test_a_shard_that_arrives_wrong_is_fetched_again_and_then_refused_by_name(store, tmp_path, caplog, monkeypatch):
    right = shard(1, rows=ROWS, queries=50)
    store.pipe("shop/wrong/001.tar", right)
    cache = remote_shards.ShardCache(tmp_path)
    one = remote_shards.RemoteShard("s3://shop/wrong/001.tar", len(right), sha256(right).hexdigest(), cache)
    store.pipe("shop/wrong/001.tar", right[:3000] + b"?" + right[3001:])
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="s3://shop/wrong/001.tar arrived with SHA"):
        one.open()
    assert caplog.text.count("It is fetched again") == 2 and not one.touch()

    def put_back(record):
        store.pipe("shop/wrong/001.tar", right)
        return True

    monkeypatch.setattr(remote_shards.logger, "filters", [put_back])  # only the first try goes wrong
    with one.open() as file:
        assert file.read() == right
    assert caplog.text.count("It is fetched again") == 3
    one.path.write_bytes(right[:-7])  # a copy that was cut
    with one.open() as file:
        assert file.read() == right


def test_a_shard_that_is_gone_is_named_in_the_main_process(store, near, tmp_path):
    for number in range(SHARDS):
        store.pipe(f"shop/gone/{number:03}.tar", shard(number, rows=ROWS, queries=50))
    found = open_prepared(prepare(ready("s3://shop/gone/{000..005}.tar"), tmp_path, progress=False))
    for path in cached(tmp_path):
        path.unlink()
    store.rm("shop/gone", recursive=True)
    with pytest.raises(OSError, match=r"s3://shop/gone/00\d.tar cannot be read"):
        batches(found, workers=1)


READER = """
import sys
from data.test_object_store import batches, open_prepared
found = open_prepared(sys.argv[1], cache_gb=float(sys.argv[2]))
print(batches(found, steps=30))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_with_the_same_batches(store, near, tmp_path):
    most = gigabytes(store, 4)
    folder = prepare(ready("s3://shop/shards/{000..005}.tar", cache_gb=most), tmp_path, progress=False)
    for path in cached(tmp_path):
        path.unlink()
    tests = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    running = subprocess.Popen([sys.executable, "-c", READER, folder, str(most)], env=environment, stdout=-1)
    while not any((tmp_path / "shards").glob("*.tar")):  # it is in the middle of fetching
        assert running.poll() is None
        time.sleep(0.005)
    running.kill()
    running.communicate()
    half = tmp_path / "shards" / f".{cached(tmp_path)[0].name[:40]}.0123456789ab.partial"
    half.write_bytes(b"half of a shard")  # what a killed process leaves
    os.utime(half, (0, 0))
    found = open_prepared(folder, cache_gb=most)
    assert batches(found, steps=30) == batches(near, steps=30) and not half.exists()


def small_with_pictures(root, **options):
    for number in range(60):
        (root / f"{number:04}.jpg").write_bytes(drawn(number))
    rows = [row | {"photo": f"{row['product_id']}.jpg"} for row in products(60)]
    write_table(root / "products.csv", rows)
    write_table(root / "pairs.csv", pairs(40, 60))
    fields = {"photo": image(), "title": text()}
    return catalog(root, products="products.csv", pairs="pairs.csv", document=fields, store=Store(20_000), **options)


def test_a_prepared_folder_lies_in_a_bucket(store, tmp_path, monkeypatch):
    given = small_with_pictures(tmp_path)
    here = prepared(given, tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    folder = prepare(given, "s3://shop/prepared", progress=False)
    assert folder.is_relative_to(tmp_path / "one") and not list(folder.glob("*.tar"))
    assert store.exists(f"shop/prepared/{folder.name}/index.json")
    assert contents(open_prepared(folder)) == contents(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))  # another machine: it prepares nothing
    told = []
    second = prepare(given, "s3://shop/prepared", progress=False, report=told.append)
    assert not told and not (second.parent / "shards").exists()
    found = open_prepared(f"s3://shop/prepared/{folder.name}")
    assert found.folder == second and batches(found, steps=20) == batches(here, steps=20)
    for table in [*here.folder.glob("*.parquet"), *here.folder.glob("tasks/*")]:
        assert (second / table.relative_to(here.folder)).read_bytes() == table.read_bytes()


def test_a_prepared_file_that_the_store_does_not_give_out_is_named(store, tmp_path, monkeypatch):
    given = small_with_pictures(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    folder = f"shop/frozen/{prepare(given, 's3://shop/frozen', progress=False).name}"
    name = next(name for name in store.find(folder) if not name.endswith((".tar", "index.json")))
    store.pipe_file(name, store.cat_file(name), StorageClass="GLACIER")  # as a rule of the bucket may move old files
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    with pytest.raises(ValueError, match=rf"^cache_dir: s3://{name} cannot be read \(.*storage class"):
        prepare(given, "s3://shop/frozen", progress=False)
    assert not list((tmp_path / "two").rglob("*.parquet"))


def test_a_cache_dir_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cache_dir=https://shop.example: expected a folder, or a URL of s3, gs"):
        prepare(small_with_pictures(tmp_path), "https://shop.example", progress=False)
