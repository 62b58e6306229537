"""A catalog's vectors in files: the ones that evaluation computes, whole or not there, found again by an index."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from gcl.data.importers.vectors import read_vectors
from gcl.data.store.vector_files import VectorWriter, about_vectors, vector_batches
from gcl.exports.settings import Content, VectorType
from gcl.exports.vectors import write as module
from gcl.exports.vectors.write import EmbeddingsSnippet, VectorOptions, embedding_files, write_embeddings
from gcl.exports.verify.case import make_case
from gcl.exports.verify.worker import compare_embeddings
from gcl.model.load import load_model
from gcl.retrieval.embedding.embed import embed
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.schema import Field, Modality, Schema

reads_nulls = pytest.mark.skipif(
    int(pa.__version__.split(".")[0]) < 26, reason="pyarrow below 26 reads no fixed-size lists with nulls from Parquet"
)
SCHEMA = Schema(
    query={"query": Field(Modality.text)},
    document={
        "title": Field(Modality.text, weight=0.7),
        "brand": Field(Modality.text, weight=0.3, prompt="by {}"),
        "note": Field(Modality.text, weight=0.0),
    },
)
WORDS = "red blue green white shirt mug lamp shoe wool oak steel small large".split()


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return load_model("gcl-tiny", schema=SCHEMA).eval()


@pytest.fixture(scope="module")
def sides():
    random = np.random.default_rng(0)
    records = [
        {
            "title": " ".join(random.choice(WORDS, 4)) + f" {n}" if n % 7 else None,
            "brand": f"brand {n % 5}" if n % 3 or not n % 7 else None,
            "note": "x",
        }
        for n in range(50)
    ]
    queries = [{"query": f"{WORDS[n]} things"} for n in range(6)]
    return {
        "document": ListRecords([f"sku {n}" for n in range(50)], records, SCHEMA.document),
        "query": ListRecords([f"q{n}" for n in range(6)], queries, SCHEMA.query),
    }


@pytest.fixture()
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)


def table(folder, name="documents"):
    return parquet.read_table(folder / "embeddings" / f"{name}.parquet")


def matrix(column):
    return np.array(column.to_pylist(), dtype=np.float32)


def test_fused_vectors_are_those_of_evaluation(encoder, sides, tmp_path, small_chunks):
    notes = write_embeddings(encoder, sides, tmp_path, VectorOptions(queries=True), data="abc")
    found = table(tmp_path)
    assert found["id"].to_pylist() == list(sides["document"].ids)
    assert found.schema.field("vector").type == pa.list_(
        pa.field("element", pa.float32(), nullable=False), encoder.width
    )
    expected = embed(encoder, sides["document"], "document").fused()
    assert np.abs(matrix(found["vector"]) - expected).max() < 1e-5
    assert np.allclose(np.linalg.norm(matrix(found["vector"]), axis=1), 1, atol=1e-5)
    asked = table(tmp_path, "queries")
    assert asked["text"].to_pylist()[0] == "red things"
    assert np.abs(matrix(asked["vector"]) - embed(encoder, sides["query"], "query").fused()).max() < 1e-5
    about = json.loads(found.schema.metadata[b"gcl"])
    assert about["normalized"] and about["metric"].startswith("cosine") and about["data_fingerprint"] == "abc"
    assert len(about["model_sha256"]) == 64 and about["fields"]["brand"] == {
        "modality": "text", "prompt": "by {}", "weight": pytest.approx(0.3),
    }  # fmt: skip
    assert "50 documents" in notes[0] and "title 0.7" in notes[0] and "6 queries" in notes[1]
    # They are what `models=[embeddings:…]` reads.
    files = [tmp_path / "embeddings" / f"{name}.parquet" for name in ("documents", "queries")]
    assert read_vectors(files).vector.shape == (56, encoder.width)


@pytest.mark.parametrize("content", ["fused", pytest.param("fields", marks=reads_nulls)])
def test_stored_vectors_are_compared_with_the_run_s(encoder, sides, tmp_path, content):
    task = task_from_qrels("shop.dev", sides["query"], sides["document"], {"q0": {"sku 0": 1.0}, "q3": {"sku 9": 1.0}})
    case, names = make_case(encoder, [task]), [*SCHEMA.document]
    write_embeddings(encoder, sides, tmp_path, VectorOptions(Content(content), VectorType.float16, rows=20))
    found = compare_embeddings(case, tmp_path, names, near=2e-3)
    assert found["text"]["lowest"] >= 0.9999 and found["text"]["count"] == 50
    assert found["tasks"]["shop.dev"]["different"] == 0 < found["tasks"]["shop.dev"]["equal"]

    files = embedding_files(tmp_path)
    assert len(files) == 3
    files[1].unlink()  # products that are missing
    assert not compare_embeddings(case, tmp_path, names, near=2e-3)["text"]["lowest"] >= 0.9999
    torch.manual_seed(7)
    other = load_model("gcl-tiny", schema=SCHEMA).eval()
    write_embeddings(other, sides, tmp_path / "other", VectorOptions(Content(content)))
    found = compare_embeddings(case, tmp_path / "other", names, near=2e-3)
    assert found["text"]["lowest"] < 0.9 and found["text"]["name"].startswith("vector of sku ")
    assert found["tasks"]["shop.dev"]["different"] > 0
    printed = []
    source = EmbeddingsSnippet(tmp_path / "other").snippet(encoder, str(tmp_path / "other"))
    exec(source, {"print": lambda *words: printed.extend(words)})
    rows = int(embed(encoder, sides["document"], "document").present[:, 0].sum()) if content == "fields" else 50
    assert printed[0] == (rows, encoder.width) and printed[1][0][1] == pytest.approx(1, abs=1e-3)


@reads_nulls
def test_one_vector_a_field_null_where_it_is_absent(encoder, sides, tmp_path, small_chunks):
    write_embeddings(encoder, sides, tmp_path, VectorOptions(Content.fields, VectorType.float16))
    found = table(tmp_path)
    assert found.column_names == ["id", "vector_title", "vector_brand", "vector_note"]
    element = pa.field("element", pa.float16(), nullable=False)
    assert found.schema.field("vector_title").type == pa.list_(element, encoder.width)
    embedded = embed(encoder, sides["document"], "document")
    for column, name in enumerate(found.column_names[1:]):
        values, present = found[name].to_pylist(), embedded.present[:, column]
        assert [value is not None for value in values] == present.tolist()
        kept = np.array([value for value in values if value is not None], dtype=np.float32)
        assert np.abs(kept - embedded.embedding[present, column]).max() < 1e-3
        read = list(vector_batches(tmp_path / "embeddings" / "documents.parquet", name, rows=7))
        assert sum(len(ids) for ids, _ in read) == present.sum()
        assert np.array_equal(np.concatenate([vectors for _, vectors in read]), kept)


def test_several_files_and_an_interrupted_export_goes_on(encoder, sides, tmp_path, small_chunks, monkeypatch):
    wanted, calls = VectorOptions(rows=20), []

    def counting(*args, **options):
        calls.append(len(args[1]))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return embed(*args, **options)

    monkeypatch.setattr(module, "embed", counting)
    with pytest.raises(KeyboardInterrupt):
        write_embeddings(encoder, sides, tmp_path, wanted, data="abc")
    there = sorted(path.name for path in (tmp_path / "embeddings").iterdir())
    assert there == ["documents-00000-of-00003.parquet"], "nothing half finished, under any name"
    calls[:] = [0] * 10
    write_embeddings(encoder, sides, tmp_path, wanted, data="abc")
    assert calls[10:] == [8, 8, 4, 8, 2], "the first file is not made again"
    files = sorted((tmp_path / "embeddings").iterdir())
    assert [len(parquet.read_table(file)) for file in files] == [20, 20, 10]
    together = np.concatenate([matrix(parquet.read_table(file)["vector"]) for file in files])
    assert np.abs(together - embed(encoder, sides["document"], "document").fused()).max() < 1e-5
    calls[:] = [0] * 10
    write_embeddings(encoder, sides, tmp_path, wanted, data="another catalog")
    assert len(calls) == 18, "files of other data are written anew"


def test_memory_does_not_grow_with_the_catalog(encoder, tmp_path, small_chunks, monkeypatch):
    """Never more than one chunk is embedded at a time, whatever the number of records."""
    records = ListRecords([str(n) for n in range(200)], [{"title": f"t {n}"} for n in range(200)], SCHEMA.document)
    sizes = []
    monkeypatch.setattr(module, "embed", lambda *a, **k: sizes.append(len(a[1])) or embed(*a, **k))
    write_embeddings(encoder, {"document": records}, tmp_path)
    assert max(sizes) == 8 and sum(sizes) == 200
    assert parquet.ParquetFile(tmp_path / "embeddings" / "documents.parquet").num_row_groups == 25


def test_a_record_without_a_field_that_counts_is_told_before_anything_is_embedded(encoder, tmp_path, monkeypatch):
    records = ListRecords(["a", "b"], [{"title": "x"}, {"note": "only a note"}], SCHEMA.document)
    monkeypatch.setattr(module, "embed", lambda *a, **k: pytest.fail("it was embedded"))
    with pytest.raises(ValueError, match="'b'.*no field of positive weight"):
        write_embeddings(encoder, {"document": records}, tmp_path)
    assert not list((tmp_path / "embeddings").iterdir())


def test_a_file_that_fails_while_it_is_written_is_not_there(tmp_path):
    with pytest.raises(RuntimeError), VectorWriter(tmp_path / "x.parquet", ["vector"], 2, about={}) as writer:
        writer.write(["a"], {"vector": np.ones((1, 2))})
        raise RuntimeError("the disk is full")
    assert list(tmp_path.iterdir()) == [] and about_vectors(tmp_path / "x.parquet") is None


@pytest.mark.slow
def test_the_command_and_evaluation_of_what_it_wrote(finished, shop, tmp_path):
    """Fused embeddings of a run, measured as somebody's embeddings, are the run's own figures."""
    from gcl.cli import main
    from gcl.config.compose import load_config

    out = tmp_path / "out"
    words = ["formats=[onnx,embeddings]", "onnx=[fp32,int8]", "queries=true", "latency=0.2"]
    main(["export", f"run={finished.path}", f"out={out}", *words])
    card = (out / "README.md").read_text()
    assert "int8" in card and "p95" in card and "queries.parquet" in card
    quality = json.loads((out / "onnx" / "quality.json").read_text())
    own = json.loads(finished.metrics.read_text())["tuned"]
    assert quality["part"] == "dev" and set(quality["tasks"]) == set(own)
    assert {row["format"] for row in json.loads((out / "latency.json").read_text())["rows"]} == {"onnx", "onnx int8"}
    where = ["--config-dir", str(shop / "conf"), "data=shop", f"cache_dir={load_config(finished.config).cache_dir}"]
    files = "+".join(str(out / "embeddings" / f"{name}.parquet") for name in ("documents", "queries"))
    main(["evaluate", *where, f"models=['embeddings:{files}']", f"out={tmp_path / 'measured'}"])
    (measured,) = json.loads((tmp_path / "measured" / "metrics.json").read_text()).values()
    for task, values in own.items():
        assert measured[task]["ndcg@10"] == pytest.approx(values["ndcg@10"], abs=1e-6)


@pytest.mark.parametrize(
    "words, told",
    [
        (["queries=true"], "concern the embeddings"),
        (["onnx=[int8]"], "fp32 cannot be left out"),
        (["onnx=[fp32,fp8]"], "expected one of [fp32, fp16, int8]"),
        (["onnx=[fp32,int8]", "formats=[open_clip]"], "needs onnx in formats="),
        (["embeddings=both"], "embeddings=both: expected one of [fused, fields]"),
    ],
)
def test_options_that_do_not_fit_stop_before_anything_is_written(finished, tmp_path, capsys, words, told):
    from gcl.cli import main

    with pytest.raises(SystemExit):
        main(["export", f"run={finished.path}", f"out={tmp_path / 'out'}", *words])
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()
