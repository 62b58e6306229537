import io

import numpy as np
import pytest
import torch
from PIL import Image

from gcl.data.batches.batch import SideReader
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.model.features import cached_features
from gcl.model.load import load_model
from gcl.schema import Field, Modality


def picture(seed):
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
            writer.write(f"p{row}", {"image": seed and picture(seed), "title": text, "brand": "cotton"})
    return RecordStore(tmp_path / "store", "documents", schema.document)


@pytest.fixture()
def frozen(folders, schema):
    encoder = load_model(f"local-dir:{folders['bert']}", schema=schema).train()
    for modality in Modality:
        part = encoder.tower(modality)
        for piece in part.trunk_parts:
            piece.requires_grad_(False)
    return encoder


def test_cached_equals_raw(frozen, records, tmp_path, schema):
    features = {
        name: cached_features(frozen, records, name, field, tmp_path / "cache", batch_size=3, progress=False)
        for name, field in schema.document.items()
    }
    rows = np.array([9, 0, 3, 5, 1, 2, 2])
    raw = SideReader(records, schema.document, frozen.preprocess)(rows)
    cached = SideReader(records, schema.document, frozen.preprocess, features)(rows)
    frozen.eval()
    torch.testing.assert_close(frozen(cached, "document"), frozen(raw, "document"), atol=1e-5, rtol=0)
    for name, value in features.items():
        assert value.dtype == np.float32 and len(value) == len(records)
        absent = ~records.subset(np.arange(10)).present(np.arange(10))[:, list(schema.document).index(name)]
        assert not value[absent].any() and value[~absent].any(axis=1).all()


def test_equal_contents_are_computed_once_and_a_second_call_computes_nothing(frozen, records, tmp_path, monkeypatch):
    seen = []
    compute = type(frozen).trunk_features
    monkeypatch.setattr(type(frozen), "trunk_features", lambda self, m, v: seen.append(len(v)) or compute(self, m, v))
    field = frozen.schema.document["image"]
    first = cached_features(frozen, records, "image", field, tmp_path, batch_size=4, progress=False)
    assert seen == [1, 4, 2]  # the width is asked for with a blank image
    again = cached_features(frozen, records, "image", field, tmp_path, batch_size=4, progress=False)
    assert seen == [1, 4, 2] and np.array_equal(first, again)
    assert [path.suffix for path in tmp_path.glob("features-*")] == [".npy"]


def test_whatever_changes_the_features_changes_the_file(frozen, records, tmp_path, folders, schema):
    def call(encoder=frozen, records=records, name="title", field=None):
        cached_features(encoder, records, name, field or Field(Modality.text), tmp_path / "c", progress=False)
        return len(list((tmp_path / "c").iterdir()))

    assert call() == 1 and call() == 1
    assert call(field=Field(Modality.text, prompt="a photo of {}")) == 2
    assert call(records=records.subset(np.arange(5))) == 3
    shorter = load_model(f"local-dir:{folders['bert']}", schema=schema, context_length=8)
    shorter.model.requires_grad_(False)
    assert call(encoder=shorter) == 4
    with torch.no_grad():
        frozen.model.text.transformer.embeddings.word_embeddings.weight[7, 0] += 1e-3
    assert call() == 5
    frozen.model.text.proj.weight.data += 1  # the head has no part in it
    assert call() == 5
    image = Field(Modality.image)
    assert call(name="image", field=image) == 6
    frozen.preprocess.resize = "longest"
    assert call(name="image", field=image) == 7


def test_an_interrupted_computation_leaves_nothing(frozen, records, tmp_path, monkeypatch):
    monkeypatch.setattr("gcl.model.features._COPIED_ROWS", 0)  # fails after the distinct rows are written
    with pytest.raises(ValueError):
        cached_features(frozen, records, "image", frozen.schema.document["image"], tmp_path, progress=False)
    assert not list(tmp_path.glob("features-*"))


def test_a_trained_trunk_has_no_features_to_keep(tiny, records, tmp_path):
    with pytest.raises(ValueError, match="being trained"):
        cached_features(tiny, records, "image", tiny.schema.document["image"], tmp_path)


def test_no_row_has_the_field(frozen, tmp_path, schema):
    with ShardWriter(tmp_path / "store", "documents", side=schema.document) as writer:
        writer.write("p", {"image": None, "title": "mug", "brand": "a"})
    store = RecordStore(tmp_path / "store", "documents", schema.document)
    value = cached_features(frozen, store, "image", schema.document["image"], tmp_path, progress=False)
    assert value.shape[0] == 1 and value.shape[1] > 1 and not value.any()
