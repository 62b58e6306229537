"""The one path to embeddings: what it leaves as it was, what ranks cannot change, when the cache is right."""

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as distributed

from gcl.data.batches.batch import SideReader
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.files.arrays import ArrayCache
from gcl.retrieval.embedding.embed import EmbedOptions, embed, embedding_key
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Schema
from helpers.tiny_encoder import SCHEMA, documents, picture, tiny_encoder


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


def same(left, right) -> bool:
    return bool((left.embedding == right.embedding).all() and (left.present == right.present).all())


def test_is_what_the_encoder_says(encoder):
    records = documents(11)
    embedded = embed(encoder, records, "document", EmbedOptions(batch_size=4))
    assert embedded.embedding.shape == (11, 2, encoder.width) and embedded.embedding.dtype == np.float32
    batch = SideReader(records, SCHEMA.document, encoder.preprocess)(np.arange(11))
    encoder.eval()
    with torch.no_grad():
        fields, fused = encoder.embed_fields(batch, "document"), encoder(batch, "document")
    assert torch.allclose(torch.from_numpy(embedded.embedding), fields, atol=1e-5)
    assert torch.allclose(torch.from_numpy(embedded.fused()), fused, atol=1e-5)
    assert (embedded.present == batch.present.numpy()).all()
    assert (embedded.embedding[~embedded.present] == 0).all()


def test_leaves_modes_and_randomness_alone(encoder):
    encoder.train()
    encoder.model.visual.eval()  # as a frozen tower would be
    before = {name: module.training for name, module in encoder.named_modules()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    embed(encoder, documents(5), "document", EmbedOptions(batch_size=2))
    assert torch.equal(torch.rand(3), expected)
    assert {name: module.training for name, module in encoder.named_modules()} == before
    assert not torch.is_inference_mode_enabled()

    broken = ListRecords(["d"], [{"image": b"no image"}], SCHEMA.document)
    with pytest.raises(ValueError, match="id 'd'"):
        embed(encoder, broken, "document")
    assert {name: module.training for name, module in encoder.named_modules()} == before
    encoder.eval()


def test_rows_of_a_store_are_the_store_s_rows(tmp_path, encoder):
    records = documents(12)
    with ShardWriter(tmp_path, "documents", side=SCHEMA.document) as writer:
        for identifier, record in zip(records.ids, records.records, strict=True):
            writer.write(identifier, record)
    store = RecordStore(tmp_path, "documents", SCHEMA.document)
    rows = np.array([7, 2, 11, 3])
    part = embed(encoder, store.subset(rows), "document", EmbedOptions(batch_size=4))
    assert same(part, embed(encoder, records.subset(rows), "document", EmbedOptions(batch_size=4)))
    assert same(part, embed(encoder, store.subset(rows), "document", EmbedOptions(batch_size=4, workers=2)))
    features = {"title": np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)}
    with pytest.raises(ValueError, match="trunk is being trained"):  # so the features did arrive
        embed(encoder, store.subset(rows), "document", EmbedOptions(features={"document": features}))
    assert len(embed(encoder, store.subset(rows[:0]), "document")) == 0


def test_weights(encoder):
    embedded = embed(encoder, documents(10), "document")
    both = embedded.present.all(axis=1)
    only_title = embedded.take(np.flatnonzero(embedded.present[:, 1])).fused({"title": 1.0})
    assert np.allclose(only_title, embedded.embedding[embedded.present[:, 1], 1], atol=1e-6)
    assert np.array_equal(embedded.fused(), embedded.fused({"image": 0.9, "title": 0.1}))
    assert np.array_equal(embedded.fused([1, 3]), embedded.fused({"image": 1, "title": 3}))
    assert both.any() and not np.allclose(embedded.fused([1, 3])[both], embedded.fused([3, 1])[both])
    with pytest.raises(ValueError, match="records have no field of positive weight, the first is row 2"):
        embedded.fused({"image": 1.0})
    with pytest.raises(ValueError, match="no field 'imgae'"):
        embedded.fused({"imgae": 1.0})
    with pytest.raises(ValueError, match="3 weights for the 2 fields image, title"):
        embedded.fused([1, 2, 3])


def test_cache_returns_the_same_bits_without_the_encoder(tmp_path, encoder, monkeypatch):
    first = embed(encoder, documents(9), "document", EmbedOptions(cache=ArrayCache(tmp_path)))
    monkeypatch.setattr(type(encoder), "embed_fields", None)
    again = embed(encoder, documents(9), "document", EmbedOptions(cache=ArrayCache(tmp_path)))
    assert same(first, again) and np.array_equal(first.fused(), again.fused())
    assert len(list(tmp_path.glob("*.npy"))) == 1
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-7])  # cut by a full disk: made anew
    monkeypatch.undo()
    assert same(first, embed(encoder, documents(9), "document", EmbedOptions(cache=ArrayCache(tmp_path))))
    assert not list(tmp_path.glob("*.partial"))


def test_cache_key_changes_with_everything_that_matters_and_nothing_else(encoder):
    records, fields = documents(6), SCHEMA.document
    key = embedding_key(encoder, records, fields)
    assert key == embedding_key(tiny_encoder(), documents(6), SCHEMA.document)
    renamed = ListRecords([f"x{name}" for name in records.ids], records.records, fields)
    assert key == embedding_key(encoder, renamed, fields)  # ids are no content
    heavier = {**fields, "title": replace(fields["title"], weight=5.0)}
    assert key == embedding_key(encoder, records, heavier)  # weights come after the embeddings

    other_image = [{**record} for record in records.records]
    other_image[0]["image"] = picture(999)
    swapped = [records.records[row] for row in (1, 0, 2, 3, 4, 5)]
    other_prompt = {**fields, "title": replace(fields["title"], prompt="{}")}
    nudged, other_pixels = tiny_encoder(), tiny_encoder()
    with torch.no_grad():
        nudged.model.logit_scale.add_(1.0)  # no embedding knows the temperature
        assert key == embedding_key(nudged, records, fields)
        next(nudged.model.visual.parameters()).view(-1)[0].mul_(1 + 1e-6)
    other_pixels.preprocess = replace(other_pixels.preprocess, resize="longest")
    keys = {
        key,
        embedding_key(nudged, records, fields),
        embedding_key(other_pixels, records, fields),
        embedding_key(encoder, ListRecords(records.ids, other_image, fields), fields),
        embedding_key(encoder, ListRecords(records.ids, swapped, fields), fields),
        embedding_key(encoder, records.subset(np.arange(5)), fields),
        embedding_key(encoder, records, other_prompt),
        embedding_key(encoder, records, fields, block=32),
    }
    assert len(keys) == 8


def test_what_is_larger_than_memory_may_be_is_mapped_and_has_the_same_bits(tmp_path, encoder):
    """With a limit of 0 bytes everything is: embeddings, parts of them and fused vectors, kept or not."""
    records, rows = documents(21), np.array([20, 3, 7])
    small = embed(encoder, records, "document", EmbedOptions(batch_size=4))
    for place in ({"cache": ArrayCache(tmp_path / "kept")}, {"scratch": tmp_path / "scratch"}, {}):
        for _ in range(2):
            large = embed(encoder, records, "document", EmbedOptions(batch_size=4, in_memory=0, **place))
            assert same(small, large) and isinstance(large.embedding, np.memmap)
            assert isinstance(large.fused(), np.memmap) and np.array_equal(large.fused(), small.fused())
            part = large.take(rows)
            assert isinstance(part.embedding, np.memmap) and np.array_equal(part.fused(), small.fused()[rows])
    assert not list((tmp_path / "scratch").iterdir())  # files without a name
    assert len(list((tmp_path / "kept").iterdir())) == 1  # nothing half finished


def test_a_large_corpus_is_never_in_memory_as_a_whole(tmp_path):
    """Growth of this process's own memory while 180 MiB of embeddings are made, fused and searched."""
    code = """
import sys, numpy as np, torch
from pathlib import Path
from gcl.files.arrays import ArrayCache
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.tasks.task import ListRecords
from gcl.retrieval.search.search import search
from gcl.schema import Field, Schema

class Pieces:
    def text(self, texts): return torch.tensor([[len(t) % 97, len(t) % 89] for t in texts])

class Wide(torch.nn.Module):
    width, preprocess, schema = 768, Pieces(), Schema({"q": Field()}, {"t": Field()})
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(128, 768)
    def embed_fields(self, batch, side):
        return torch.nn.functional.normalize(self.table(batch.fields["t"]).sum(1), dim=-1)[:, None]

def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024

records = ListRecords([str(n) for n in range(60000)], [{"t": "x" * (n % 90 + 1)} for n in range(60000)], {"t": Field()})
encoder = Wide()
embed(encoder, records.subset(range(64)), "document")
search(np.ones((2, 768), np.float32), np.ones((4000, 768), np.float32), 5, rank=np.arange(4000))
before = anonymous()
cache = ArrayCache(Path(sys.argv[1]))
embedded = embed(encoder, records, "document", EmbedOptions(batch_size=256, cache=cache, in_memory=1 << 20))
fused = embedded.fused()
search(fused[:2], fused, 5, rank=np.arange(60000))
print(anonymous() - before, embedded.embedding.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    grown, size = map(int, done.stdout.split())
    assert size > 170 << 20 and grown < size / 2, (grown, size)


def test_a_cache_that_has_grown_too_large_forgets_what_was_used_longest_ago(tmp_path, encoder, monkeypatch):
    size = embed(encoder, documents(9), "document").embedding.nbytes
    cache = ArrayCache(tmp_path, limit=2 * size + 1000)
    for count in (9, 10, 9):
        embed(encoder, documents(count), "document", EmbedOptions(cache=cache))
        time.sleep(0.02)
    embed(encoder, documents(8), "document", EmbedOptions(cache=cache))
    assert len(list(tmp_path.glob("*.npy"))) == 2
    with monkeypatch.context() as forbidden:
        forbidden.setattr(type(encoder), "embed_fields", None)
        embed(encoder, documents(9), "document", EmbedOptions(cache=cache))
        with pytest.raises(TypeError):
            embed(encoder, documents(10), "document", EmbedOptions(cache=cache))
    small = ArrayCache(tmp_path / "none", limit=10)  # smaller than the embeddings
    embed(encoder, documents(9), "document", EmbedOptions(cache=small))
    assert not (tmp_path / "none").exists() or not list((tmp_path / "none").glob("*.npy"))


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path, encoder, caplog):
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level("WARNING", logger="gcl"):
        embedded = embed(encoder, documents(5), "document", EmbedOptions(cache=ArrayCache(tmp_path / "file")))
    assert same(embedded, embed(encoder, documents(5), "document"))
    assert "could not be kept" in caplog.text


def one_rank(rank: int, world: int, file: str, cache: str, results) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    encoder = tiny_encoder()
    embedded = [embed(encoder, documents(count), "document", EmbedOptions(batch_size=4)) for count in (14, 3)]
    embedded.append(
        embed(encoder, documents(14), "document", EmbedOptions(batch_size=4, cache=ArrayCache(Path(cache))))
    )
    embedded.append(
        embed(encoder, documents(14), "document", EmbedOptions(batch_size=4, cache=ArrayCache(Path(cache))))
    )
    broken = documents(14)
    broken.records[13] = {"image": b"no image"}  # in the last rank's share
    try:
        embed(encoder, broken, "document", EmbedOptions(batch_size=4))
    except (ValueError, RuntimeError) as error:
        key = embedding_key(encoder, documents(4), SCHEMA.document)
        results.put((key, [(f.embedding, f.present) for f in embedded], str(error)))
    distributed.destroy_process_group()


def test_ranks_get_the_bits_of_one_process(tmp_path, encoder):
    context, world = multiprocessing.get_context("spawn"), 2
    results = context.Queue()
    arguments = [(rank, world, str(tmp_path / "meet"), str(tmp_path / "cache"), results) for rank in range(world)]
    processes = [context.Process(target=one_rank, args=given) for given in arguments]
    for process in processes:
        process.start()
    answers = [results.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    alone = [embed(encoder, documents(count), "document", EmbedOptions(batch_size=4)) for count in (14, 3, 14, 14)]
    for key, embedded, error in answers:
        assert key == embedding_key(encoder, documents(4), SCHEMA.document)  # no trace of a process in it
        assert "id 'd013'" in error
        for (embedding, present), expected in zip(embedded, alone, strict=True):
            assert (embedding == expected.embedding).all() and (present == expected.present).all()


def test_side_without_images_needs_none(encoder):
    schema = Schema(query=SCHEMA.query, document={"title": Field()})
    records = ListRecords(["a", "b"], [{"title": "red mug"}, {"title": "blue mug"}], schema.document)
    assert embed(encoder.with_schema(schema), records, "document").embedding.shape == (2, 1, encoder.width)


def test_a_long_embedding_goes_on_at_the_first_part_that_is_not_kept(tmp_path, monkeypatch):
    """Killed after ten of eighteen blocks, eight are kept as two parts; a damaged part is made again."""
    encoder, options = tiny_encoder(), EmbedOptions(batch_size=1, cache=ArrayCache(tmp_path))
    whole, calls = embed(encoder, documents(18), "document", EmbedOptions(batch_size=1)), []
    embed_fields = encoder.embed_fields

    def counted(batch, side):
        calls.append(side)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return embed_fields(batch, side)

    monkeypatch.setattr(encoder, "embed_fields", counted)
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, documents(18), "document", options)
    _, second = sorted(tmp_path.glob("*.npy"))
    content = bytearray(second.read_bytes())
    content[200] ^= 1
    second.write_bytes(content)
    calls[:] = [None] * 11  # the eleventh was the last to fail
    assert same(whole, embed(encoder, documents(18), "document", options))
    assert len(calls) == 11 + 18 - 4  # one part was read
    assert len(list(tmp_path.glob("*.npy"))) == 1  # the whole alone is left
