"""hf://, gs:// and az://: any scheme goes the one way of fsspec, with local copies. The file systems are registered
here, in memory, under these names; s3:// has a real server (test_remote.py), http one of its own (below)."""

import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gcl.data.catalog import Split
from gcl.data.prepare.prepare import prepare
from gcl.data.store import remote_shards
from helpers.small_catalog import catalog, contents, drawn, image, pairs, prepared, products, shard, text, write_table


def registered(scheme):
    """An object store of this scheme that counts what is read."""

    class Store(MemoryFileSystem):
        protocol = scheme
        store, pseudo_dirs = {}, [""]
        opened = Counter()
        cachable = False

        @classmethod
        def _strip_protocol(cls, path):
            return "/" + str(path).removeprefix(f"{scheme}://").strip("/")

        def unstrip_protocol(self, name):
            return f"{scheme}://{name.lstrip('/')}"

        def open(self, path, mode="rb", **options):
            self.opened[self._strip_protocol(path)] += mode == "rb"
            return super().open(path, mode, **options)

    return Store


@pytest.fixture(params=["hf", "gs", "az"])
def far(request, monkeypatch):
    """(scheme, the store that is registered for it)"""
    scheme, known = request.param, fsspec.registry.copy()
    store = registered(scheme)
    fsspec.register_implementation(scheme, store, clobber=True)
    yield scheme, store
    fsspec.register_implementation(scheme, known.get(scheme, store), clobber=True)


def test_tables_and_pictures_of_any_scheme(far, tmp_path):
    scheme, store = far
    rows = [row | {"photo": f"{number}.jpg"} for number, row in enumerate(products(20))]
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
    write_table(tmp_path / "products.csv", rows)
    write_table(tmp_path / "pairs.csv", pairs(30, 20))
    fields = {"photo": image(), "title": text()}
    near = catalog(tmp_path, products="products.csv", pairs="pairs.csv", score="score", document=fields)
    where, files = f"{scheme}://datasets/shop/set", store()
    for part in range(2):
        away = [row | {"photo": f"{where}/images/{row['photo']}"} for row in rows[10 * part : 10 * part + 10]]
        table = write_table(tmp_path / f"part{part}.parquet", away)
        files.pipe(f"/datasets/shop/set/data/train-{part}.parquet", table.read_bytes())
    for number in range(20):
        files.pipe(f"/datasets/shop/set/images/{number}.jpg", drawn(number))
    files.pipe("/datasets/shop/set/pairs.csv", (tmp_path / "pairs.csv").read_bytes())
    given = catalog(
        None, products=f"{where}/data/*.parquet", pairs=f"{where}/pairs.csv", score="score", document=fields
    )
    found = prepared(given, tmp_path / "away")
    assert contents(found) == contents(prepared(near, tmp_path / "near"))
    assert len(store.opened) == 23 and set(store.opened.values()) == {1}, "every file once"
    assert prepare(given, tmp_path / "away", progress=False) == found.folder
    assert set(store.opened.values()) == {1}, "copies are taken from then on"
    files.pipe("/datasets/shop/set/pairs.csv", (tmp_path / "pairs.csv").read_bytes() + b"query 3,0001,9\n")
    assert prepare(given, tmp_path / "away", progress=False) != found.folder, "another table lies there now"


def test_shards_of_any_scheme(far, tmp_path):
    scheme, store = far
    for number in range(2):
        store().pipe(f"/bucket/{number}.tar", shard(number, rows=20, queries=12))
    given = catalog(
        None,
        shards=f"{scheme}://bucket/{{0..1}}.tar",
        query={"query": text(column="txt")},
        document={"photo": image(column="jpg")},
        split=Split(queries=1.0, documents=1.0, dev=0.0),
    )
    found = prepared(given, tmp_path)
    assert len(found.documents) == 40 and found.documents[21]["photo"] == drawn(21)
    assert prepare(given, tmp_path, progress=False) == found.folder and set(store.opened.values()) == {1}


def test_tables_behind_http(tmp_path):
    pytest.importorskip("aiohttp")
    write_table(tmp_path / "web" / "pairs.csv", [row | {"title": f"t {row['product_id']}"} for row in pairs(30, 20)])
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        given = catalog(None, pairs=f"http://127.0.0.1:{server.server_port}/pairs.csv", score="score")
        assert len(prepared(given, tmp_path / "out").pairs) == 180
        more = [row | {"title": f"t {row['product_id']}"} for row in pairs(31, 20)]
        write_table(tmp_path / "web" / "pairs.csv", more)
        assert len(prepared(given, tmp_path / "out").pairs) == 186  # it is fetched again once it has changed
        with pytest.raises((FileNotFoundError, ValueError), match="data.pairs"):
            prepare(catalog(None, pairs=given.pairs.replace("pairs", "none")), tmp_path / "out", progress=False)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("given", "where", "said"),
    [
        (
            {"products": "s3://shop/plain/"},
            "out",
            "data.products: s3://shop/plain/ cannot be read (NoCredentialsError: ",
        ),
        (
            {"shards": "s3://shop/{0..1}.tar"},
            "out",
            "data.shards: s3://shop/0.tar cannot be read (NoCredentialsError: ",
        ),
        ({"pairs": "pairs.csv"}, "s3://shop/out", "cache_dir: s3://shop/out/"),
    ],
)
def test_a_store_that_nobody_may_ask_is_said(given, where, said, tmp_path, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("HOME", tmp_path), ("XDG_CACHE_HOME", tmp_path), ("AWS_EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(name, str(value))
    write_table(tmp_path / "pairs.csv", [row | {"title": f"t {row['product_id']}"} for row in pairs(30, 20)])
    s3fs.S3FileSystem.clear_instance_cache()
    remote_shards._file_system.cache_clear()
    fields = {"query": {"query": text(column="txt")}, "document": {"photo": image(column="jpg")}}
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        folder = where if "://" in where else tmp_path / where
        prepare(catalog(tmp_path, **given, **(fields if "shards" in given else {})), folder, progress=False)
    s3fs.S3FileSystem.clear_instance_cache()
    remote_shards._file_system.cache_clear()
    assert said in str(error.value)
