"""Vectors in blocks: those of evaluation, the same bytes after any kill, and of a changed catalog only what changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from gcl.cli import main
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.store.vector_files import READS_NULLS, vector_batches, write_lance
from gcl.errors import ConfigError
from gcl.exports.settings import Content, VectorType
from gcl.exports.vectors import blocks as module
from gcl.exports.vectors import write
from gcl.exports.vectors.blocks import INDEX, plan_blocks, taken, write_block
from gcl.exports.vectors.write import VectorOptions
from gcl.files.digest import file_sha256
from gcl.model.load import load_model
from gcl.model.query_weights import QueryWeights
from gcl.retrieval.embedding.embed import embed
from gcl.schema import Field, Modality, Schema

SCHEMA = Schema(
    query={"query": Field(Modality.text)},
    document={
        "title": Field(Modality.text, weight=0.7), "brand": Field(Modality.text, weight=0.3),
        "note": Field(Modality.text, weight=0.0),
    },
)  # fmt: skip
FUSED = VectorOptions(rows=8)
needs_nulls = pytest.mark.skipif(not READS_NULLS, reason="this pyarrow reads no vectors with nulls from Parquet")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return load_model("gcl-tiny", schema=SCHEMA).eval()


def shop(count=30):
    return {
        f"sku {n}": {"title": f"red shoe {n}", "brand": "nord" if n % 3 else None, "note": "x"} for n in range(count)
    }


def stored(folder, records):
    with ShardWriter(folder, "documents", side=SCHEMA.document) as writer:
        for name, record in records.items():
            writer.write(name, record)
    return RecordStore(folder, "documents", SCHEMA.document)


@pytest.fixture
def embedded(encoder, tmp_path, monkeypatch):
    """embedded(records, wanted): the folder, the plan, and how many records were embedded, block by block."""
    calls = []
    monkeypatch.setattr(write, "embed", lambda *given: calls.append(len(given[1])) or embed(*given))

    def call(records, wanted=FUSED, *, out=tmp_path / "out", stop=None, encoder=encoder):
        calls.clear()
        store = stored(tmp_path / f"store {time.time_ns()}", records)
        with taken(out):
            plan = plan_blocks(encoder, store, out, wanted, data="abc")
            if plan is not None:
                written = [write_block(encoder, store, plan.work, block) for block in plan.blocks[:stop]]
                if stop is None:
                    plan.finish(written)
        return out, plan, list(calls)

    return call


def vectors(out, column="vector"):
    """{id: vector} of a folder; None where there is none."""
    index, found = json.loads((out / INDEX).read_text()), {}
    for block in index["blocks"]:
        assert file_sha256(out / block["name"]) == block["sha256"]
        table = parquet.read_table(out / block["name"], columns=["id", column])
        assert len(table) == block["rows"]
        found |= dict(zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True))
    assert sorted(path.name for path in out.iterdir()) == sorted([INDEX, *(one["name"] for one in index["blocks"])])
    return found


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_blocks_are_the_vectors_of_evaluation(embedded, encoder, tmp_path):
    out, plan, calls = embedded(shop())
    assert calls == [8, 8, 8, 6] and plan.counts == {"new": 30, "changed": 0, "gone": 0, "kept": 0}
    found, store = vectors(out), stored(tmp_path / "again", shop())
    assert list(found) == list(store.ids)
    assert np.abs(np.array([*found.values()]) - embed(encoder, store, "document").fused()).max() < 1e-5
    before = files(out)
    assert embedded(shop())[1:] == (None, []) and files(out) == before


@pytest.mark.parametrize("content", ["fused", pytest.param("fields", marks=needs_nulls)])
def test_a_large_block_is_written_a_row_group_at_a_time(embedded, content, monkeypatch, tmp_path):
    column = "vector" if content == "fused" else "vector_brand"
    whole, _, _ = embedded(shop(), VectorOptions(Content(content), rows=30), out=tmp_path / "whole")
    monkeypatch.setattr(write, "CHUNK", 8)
    out, _, calls = embedded(shop(), VectorOptions(Content(content), rows=30), out=tmp_path / "chunks")
    assert calls == [8, 8, 8, 6] and parquet.ParquetFile(out / "documents-00000.parquet").num_row_groups == 4
    before = vectors(out, column)
    for name, vector in vectors(whole, column).items():
        assert vector == before[name] or np.allclose(vector, before[name], atol=1e-6)
    shuffled = dict(sorted(shop().items(), key=lambda item: item[0][::-1])) | {"sku 99": shop()["sku 4"]}
    out, _, calls = embedded(shuffled | {"sku 40": {"title": "mug"}}, VectorOptions(Content(content), rows=30), out=out)
    after = vectors(out, column)
    assert calls == [1] and {name: after[name] for name in shuffled} == before | {"sku 99": before["sku 4"]}


def test_only_what_changed_is_embedded(embedded):
    first, _, _ = embedded(shop())
    before, records = vectors(first), shop()
    records["sku 3"]["title"] = "blue hat"
    records["sku 4"]["note"] = "a field of weight 0"
    del records["sku 5"]
    renamed = {"sku 29b" if name == "sku 29" else name: record for name, record in records.items()}
    out, plan, calls = embedded(renamed | {"sku 40": {"title": "green mug", "brand": None, "note": None}})
    assert calls == [1, 1] and plan.counts == {"new": 2, "changed": 1, "kept": 27, "gone": 2}
    after = vectors(out)
    assert after["sku 29b"] == before["sku 29"] and after["sku 3"] != before["sku 3"]
    assert {name: after[name] for name in before if name not in ("sku 3", "sku 5", "sku 29")} == {
        name: vector for name, vector in before.items() if name not in ("sku 3", "sku 5", "sku 29")
    }
    whole, _, _ = embedded(
        renamed | {"sku 40": {"title": "green mug", "brand": None, "note": None}}, out=out.with_name("whole")
    )
    assert np.abs(np.array([*vectors(whole).values()]) - np.array([*after.values()])).max() < 1e-6


def test_a_catalog_that_has_grown_keeps_its_files(embedded):
    out, _, _ = embedded(shop(16))
    before = {path.name: path.stat().st_ino for path in out.glob("*.parquet")}
    out, _, calls = embedded(shop(19))
    after = {path.name: path.stat().st_ino for path in out.glob("*.parquet")}
    assert calls == [3] and len(vectors(out)) == 19 and before.items() <= after.items()


def test_what_was_cut_short_goes_on_with_the_same_bytes(embedded):
    whole, _, _ = embedded(shop())
    out = whole.with_name("stopped")
    embedded(shop(), out=out, stop=2)
    assert not out.exists()
    assert embedded(shop(), out=out)[2] == [8, 6] and files(out) == files(whole)
    changed = shop() | {"sku 0": {"title": "another", "brand": "sud", "note": "x"}}
    other = whole.with_name("other")
    embedded(shop(), out=other, stop=3)
    _, plan, calls = embedded(changed, out=other)
    assert calls == [1, 6] and plan.counts["new"] == 30, "work on the catalog as it was is taken as well"
    assert [path.name for path in other.parent.glob(".other*")] == []


def test_killed_between_its_two_renames(embedded):
    out, _, _ = embedded(shop(8))
    os.replace(out, out.with_name(".out.old"))
    assert embedded(shop(9))[2] == [1] and len(vectors(out)) == 9


def test_killed_while_the_old_folder_is_removed(embedded):
    out, _, _ = embedded(shop(8))
    shutil.copytree(out, out.with_name(".out.old"))
    assert embedded(shop(9))[2] == [1] and not out.with_name(".out.old").exists()


def test_files_of_others_are_not_removed_and_damaged_ones_are_noticed(embedded):
    out, _, _ = embedded(shop(8))
    block = out / "documents-00000.parquet"
    whole = block.read_bytes()
    block.write_bytes(whole[:300])
    assert embedded(shop(8))[2] == [8] and vectors(out)
    (out / "my.faiss").write_bytes(b"hours")
    with pytest.raises(ConfigError, match="holds my.faiss, which is not of `gcl embed`: move it"):
        embedded(shop(9))
    (out / INDEX).write_text('{"about": ')
    with pytest.raises(ConfigError, match=r"vectors.json is damaged: name another folder as out=, or remove"):
        embedded(shop(9))


def test_vectors_of_something_else_are_not_touched(embedded, encoder, tmp_path):
    out, _, _ = embedded(shop(8))
    torch.manual_seed(1)
    with pytest.raises(ConfigError, match="vectors of another model: name another folder"):
        embedded(shop(8), encoder=load_model("gcl-tiny", schema=SCHEMA).eval())
    with pytest.raises(ConfigError, match="vectors of another dtype"):
        embedded(shop(8), replace(FUSED, dtype=VectorType.float16))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="not empty"):
        embedded(shop(8), out=tmp_path / "mine")
    path = next(out.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
    with pytest.raises(ValueError, match="is not what vectors.json says"):
        embedded(shop(9))


@needs_nulls
def test_one_vector_per_field(embedded, encoder):
    wanted = VectorOptions(Content.fields, VectorType.float16, rows=8)
    out, _, _ = embedded(shop(), wanted)
    before = vectors(out, "vector_brand")
    assert [name for name, vector in before.items() if vector is None] == [f"sku {n}" for n in range(0, 30, 3)]
    records = shop() | {
        "sku 3": {"title": "t", "brand": "sud", "note": "x"},
        "sku 4": {"title": "t", "brand": None, "note": None},
    }
    out, _, calls = embedded(records, wanted)
    after = vectors(out, "vector_brand")
    assert calls == [2] and {name for name in before if after[name] != before[name]} == {"sku 3", "sku 4"}


@pytest.mark.parametrize("content", ["fused", pytest.param("fields", marks=needs_nulls)])
def test_another_order_costs_nothing(embedded, content, monkeypatch, tmp_path):
    wanted = VectorOptions(Content(content), rows=4)
    column = "vector" if content == "fused" else "vector_brand"
    shuffled = dict(sorted(shop().items(), key=lambda item: item[0][::-1])) | {"sku 99": shop()["sku 4"]}
    outs = []
    for most in (module._MANY, 1):  # files that a block reads by itself
        monkeypatch.setattr(module, "_MANY", most)
        out, _, _ = embedded(shop(), wanted, out=tmp_path / f"of {most}")
        before = vectors(out, column)
        _, plan, calls = embedded(shuffled, wanted, out=out)
        assert calls == [] and (plan.work.in_order is not None) == (most == 1)
        assert vectors(out, column) == before | {"sku 99": before["sku 4"]}
        outs.append(files(out))
    assert outs[0] == outs[1]


def test_fields_that_only_queries_weigh_count(embedded, encoder, monkeypatch, tmp_path):
    given = {"title": 0.5, "brand": 0.2, "note": 0.3}
    gate = QueryWeights(given, torch.randn(3, encoder.width, generator=torch.manual_seed(0)), torch.zeros(3))
    monkeypatch.setattr(encoder, "by_query", gate)
    out, _, _ = embedded(shop())
    searched = embed(encoder, stored(tmp_path / "again", shop()), "document").searched()
    assert np.abs(np.array([*vectors(out).values()]) - searched).max() < 1e-5
    changed = shop()
    changed["sku 4"]["note"] = "a field of weight 0 in the catalog"
    assert embedded(changed)[2] == [1]


def as_of_earlier_versions(path):
    """The file, saying that its vectors may lack numbers."""
    table = parquet.read_table(path)
    kinds = [pa.list_(kind.value_type, kind.list_size) if pa.types.is_fixed_size_list(kind) else kind
             for kind in table.schema.types]  # fmt: skip
    kept = [field.with_type(kind) for field, kind in zip(table.schema, kinds, strict=True)]
    parquet.write_table(table.cast(pa.schema(kept, table.schema.metadata)), path)
    index = json.loads((path.parent / INDEX).read_text())
    (block,) = (block for block in index["blocks"] if block["name"] == path.name)
    block |= {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    (path.parent / INDEX).write_text(json.dumps(index))


@needs_nulls
@pytest.mark.parametrize("earlier", [0, -1])
def test_files_of_earlier_versions_lie_beside_newer_ones(embedded, tmp_path, earlier):
    lance = pytest.importorskip("lance")
    wanted = VectorOptions(Content.fields, rows=8)
    out, _, _ = embedded(shop(), wanted)
    written, paths = vectors(out, "vector_brand"), sorted(out.glob("*.parquet"))
    assert None in written.values() and len(paths) > 2
    as_of_earlier_versions(paths[earlier])
    assert len({str(parquet.read_schema(path).field("vector_brand")) for path in paths}) == 2
    assert vectors(out, "vector_brand") == written and parquet.read_table(paths)["id"].to_pylist() == [*written]
    assert sum(len(ids) for path in paths for ids, _ in vector_batches(path, "vector_brand")) == 20
    write_lance(paths, tmp_path / "documents.lance")
    table = lance.dataset(str(tmp_path / "documents.lance")).to_table()
    assert dict(zip(table["id"].to_pylist(), table["vector_brand"].to_pylist(), strict=True)) == written
    changed = {"sku 0": {"title": "another"}, "sku 29": {"title": "the last"}}
    assert embedded(shop() | changed, wanted, out=out)[2] == [1, 1]
    again = vectors(out, "vector_brand")
    assert {name: again[name] for name in again.keys() - changed} == {
        name: written[name] for name in written.keys() - changed
    }


def test_a_lance_data_set_has_the_same_rows(embedded):
    lance = pytest.importorskip("lance")
    out, _, _ = embedded(shop())
    written = vectors(out)
    write_lance(sorted(out.glob("*.parquet")), out / "documents.lance")
    table = lance.dataset(str(out / "documents.lance")).to_table()
    assert dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True)) == written


def words_of(finished, shop, out, *words):
    where = ["--config-dir", str(shop / "conf"), "data=shop"]
    return ["embed", *where, f"run={finished.path}", f"out={out}", "rows=4", "trainer.accelerator=cpu", *words]


DIES = """
import os, signal
from gcl.cli import main

def replace(source, target, replace=os.replace):
    if str(target).endswith("documents-00003.parquet"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = replace
main()
"""


@pytest.mark.slow
def test_a_command_that_is_killed_before_a_block_has_its_name_goes_on(finished, shop, tmp_path):
    main(words_of(finished, shop, tmp_path / "whole", f"cache_dir={tmp_path}"))
    words = words_of(finished, shop, tmp_path / "killed", f"cache_dir={tmp_path}")
    killed = subprocess.run([sys.executable, "-c", DIES, *words], text=True, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(tmp_path.glob(".killed.*/*.parquet"))) == 3 and not (tmp_path / "killed").exists()
    main(words)
    assert files(tmp_path / "whole") == files(tmp_path / "killed")
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".killed")]) == 0
    shutil.rmtree(tmp_path / "whole")
