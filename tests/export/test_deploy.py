"""Engines get a run's vectors and rank as it was measured: each by its own library, and by what is said where not."""

import gc
import json
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.cli import main
from gcl.data.store.vector_files import VectorWriter
from gcl.errors import ConfigError
from gcl.exports.engines.engine import Asked, Collection, Here, How, Layout, Quantization, Setting
from gcl.exports.engines.filters import check_filter
from gcl.exports.engines.mistakes import explain
from gcl.exports.engines.parity import Judged, Queries, Reference, measure, united, with_ndcg
from gcl.exports.engines.payload import Batch, Column, batches, engine_name, write_payload
from gcl.exports.engines.registry import ENGINES, check_engine, engine_of
from gcl.retrieval.tasks.task import JudgedPairs, ListRecords, RetrievalTask
from gcl.schema import Field, Modality
from helpers import load_engine
from helpers.pages import commands_of

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10: pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parent.parent.parent
SIDE = {"title": Field(Modality.text), "image": Field(Modality.image)}
SLOW = {"milvus", "chroma", "pgvector"}


def page_of(engine):
    return ROOT / "docs" / "engines" / f"{engine}.md"


def typed(engine):
    """(words of each `gcl deploy` without an address, words of each search.py) on an engine's page."""
    commands = [shlex.split(command) for command in commands_of(page_of(engine))]
    deploys = [words[2:] for words in commands if words[:2] == ["gcl", "deploy"] and "url=" not in " ".join(words)]
    asks = [words[2:] for words in commands if words[0] == "python" and words[1].endswith(f"/{engine}/search.py")]
    assert deploys and asks and all(f"engine={engine}" in words for words in deploys)
    return [[word for word in words if not word.startswith(("run=", "engine="))] for words in deploys], asks


@pytest.fixture(scope="module")
def deployed(finished, tmp_path_factory):
    """deploy(words…): a deployment of the finished run, and the rows of its table; vectors are written once."""
    out = tmp_path_factory.mktemp("deploy")

    def deploy(engine, *words):
        with pytest.MonkeyPatch.context() as patch:
            record = replace(engine_of(engine), batch=10)  # several batches
            patch.setattr(f"gcl.exports.engines.{engine}.ENGINE", record)
            main(["deploy", f"run={finished.path}", f"out={out}", f"engine={engine}", "queries=20", *words])
        return out / engine, json.loads((out / engine / "parity.json").read_text())["rows"]

    return deploy


@pytest.mark.filterwarnings("ignore")  # of the engines' libraries
@pytest.mark.parametrize(
    "engine, content",
    [
        pytest.param(name, content, marks=pytest.mark.slow if name in SLOW or content == "fields" else ())
        for name in ENGINES
        if engine_of(name).here is not Here.files
        for content in ("fused", "fields")
    ],
)
def test_an_engine_ranks_as_the_run_was_measured(deployed, engine, content, finished, run_program):
    for package in engine_of(engine).requires:
        pytest.importorskip(package)
    (words, *_), asks = typed(engine)
    filters = [word for word in words if word.startswith("filter.")]
    assert bool(filters) == engine_of(engine).filters
    folder, rows = deployed(engine, f"content={content}", *words)
    by_name = {row["setting"]: row for row in rows}
    compared = [row for name, row in by_name.items() if name.startswith(("exact, ", "HNSW, ef 512")) or name == "exact"]
    assert len(compared) >= 1 + len(filters) and all(row["overlap@10"] == 1 for row in compared)
    exact = next(row for row in rows if row["setting"].startswith("exact search (gcl)"))
    measured = next(row for row in compared if not row["setting"].endswith("filtered"))
    assert measured["ndcg@10"] == pytest.approx(exact["ndcg@10"], abs=0.02)  # but for ties
    assert ("exact search (gcl), fused" in by_name) == (content == "fields")
    card = (folder / "README.md").read_text()
    assert engine_of(engine).title in card and "overlap@10" in card and "<table" in (folder / "parity.html").read_text()
    drawn = any(row.get("depth") for row in rows)
    assert drawn == ("(parity.svg)" in card) == (folder / "parity.svg").is_file()
    if drawn:
        drawing = "".join(ElementTree.parse(folder / "parity.svg").getroot().itertext())
        assert "overlap@10" in drawing and "HNSW, none" in drawing, drawing
    if engine_of(engine).here is Here.database:
        asks_as_measured(folder, finished, content, filters, run_program)
        assert all(run_program(folder, *words) for words in asks)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [name for name in ENGINES if engine_of(name).here is Here.files])
def test_what_a_server_s_page_says_leaves_files(deployed, finished, engine, tmp_path):
    for package in engine_of(engine).requires:
        pytest.importorskip(package)
    out = deployed("duckdb")[0].parent  # its vectors
    for words in typed(engine)[0]:
        main(["deploy", f"run={finished.path}", f"out={out}", f"engine={engine}", *words])
    compile((out / engine / "search.py").read_text(), "search.py", "exec")
    assert "python search.py" in (out / engine / "README.md").read_text()


def asks_as_measured(folder, finished, content, filters, run_program):
    """search.py finds what exact search finds, written as a loop with the weights of the run's file."""
    import gcl

    file = folder.parent / content / "embeddings" / "documents.parquet"
    (batch,) = batches([file], folder / "payload.parquet", rows=99)
    (vector,) = gcl.load(finished.path).embed_queries(["blue boots"]).astype(np.float64)
    if content == "fields":
        weights = json.loads((finished.path / "field_weights.json").read_text())["used"]["document"]
        total = sum(weights.values())
        vector = np.concatenate([weight / total * vector for weight in weights.values() if weight > 0])
    score = {
        name: sum(a * b for a, b in zip(vector.tolist(), document.tolist(), strict=True))
        for name, document in zip(batch.ids, batch.vectors.astype(np.float64), strict=True)
    }
    brand = dict(zip(batch.ids, batch.payload["brand"], strict=True)) if filters else {}
    found = run_program(folder, "blue boots")
    assert_best([name for name, _ in found], score)
    assert all(payload.get("brand") == brand.get(name) for name, payload in found)
    if filters:
        kept = run_program(folder, "blue boots", "brand=Nord", "-k", "7")
        assert_best([name for name, _ in kept], {name: score[name] for name in score if brand[name] == "Nord"}, 7)
    if '"--how"' in (folder / "search.py").read_text():
        said = [payload["words"].lower() for _, payload in run_program(folder, "blue", "--how", "words")]
        assert said and all("blue" in words for words in said)
        assert len({name for name, _ in run_program(folder, "blue boots", "--how", "hybrid")}) == 10


def assert_best(names, score, k=10):
    best = sorted(score, key=score.__getitem__, reverse=True)[:k]
    assert len({*names}) == k
    assert [score[name] for name in names] == pytest.approx([score[name] for name in best], abs=1e-6)


@pytest.fixture
def run_program(monkeypatch, capsys):
    """run_program(folder, words…): (id, payload) that search.py prints."""

    def run(folder, *words):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["search.py", *words])
        runpy.run_path(str(folder / "search.py"), run_name="__main__")
        gc.collect()  # the database is closed
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [int(place) for place, _, _ in lines] == list(range(1, len(lines) + 1))
        return [(name, json.loads(payload)) for _, name, payload in lines]

    return run


def test_quantised_vectors_are_compared_with_whole_ones(deployed, capfd):
    pytest.importorskip("lancedb")
    import lancedb

    folder, _ = deployed("lancedb")
    database = lancedb.connect(folder)
    database.create_table("products_scalar", [{"id": "of the shop"}])
    (_, words), _ = typed("lancedb")
    assert words == ["quantization=[none,scalar,binary]"]
    deployed("lancedb", *words)
    assert "eprecat" not in capfd.readouterr().err, "LanceDB warns of queries that it will answer otherwise"
    rows = json.loads((folder / "parity.json").read_text())["rows"]
    assert {row["quantization"] for row in rows} == {"", "none", "scalar", "binary"}
    names = [row["setting"] for row in rows]
    assert {"BM25", "hybrid, RRF", "hybrid, weighted", "BM25 alone (gcl)", "HNSW, ef 512, rescored"} <= {*names}
    database = lancedb.connect(folder)
    assert database.list_tables().tables == ["products", "products_scalar"], "what was only compared is gone"
    assert [path.name for path in folder.glob("*.loaded.json")] == ["products.loaded.json"]
    capfd.readouterr()
    with pytest.raises(SystemExit):
        deployed("lancedb", "collection=products_scalar")
    assert "has a collection products_scalar of 1 document already" in capfd.readouterr().err
    assert database.open_table("products_scalar").to_arrow()["id"].to_pylist() == ["of the shop"]
    deployed("lancedb")
    assert "are loaded already" in capfd.readouterr().out


def test_a_load_that_was_interrupted_goes_on(deployed, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    from gcl.exports.engines.duckdb import DuckDB

    add, starts = DuckDB.add, []

    def dies(self, batch, *, again=False):
        add(self, batch, again=again)
        starts.append((batch.start, again))
        if len(starts) == 3:
            raise KeyboardInterrupt  # the rows are in, and nobody noted it

    monkeypatch.setattr(DuckDB, "add", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        deployed("duckdb", "collection=shop")
    folder, _ = deployed("duckdb", "collection=shop")
    assert starts == [(0, False), (10, False), (20, False), (20, True), (30, False), (40, False)]
    with duckdb.connect(str(folder / "shop.duckdb")) as db:
        assert db.execute("SELECT count(*), count(DISTINCT id) FROM shop").fetchall() == [(48, 48)]


def test_a_batch_of_several_row_groups_is_in_the_table_in_its_order(tmp_path):
    pytest.importorskip("duckdb")
    from gcl.exports.engines.duckdb import DuckDB

    count, further = 130_000, 10
    names = pa.array([f"sku {n}" for n in range(count + further)])
    numbers = pa.array(np.arange(2 * len(names), dtype=np.float32))
    whole = pa.table({"id": names, "title": names, "vector": pa.FixedSizeListArray.from_arrays(numbers, 2)})
    collection = DuckDB(Layout("shop", 2, len(names), {"title": Column.text}), tmp_path, None)
    collection.create()
    first = pa.Table.from_batches(whole.slice(0, count).to_batches(8192))
    for start, table, again in ((0, first, False), (0, first, True), (count, whole.slice(count), False)):
        collection.add(Batch(start, table), again=again)
    with closing(collection):
        found = collection._db.execute("SELECT id, title, vector[1] AS x, vector[2] AS y FROM shop").fetchnumpy()
    assert all(found[name].tolist() == names.to_pylist() for name in ("id", "title"))
    assert (np.column_stack([found["x"], found["y"]]).ravel() == numbers.to_numpy()).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["duckdb", "lancedb", "milvus", "chroma"])
def test_a_load_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path, engine):
    for package in engine_of(engine).requires:
        pytest.importorskip(package)
    vectors = np.random.default_rng(0).normal(size=(load_engine.ROWS, load_engine.WIDTH)).astype(np.float32)
    ids = [f"sku {n}" for n in range(len(vectors))]
    with VectorWriter(tmp_path / "vectors.parquet", ["vector"], load_engine.WIDTH, about={}) as writer:
        writer.write(ids, {"vector": vectors})
    documents = ListRecords(ids, [{"title": name} for name in ids], {"title": Field(Modality.text)})
    write_payload(tmp_path / "payload.parquet", documents, list, ["title"], words=False)
    command = [sys.executable, load_engine.__file__, engine, str(tmp_path)]
    for kills in (1, 3, 1):
        assert subprocess.run([*command, str(kills)], capture_output=True).returncode == -signal.SIGKILL
    subprocess.run(command, check=True, capture_output=True)
    collection = engine_of(engine).collection(load_engine.layout(), tmp_path, None)
    assert collection.rows() == len(ids)
    setting = engine_of(engine).collection.settings(load_engine.layout(), None)[0]
    for vector in vectors[:3]:
        assert sorted(collection.search(Asked(vector), len(ids), setting)) == sorted(ids)
    collection.close()


def test_a_batch_that_was_not_noted_is_not_loaded_twice(deployed, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    from gcl.exports.engines.duckdb import DuckDB

    add = DuckDB.add

    def dies(self, batch, *, again=False):
        add(self, batch, again=again)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DuckDB, "add", dies)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            deployed("duckdb", "collection=order")
    folder, _ = deployed("duckdb", "collection=order")  # a word of SQL, too
    with duckdb.connect(str(folder / "order.duckdb")) as db:
        assert db.execute('SELECT count(*), count(DISTINCT id) FROM "order"').fetchall() == [(48, 48)]


def test_a_collection_is_loaded_anew_where_it_is_not_what_was_loaded(deployed, finished, tmp_path, capsys):
    duckdb = pytest.importorskip("duckdb")
    folder, _ = deployed("duckdb", "collection=healed")

    def vector():
        with duckdb.connect(str(folder / "healed.duckdb")) as db:
            assert db.execute("SELECT count(*) FROM healed").fetchall() == [(48,)]
            return db.execute("SELECT vector FROM healed ORDER BY id").fetchall()

    whole = vector()
    with duckdb.connect(str(folder / "healed.duckdb")) as db:
        db.execute("DELETE FROM healed WHERE id IN (SELECT id FROM healed LIMIT 24)")
    deployed("duckdb", "collection=healed")
    assert vector() == whole
    capsys.readouterr()
    deployed("duckdb", "collection=healed", "replace=true")
    assert "loaded already" not in capsys.readouterr().out

    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    file = run / "field_weights.json"
    weights = json.loads(file.read_text())
    document = weights["used"]["document"]
    weights["used"]["document"] = {name: 1.0 / (1 + 9 * at) for at, name in enumerate(reversed(document))}
    file.write_text(json.dumps(weights))
    _, rows = deployed("duckdb", "collection=healed", f"run={run}")
    assert next(row for row in rows if row["setting"] == "exact")["overlap@10"] == 1 and vector() != whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_running_server_is_loaded_and_what_is_there_already_stays(
    deployed, finished, capsys, tmp_path_factory, run_program, monkeypatch
):
    pgserver, psycopg = pytest.importorskip("pgserver"), pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    try:
        address = server.get_uri().replace("postgres:@", "postgres:sesame@")
        assert "sesame" in address
        words = ["pgvector", f"url={address}", "payload=[brand]"]
        folder, rows = deployed(*words)
        assert not [path for path in folder.iterdir() if b"sesame" in path.read_bytes()]
        monkeypatch.setenv("PGVECTOR_URL", address)
        asks_as_measured(folder, finished, "fused", ["filter.brand=Nord"], run_program)
        assert all(run_program(folder, *asked) for asked in typed("pgvector")[1])
        with psycopg.connect(server.get_uri()) as db:
            assert db.execute("SELECT count(*), count(DISTINCT brand) FROM products").fetchall() == [(48, 2)]
            used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'products_vector'"
            ((scans,),) = db.execute(used).fetchall()
        approximate = sum(row["setting"].startswith("HNSW") for row in rows)
        assert approximate == 3 and scans >= 11 * approximate, "what is called HNSW went through the index"
        capsys.readouterr()
        deployed(*words)
        assert "are loaded already" in capsys.readouterr().out
        with pytest.raises(SystemExit):
            deployed(*words, "content=fields")
        assert "has a collection products of 48 documents already" in capsys.readouterr().err
        _, rows = deployed(*words, "content=fields", "replace=true")
        assert next(row for row in rows if row["setting"] == "exact")["overlap@10"] == 1
    finally:
        server.cleanup()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_server_that_dies_is_told_and_the_same_command_goes_on(deployed, capsys, tmp_path_factory, monkeypatch):
    pgserver, psycopg = pytest.importorskip("pgserver"), pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    from gcl.exports.engines.clients.pgvector import Search
    from gcl.exports.engines.pgvector import Pgvector

    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    words, calls = ["pgvector", f"url={server.get_uri()}", "collection=mortal"], []

    def killing(call, at):
        def killed(*args, **options):
            calls.append(call.__name__)
            if calls.count(call.__name__) == at:
                pgserver.pg_ctl(["-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)
            return call(*args, **options)

        return killed

    try:
        monkeypatch.setattr(Pgvector, "add", killing(Pgvector.add, 3))
        monkeypatch.setattr(Search, "near", killing(Search.near, 5))
        for told in ("PostgreSQL with pgvector (", "asked in the setting 'exact', "):
            with pytest.raises(SystemExit):
                deployed(*words)
            error = capsys.readouterr().err
            assert told in error and "Traceback" not in error and "\n" not in error.strip()
            server.ensure_postgres_running()
        _, rows = deployed(*words)
        assert next(row for row in rows if row["setting"] == "exact")["overlap@10"] == 1
        assert calls.count("add") == 6, "five batches, and the one that was sent when the server died"
        with psycopg.connect(server.get_uri()) as db:
            assert db.execute("SELECT count(*), count(DISTINCT id) FROM mortal").fetchall() == [(48, 48)]
    finally:
        server.cleanup()


def test_a_query_that_an_engine_refuses_is_told(deployed, capsys, monkeypatch):
    pytest.importorskip("duckdb")
    from gcl.exports.engines.clients.duckdb import Search

    near = Search.near

    def without_table(self, *args, **options):
        self.db.execute(f"DROP TABLE {self.table}")
        return near(self, *args, **options)

    monkeypatch.setattr(Search, "near", without_table)
    with pytest.raises(SystemExit):
        deployed("duckdb", "collection=refused")
    error = capsys.readouterr().err
    assert "DuckDB (" in error and "asked in the setting 'exact', CatalogException: " in error
    assert "the same command asks again" in error and "Traceback" not in error


def test_limits_of_exact_and_approximate_settings(finished, tmp_path):
    from gcl.commands.deploy import Deploy, DeployOptions

    options = DeployOptions(run="", out=str(tmp_path), overlap=0.9, approximate=0.8)
    layout = Layout("products", 8, 9, {"words": Column.text})
    settings = Deploy(options, engine_of("pgvector"), finished)._settings(layout, None)
    assert [setting.least for setting in settings] == [0.9, None, None, 0.8, None, None, None]


@pytest.mark.slow
def test_search_py_runs_by_itself(deployed, run_program, capsys):
    pytest.importorskip("duckdb")
    folder, _ = deployed("duckdb", "payload=[brand]")
    command = [sys.executable, str(folder / "search.py"), "blue boots", "brand=Nord", "-k", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["1", "2"], done.stderr
    with pytest.raises(SystemExit):
        run_program(folder, "blue boots", "bran=Nord")
    gc.collect()
    assert "bran=Nord: expected a column and its value, of brand." in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_the_lines_for_qdrant_ask_it(deployed, finished):
    """There is no server here: its collection in this process takes the place of the one at the address."""
    pytest.importorskip("qdrant_client")
    folder, _ = deployed("qdrant", "payload=[brand]", "content=fields")
    program = {"__name__": "shop", "__file__": str(folder / "search.py")}
    exec((folder / "search.py").read_text(), program)
    (batch,) = batches([folder.parent / "fields/embeddings/documents.parquet"], folder / "payload.parquet", rows=99)
    layout = Layout("products", batch.vectors.shape[1], len(batch), {"brand": Column.text, "words": Column.text})
    collection = engine_of("qdrant").collection(layout, folder, None)
    collection.create()
    collection.add(batch)
    program["products"].client.close()
    program["products"] = program["Search"](collection._client, "products")
    score = batch.vectors.astype(np.float64) @ program["vector_of"]("blue boots").astype(np.float64)
    score = dict(zip(batch.ids, score.tolist(), strict=True))
    assert_best([name for name, _ in program["search"]("blue boots")], score)
    kept = program["search"]("blue boots", {"brand": "Nord"}, k=5)
    assert {payload["brand"] for _, payload in kept} == {"Nord"} and len(kept) == 5
    assert all("blue" in payload["words"].lower() for _, payload in program["search"]("blue", how="words"))
    collection.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_files_for_psql_make_the_same_table(deployed, tmp_path_factory):
    pgserver, psycopg = pytest.importorskip("pgserver"), pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    folder, _ = deployed("pgvector", "payload=[brand]")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    try:
        load = (folder / "load.sql").read_text().splitlines()
        assert load[0] == "\\i schema.sql" and load[1].startswith('\\copy "products" (')
        with psycopg.connect(server.get_uri(), autocommit=True) as db:
            db.execute((folder / "schema.sql").read_text())
            columns = load[1].removeprefix("\\copy ").removesuffix(" FROM 'documents.copy'")
            with db.cursor() as cursor, cursor.copy(f"COPY {columns} FROM STDIN") as copy:
                copy.write((folder / "documents.copy").read_bytes())
            db.execute("\n".join(load[2:]))
            found = db.execute("SELECT id, brand, vector::text FROM products ORDER BY id").fetchall()
        (expected,) = batches(
            [folder.parent / "fused/embeddings/documents.parquet"], folder / "payload.parquet", rows=99
        )
        assert [row[0] for row in found] == sorted(expected.ids)
        brands = dict(zip(expected.ids, expected.payload["brand"], strict=True))
        assert {name: brand for name, brand, _ in found} == brands
        vectors = np.array([json.loads(row[2]) for row in found], np.float32)
        assert np.array_equal(vectors, expected.vectors[np.argsort(expected.ids)])
    finally:
        server.cleanup()


def files_of(folder, vectors, rows):
    """Vectors in files of `rows` rows; their ids are sku 0, sku 1 …"""
    files = []
    for start in range(0, len(vectors), rows):
        part = vectors[start : start + rows]
        files.append(folder / f"{start}.parquet")
        with VectorWriter(files[-1], ["vector"], vectors.shape[1], about={}) as writer:
            for at in range(0, len(part), 4):
                ids = [f"sku {start + at + n}" for n in range(len(part[at : at + 4]))]
                writer.write(ids, {"vector": part[at : at + 4]})
    return files


def test_numbers_that_are_not_finite_reach_no_engine(tmp_path):
    vectors = np.arange(60, dtype=np.float32).reshape(30, 2)
    vectors[17, 1], vectors[29, 0] = np.nan, np.inf
    documents = ListRecords([f"sku {n}" for n in range(30)], [{"title": "t"} for _ in vectors], SIDE)
    write_payload(tmp_path / "payload.parquet", documents, list, ["title"], words=False)
    coming = batches(files_of(tmp_path, vectors, 13), tmp_path / "payload.parquet", rows=9)
    assert next(coming).ids[-1] == "sku 8"
    with pytest.raises(ValueError, match="vector of 'sku 17' has numbers that are not finite"):
        next(coming)


def test_the_payload_is_in_the_order_of_the_vectors(tmp_path):
    records = [{"title": f"t {n}" if n % 2 else None} for n in range(30)]
    documents = ListRecords([f"sku {n}" for n in range(30)], records, SIDE)
    files = files_of(tmp_path, np.arange(60, dtype=np.float32).reshape(30, 2), 13)

    def table():
        for part in (range(20, 31), range(20)):  # not in the catalog's order, and one that it lacks
            yield [f"sku {n}" for n in part], {
                "Price (EUR)": ["" if n == 5 else f"{n},50" for n in part], "brand": [f"b{n % 3}" for n in part],
            }, ","  # fmt: skip
        yield ["sku 4"], {"Price (EUR)": ["77"], "brand": ["again"]}, ","

    path = tmp_path / "payload.parquet"
    kinds = write_payload(path, documents, table, ["Price (EUR)", "brand", "title"], words=True)
    assert kinds == {
        "price_eur": Column.number, "brand": Column.text, "title": Column.text, "words": Column.text,
    }  # fmt: skip
    for start in (0, 1, 12, 13, 17, 29, 30):
        read = list(batches(files, path, rows=5, start=start))
        assert [name for batch in read for name in batch.ids] == [f"sku {n}" for n in range(start, 30)]
        assert [batch.start for batch in read] == [int(batch.ids[0].split()[1]) for batch in read]
        rows = [row for batch in read for row in batch.rows]
        assert [row.get("price_eur") for row in rows] == [None if n == 5 else n + 0.5 for n in range(start, 30)]
        assert [row["brand"] for row in rows] == [f"b{n % 3}" for n in range(start, 30)]
        assert [row.get("title") for row in rows] == [f"t {n}" if n % 2 else None for n in range(start, 30)]
        for batch in read:
            assert np.array_equal(batch.vectors[:, 0], 2.0 * np.arange(batch.start, batch.start + len(batch)))
    with pytest.raises(ConfigError, match="no column 'prize'.*brand"):
        write_payload(path, documents, table, ["prize"], words=False)
    with pytest.raises(ConfigError, match="would be called 'vector'"):
        write_payload(path, documents, table, ["Vector"], words=False)
    assert len(parquet.read_table(path)) == 30, "what was written stays"


@pytest.mark.parametrize(
    "decimal, cells, expected",
    [
        (".", ["1,299.00", "2,499", ""], [1299, 2499, None]),
        (",", ["1.299", "7,5", "-3"], [1299, 7.5, -3]),
        (".,", ["1.234", "12.5", "1e-07"], [1.234, 12.5, 1e-7]),
        (".,", ["1.234", "12,5"], [1234, 12.5]),
        (".", ["0", "0.50", "-0.5"], [0, 0.5, -0.5]),
        (".", ["2,499", "850"], None),  # 2.499 or 2499
        (".", ["7,50", "8"], None),
        (".", ["0000000000001", "4006381333931"], None),
        (".", ["1.5", "nan"], None),
        (".", ["1_000", "2"], None),
        (".", ["90071992547409931"], None),  # more digits than float64 has
        (".", ["", ""], None),
    ],
)  # fmt: skip
def test_a_column_holds_numbers_only_if_they_lose_nothing(tmp_path, decimal, cells, expected):
    ids, path, said = [f"sku {n}" for n in range(len(cells))], tmp_path / "payload.parquet", []
    documents = ListRecords(ids, [{} for _ in ids], SIDE)
    kinds = write_payload(
        path, documents, lambda: [(ids, {"x": cells}, decimal)], ["x"], words=False, report=said.append
    )
    texts = [cell or None for cell in cells]
    assert kinds == {"x": Column.text if expected is None else Column.number}
    assert parquet.read_table(path)["x"].to_pylist() == (texts if expected is None else expected)
    assert said[0].startswith("Payload: numbers: x." if expected else "Payload: texts because of these cells: x '")


class Ranks:
    """An engine that ranks by score(query vector, query's weights) -> [M]."""

    def __init__(self, queries, ids, score):
        self.queries, self.ids, self.score = queries, ids, score

    def search(self, asked, k, setting):
        at = next(n for n, one in enumerate(self.queries.vector) if one is asked.vector or (one == asked.vector).all())
        return [self.ids[n] for n in np.argsort(-self.score(at), kind="stable")[:k]]


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    """300 documents of two fields side by side, 8 queries with weights of their own; files, and unit vectors."""
    folder, random = tmp_path_factory.mktemp("weighed"), np.random.default_rng(0)

    def units(*shape):
        vectors = random.normal(size=shape)
        return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)

    fields, asked = units(300, 2, 16), units(8, 16)
    image = random.uniform(0.5, 0.7, 8).astype(np.float32)
    weights = np.stack([image, 1 - image], axis=1)
    vector = (weights[:, :, None] * asked[:, None]).reshape(8, -1)
    documents = ListRecords([f"sku {n}" for n in range(300)], [{"title": f"{n % 2}"} for n in range(300)], SIDE)
    write_payload(folder / "payload.parquet", documents, list, ["title"], words=False)
    files = files_of(folder, fields.reshape(300, -1), 170)
    judged = JudgedPairs(np.arange(8), np.arange(8) * 30, np.ones(8))
    queries = Queries(vector, [""] * 8, Judged(judged), weights, asked, [0.9, 0.1])
    return queries, fields, asked, lambda rows=64: batches(files, folder / "payload.parquet", rows=rows)


def test_the_reference_is_exact_search_written_as_loops(weighed):
    queries, fields, asked, read = weighed
    reference = Reference.of(queries, read(), {"title": "1"})
    for q in range(len(queries)):
        scores = [
            sum(float(w) * float(np.dot(asked[q].astype(float), field.astype(float))) for w, field in pairs)
            for pairs in ([*zip(queries.weights[q], document, strict=True)] for document in fields)
        ]
        order = sorted(range(300), key=lambda n: (-scores[n], f"sku {n}"))
        assert reference.best.ids[q].tolist() == [f"sku {n}" for n in order[:100]]
        assert reference.best.row[q].tolist() == order[:100]
        assert reference.filtered.row[q].tolist() == [n for n in order if n % 2][:100]
        fused = 0.9 * fields[:, 0].astype(float) + 0.1 * fields[:, 1]
        fused /= np.linalg.norm(fused, axis=1, keepdims=True)
        assert reference.fused.row[q].tolist() == np.argsort(-(fused @ asked[q]))[:100].tolist()
    assert (reference.documents, reference.kept) == (300, 150)


def test_a_query_has_the_judgments_of_all_its_tasks():
    """Known products answer one task, new ones another; what is deployed are both."""
    random = np.random.default_rng(0)

    def parts(rows):
        return SimpleNamespace(rows=np.array(rows))

    relevance, asked = random.integers(0, 3, (5, 60)), [0, 2, 4]
    tasks = []
    for queries, corpus in (([4, 0, 2], range(0, 20)), ([2, 1, 4], range(20, 50)), ([0], range(15, 25))):
        query, document = np.divmod(np.arange(len(queries) * len(corpus)), len(corpus))
        pairs = JudgedPairs(query, document, relevance[np.array(queries)[query], np.array(corpus)[document]])
        complete = JudgedPairs(*(one[pairs.relevance > 0] for one in (query, document, pairs.relevance)), (), True)
        tasks.append(RetrievalTask("dev", parts(queries), parts(corpus), complete if len(tasks) else pairs))
    judged = united(tasks, np.array(asked))
    known = {0: range(25), 2: range(50), 4: range(50)}
    row = np.array([random.permutation(60)[:10] for _ in asked])
    pairs = list(zip(asked, row.tolist(), strict=True))
    gains = [[relevance[q, d] if d in known[q] else 0 for d in found] for q, found in pairs]
    best = [sorted((relevance[q, d] for d in known[q]), reverse=True)[:10] for q in asked]
    discounts = 1 / np.log2(np.arange(10) + 2)
    expected = np.mean(
        [one @ discounts / (ideal @ discounts) for one, ideal in zip(*map(np.array, (gains, best)), strict=True)]
    )
    assert Queries(np.zeros((3, 2)), [""] * 3, judged).ndcg(row, 60) == pytest.approx(expected)
    unknown = sum(d not in known[q] for q, found in pairs for d in found)
    assert unknown and judged.unjudged(row, 60) == pytest.approx(unknown / 30)


def minmax(scores):
    return (scores - scores.min()) / (scores.max() - scores.min())


@pytest.mark.parametrize(
    "told",
    ["", "ignores the weights", "compares one field only, number 2 of 2", "one bit of each number", "farthest",
     "cuts the candidates of each field to 50 ", "normalises the scores of each field's first 200"],
)  # fmt: skip
def test_what_an_engine_did_otherwise_is_said(weighed, told):
    queries, fields, asked, read = weighed
    reference = Reference.of(queries, read(), {})

    def score(q):
        cosines = fields @ asked[q]  # [300, 2]
        weights = queries.weights[q]
        first = np.stack([np.argsort(-cosines[:, n]) for n in (0, 1)], axis=1)
        if told.startswith("ignores"):
            return cosines.sum(axis=1)
        if told.startswith("compares one field"):
            return cosines[:, 1]
        if told.startswith("one bit"):
            return np.sign(fields.reshape(300, -1)) @ np.sign(queries.vector[q])
        if told == "farthest":
            return -cosines @ weights
        total = np.zeros(300)
        for field in (0, 1):
            most = 50 if told.startswith("cuts") else 200 if told else 300
            rows = first[:most, field]
            total[rows] += weights[field] * (minmax if told.startswith("norm") else np.asarray)(cosines[rows, field])
        return total

    engine = Ranks(queries, [f"sku {n}" for n in range(300)], score)
    (row,) = measure(engine, [Setting("exact", How.exact, 0.99)], reference, {}, "none")
    (row,) = with_ndcg([row], reference, ((batch.start, batch.ids) for batch in read()))
    assert row.short == bool(told) and (row.overlap == 1) == (not told)
    if told:
        assert told in (said := explain(row, reference, read, {}))
        assert said == explain(row, reference, lambda: read(300), {}), "block by block"
    else:
        assert row.ndcg == pytest.approx(queries.ndcg(reference.best.row[:, :10], 300))


@pytest.mark.parametrize(
    "words, told",
    [
        (["engine=quadrant"], "Did you mean qdrant?"),
        (["engine=duckdb", "url=http://x"], "search is exact: leave url= out."),
        (["engine=duckdb", "quantization=[binary]"], "with DuckDB, it is one of none"),
        (["engine=qdrant", "quantization=[scalar]"], "without a server, Qdrant keeps every number whole"),
        (["engine=duckdb", "collection=My-Shop"], "collection=My-Shop"),
        (["engine=duckdb", "filter.brand=Nord"], "payload=[brand] would add it"),
        (["engine=duckdb", "payload=[brnd]"], "Did you mean brand?"),
        (["engine=faiss", "payload=[brand]"], "payload: faiss holds vectors alone"),
        (["engine=usearch", "filter.brand=Nord"], "filter: usearch holds vectors alone"),
        (["engine=qdrant", "url=localhost:6333"], "the address of Qdrant begins like http://localhost:6333"),
        (
            ["engine=qdrant", "url=http://ann:hidden@127.0.0.1:9?key=hidden"],
            "Is it running there, and does url=… have the login",
        ),
        (["engine=lancedb", "quantization=[none,scalar]", f"collection={'a' * 47}"], "a_gcl_check_scalar: 3 to 63"),
        (["engine=duckdb", "payload=[brand]", "filter.brand=Nosuch"], "no document has brand=Nosuch"),
        (["engine=duckdb", "payload=[brand]", "filter.brand=[Nord,Sol]"], "brand holds text, for example 'Nord'"),
    ],
)
def test_options_that_do_not_fit(finished, tmp_path, capsys, words, told):
    name = words[0].partition("=")[2]
    for package in engine_of(name).requires if name in ENGINES else ():
        pytest.importorskip(package)
    with pytest.raises(SystemExit):
        main(["deploy", f"run={finished.path}", f"out={tmp_path}", *words])
    error = capsys.readouterr().err
    assert told in error and "hidden" not in error and "Traceback" not in error
    assert not [*tmp_path.rglob("documents*.parquet")], "it is said before anything is embedded"


def test_what_cannot_be_loaded_is_said_before_anything_is_embedded(finished, tmp_path, capsys, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    words = ["deploy", f"run={finished.path}", f"out={tmp_path}", "engine=duckdb"]
    with monkeypatch.context() as patch:
        patch.setattr("gcl.exports.engines.duckdb.ENGINE", replace(engine_of("duckdb"), widest=10))
        with pytest.raises(SystemExit):
            main([*words, "content=fields"])
    assert "at most 10 numbers" in capsys.readouterr().err
    path = tmp_path / "duckdb" / "products.duckdb"
    with duckdb.connect(str(path)) as db:
        db.execute("CREATE TABLE products AS SELECT 7 AS mine")
    with pytest.raises(SystemExit):
        main(words)
    assert "has a collection products of 1 document already" in capsys.readouterr().err
    with duckdb.connect(str(path)) as db:
        assert db.execute("SELECT * FROM products").fetchall() == [(7,)]
    path.write_text("not a database")
    with pytest.raises(SystemExit):
        main(words)
    assert f"DuckDB ({path.parent}): IOException" in capsys.readouterr().err
    assert not [*tmp_path.rglob("documents*.parquet")]


@pytest.mark.parametrize(
    "filter, told",
    [
        ({"price": [30, 10]}, "the least of a range comes first"),
        ({"price": [30, 40]}, "no document has price=.*price holds number, for example 2.5"),
        ({"listed": [10, 2000]}, "listed holds text, for example '1,299.00', and is filtered by one value"),
    ],
)
def test_a_filter_that_keeps_nothing_is_refused(tmp_path, filter, told):
    columns, path = {"price": Column.number, "listed": Column.text}, tmp_path / "payload.parquet"
    parquet.write_table(pa.table({"id": ["1", "2"], "price": [None, 2.5], "listed": [None, "1,299.00"]}), path)
    with pytest.raises(ConfigError, match=told):
        check_filter(filter, columns, payload=path, named=["price", "listed"])
    filter = {"price": [2, 3], "listed": "1,299.00"}
    assert check_filter(filter, columns, payload=path, named=[]) == {"price": (2, 3), "listed": "1,299.00"}


def test_the_records_agree_with_the_docs_and_the_extras():
    common = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, engine in zip(ENGINES, map(engine_of, ENGINES), strict=True):
        assert engine.name == name
        page = page_of(name).read_text(encoding="utf-8")
        assert page.startswith(f"# {engine.title}\n") and f"[{engine.title}](engines/{name}.md)" in common
        assert engine.serve in page and (not engine.extra or f"pip install 'gcl-trainer[{engine.extra}]'" in page)
        assert all(f"`{one}`" in page for one in engine.quantizations[1:])
        assert not engine.requires or engine.extra in extras
        assert bool(engine.files) == (engine.collection.write.__func__ is not Collection.write.__func__)
        assert engine.files or engine.here is not Here.files
    assert re.fullmatch(r"[a-z_0-9]+", engine_name("Größe / Size")) and engine_name("2") == "c_2"
    wide = Layout("products", 5000, 1, {})
    with pytest.raises(ConfigError, match="at most 2,000 numbers, and these have 5,000"):
        engine_of("pgvector").check_layout(wide, None)
    with pytest.raises(ConfigError, match="one of none, scalar"):
        engine_of("milvus").check_layout(replace(wide, quantization=Quantization.binary), "http://x")
    with pytest.raises(ConfigError, match="no such engine"):
        check_engine("lucene")
