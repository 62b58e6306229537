import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gcl.config.schema import RunConfig
from gcl.data.batches.batch import SideReader
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.files.arrays import ArrayCache
from gcl.model.features import cached_features
from gcl.model.load import load_model
from gcl.model.settings import LoadOptions, Resize
from gcl.run.measurement import frozen_features
from gcl.schema import Field, Modality, Schema


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


@pytest.fixture()
def records(tmp_path, schema):
    texts = ["blue mug", None, "red dress", "blue mug", "running shoes", None, "a mug", "red dress", "for men", "mug"]
    seeds = [1, 2, 1, None, 3, 4, 5, 2, None, 6]
    with ShardWriter(tmp_path / "store", "documents", side=schema.document) as writer:
        for row, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
            writer.write(f"p{row}", {"image": seed and png(seed), "title": text, "brand": "cotton"})
    return RecordStore(tmp_path / "store", "documents", schema.document)


@pytest.fixture()
def frozen(folders, schema):
    encoder = load_model(f"local-dir:{folders['bert']}", schema=schema).train()
    for modality in Modality:
        part = encoder.tower(modality)
        for piece in part.trunk_parts:
            piece.requires_grad_(False)
    return encoder


def features_of(encoder, records, folder, limit=1 << 30, **options):
    """{field: features} of the documents."""
    stores, cache = {"document": records}, ArrayCache(folder, limit)
    return cached_features(encoder, stores, cache, progress=False, **options)["document"]


def test_cached_equals_raw(frozen, records, tmp_path, schema):
    features = features_of(frozen, records, tmp_path / "cache", batch_size=3)
    rows = np.array([9, 0, 3, 5, 1, 2, 2])
    raw = SideReader(records, schema.document, frozen.preprocess)(rows)
    cached = SideReader(records, schema.document, frozen.preprocess, features)(rows)
    frozen.eval()
    torch.testing.assert_close(frozen(cached, "document"), frozen(raw, "document"), atol=1e-5, rtol=0)
    assert list(features) == list(schema.document)
    for name, value in features.items():
        assert value.dtype == np.float32 and len(value) == len(records)
        absent = ~records.subset(np.arange(10)).present(np.arange(10))[:, list(schema.document).index(name)]
        assert not value[absent].any() and value[~absent].any(axis=1).all()


def test_equal_contents_are_computed_once_and_a_second_call_computes_nothing(frozen, records, tmp_path, monkeypatch):
    seen = []
    compute = type(frozen).trunk_features
    monkeypatch.setattr(type(frozen), "trunk_features", lambda self, m, v: seen.append(len(v)) or compute(self, m, v))
    images = frozen.with_schema(Schema(frozen.schema.query, {"image": frozen.schema.document["image"]}))
    first = features_of(images, records, tmp_path / "c", batch_size=4)
    assert seen == [1, 4, 2]  # the width is asked for with a blank image
    again = features_of(images, records, tmp_path / "c", batch_size=4)
    assert seen == [1, 4, 2] and np.array_equal(first["image"], again["image"])
    assert [path.suffix for path in (tmp_path / "c").iterdir()] == [".npy"]


def test_whatever_changes_the_features_changes_the_file(frozen, records, tmp_path, folders, schema):
    def call(encoder=frozen, records=records, name="title", field=None):
        reading = encoder.with_schema(Schema(schema.query, {name: field or Field(Modality.text)}))
        features_of(reading, records, tmp_path / "c")
        return len(list((tmp_path / "c").iterdir()))

    assert call() == 1 and call() == 1
    assert call(field=Field(Modality.text, prompt="a photo of {}")) == 2
    assert call(records=records.subset(np.arange(5))) == 3
    shorter = load_model(f"local-dir:{folders['bert']}", schema=schema, options=LoadOptions(context_length=8))
    shorter.model.requires_grad_(False)
    assert call(encoder=shorter) == 4
    with torch.no_grad():
        frozen.model.text.transformer.embeddings.word_embeddings.weight[7, 0] += 1e-3
    assert call() == 5
    frozen.model.text.proj.weight.data += 1  # the head has no part in it
    assert call() == 5
    image = Field(Modality.image)
    assert call(name="image", field=image) == 6
    frozen.preprocess.resize = Resize.longest
    assert call(name="image", field=image) == 7


def test_an_interrupted_computation_leaves_nothing(frozen, records, tmp_path, monkeypatch):
    monkeypatch.setattr("gcl.model.features._COPIED_ROWS", 0)  # fails after the distinct rows are written
    with pytest.raises(ValueError):
        features_of(frozen, records, tmp_path / "c")
    assert not list((tmp_path / "c").iterdir())


def test_a_trained_trunk_has_no_features_to_keep(tiny, records, tmp_path):
    assert features_of(tiny, records, tmp_path / "c") == {}
    assert not (tmp_path / "c").exists()


def test_no_row_has_the_field(frozen, tmp_path, schema):
    with ShardWriter(tmp_path / "store", "documents", side=schema.document) as writer:
        writer.write("p", {"image": None, "title": "mug", "brand": "a"})
    store = RecordStore(tmp_path / "store", "documents", schema.document)
    value = features_of(frozen, store, tmp_path / "cache")["image"]
    assert value.shape[0] == 1 and value.shape[1] > 1 and not value.any()


def test_features_used_longest_ago_make_room_but_never_those_in_use(frozen, records, tmp_path):
    folder = tmp_path / "cache"

    def entries():
        return {path.name: path.stat().st_atime for path in folder.iterdir()}

    whole = features_of(frozen, records, folder, limit=0)
    assert len(entries()) == len(whole) == 3, "features in use are kept whatever the limit"
    size = sum(path.stat().st_size for path in folder.iterdir())
    for number, name in enumerate(sorted(entries())):
        os.utime(folder / name, (number, number))
    before = entries()
    features_of(frozen, records.subset(np.arange(4)), folder, limit=size)
    gone = before.keys() - entries().keys()
    assert gone and gone == set(sorted(before, key=before.get)[: len(gone)]), "the least recently used goes first"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= size
    features_of(frozen, records.subset(np.arange(4)), folder, limit=0)
    assert len(entries()) == 3 and not before.keys() & entries().keys()


def test_cache_features_is_decided_in_one_place(frozen, records, tmp_path, schema, monkeypatch):
    reading = frozen.with_schema(Schema({"title": schema.document["title"]}, schema.document))
    prepared = SimpleNamespace(queries=records, documents=records)
    config = RunConfig(cache_dir=str(tmp_path))
    assert set(frozen_features(reading, prepared, config)["document"]) == set(schema.document)
    config.train.augment = True
    assert frozen_features(reading, prepared, config)["query"] and not frozen_features(
        reading, prepared, config, training=True
    )
    config.train.augment, config.train.cache_features = False, False
    monkeypatch.setattr("gcl.run.measurement.cached_features", None)  # nothing is computed or read
    assert frozen_features(reading, prepared, config) == frozen_features(reading, prepared, config, training=True) == {}
