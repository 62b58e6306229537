"""Heads on frozen towers: they begin as the model's own, read the stages as loops do, and linear's caches stay."""

import copy
import math

import numpy as np
import open_clip
import pytest
import torch
from test_features import png

from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.errors import ConfigError
from gcl.files.arrays import ArrayCache
from gcl.model.features import cached_features, statistics
from gcl.model.heads import reading_stages, stages_of
from gcl.model.load import load_model
from gcl.model.settings import Head, LoadOptions, LoraConfig, ModelConfig
from gcl.optim.settings import OptimConfig
from gcl.run.build import freeze_parts
from gcl.schema import Field, Images, Modality, Schema

FAMILIES = ["clip", "custom", "siglip", "bert"]  # open_clip's ViT in CLIP and beside a text tower, timm, Hugging Face
TOWERS = {"ViT": "test_vit", "EfficientNet": "test_efficientnet", "ResNet": "test_resnet", "ConvNeXt": "test_convnext"}


def pixels(encoder, count=3):
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *encoder.preprocess.size), dtype=torch.uint8, generator=random)


def images(encoder, value):
    part = encoder.required_tower(Modality.image)
    return part.head(encoder.trunk_features(Modality.image, value))


def with_head(folders, family, schema, kind):
    return load_model(f"local-dir:{folders[family]}", schema=schema, options=LoadOptions(head=kind)).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [Head.mlp, Head.stages])
@torch.no_grad()
def test_a_head_begins_as_the_models_own(folders, schema, family, kind):
    own, encoder = with_head(folders, family, schema, Head.linear), with_head(folders, family, schema, kind)
    value = pixels(own)
    torch.testing.assert_close(images(encoder, value), images(own, value), rtol=1e-4, atol=1e-5)
    if kind is Head.stages:
        head, features = encoder.model.visual.head, encoder.trunk_features(Modality.image, value)
        assert head.lacks_statistics
        head.standardise(features.mean(0), features.std(0, unbiased=False))
        assert not head.lacks_statistics
        torch.testing.assert_close(images(encoder, value), images(own, value), rtol=1e-4, atol=1e-4)
    assert isinstance(encoder.model.visual.head.mlp.fc2, torch.nn.Linear) and encoder.width == own.width
    assert encoder.model.encode_text(own.preprocess.text(["red"])).equal(
        own.model.encode_text(own.preprocess.text(["red"]))
    )


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_stages_are_what_loops_over_positions_say(tower):
    torch.manual_seed(0)
    visual = open_clip.timm_model.TimmModel(TOWERS[tower], 8, 64).eval()
    image, trunk = torch.randn(2, 3, *visual.trunk.default_cfg["input_size"][1:]), visual.trunk
    outputs = {}
    hooks = [m.register_forward_hook(lambda m, i, o, n=n: outputs.update({n: o})) for n, m in trunk.named_modules()]
    own = trunk(image)
    for hook in hooks:
        hook.remove()
    expected = own.tolist()
    for name in stages_of(visual):
        value = outputs[name].double()
        value = value[:, trunk.num_prefix_tokens :] if value.ndim == 3 else value.flatten(2).mT
        for row, positions in zip(expected, value, strict=True):
            channels = positions.T.tolist()
            means = [math.fsum(channel) / len(channel) for channel in channels]
            row += means
            for channel, mean in zip(channels, means, strict=True):
                row.append(math.sqrt(math.fsum((x - mean) ** 2 for x in channel) / len(channel)))
    features = reading_stages(visual, trunk)(image)
    torch.testing.assert_close(features, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert features.shape[1] > own.shape[1] and not any(m._forward_hooks for m in trunk.modules())


def test_which_stages_are_read():
    def names(model):
        visual = open_clip.timm_model.TimmModel(model, 8, 64)
        return list(stages_of(visual))

    assert names("tf_efficientnet_lite0") == ["bn1", *(f"blocks.{n}" for n in range(7))]
    assert names("convnext_atto")[0] == "stem" and len(names("convnext_atto")) == 5
    assert names("resnet18")[1:] == ["layer1", "layer2", "layer3", "layer4"]
    deep = open_clip.transformer.VisionTransformer(16, 8, width=8, layers=24, heads=2, mlp_ratio=1, output_dim=4)
    assert list(stages_of(deep)) == [f"resblocks.{n}" for n in range(2, 24, 3)]
    with pytest.raises(ValueError, match=r"stages of a NaFlexVit|stages of a \w+ are not known; use model.head=mlp"):
        stages_of(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)))


def frozen(folders, schema, kind):
    encoder = with_head(folders, "custom", schema, kind)
    for modality in Modality:
        for part in encoder.tower(modality).trunk_parts:
            part.requires_grad_(False)
    return encoder


def test_mlp_reads_the_cache_of_linear_and_stages_has_its_own(folders, schema, tmp_path):
    with ShardWriter(tmp_path / "store", "documents", side=schema.document) as writer:
        for row in range(4):
            writer.write(f"p{row}", {"image": png(row) if row else None, "title": "mug", "brand": "a"})
    store, widths = RecordStore(tmp_path / "store", "documents", schema.document), []
    for kind, entries in ((Head.linear, 3), (Head.mlp, 3), (Head.stages, 4)):
        encoder = frozen(folders, schema, kind)
        features = cached_features(encoder, {"document": store}, ArrayCache(tmp_path / "c"), progress=False)["document"]
        assert len(list((tmp_path / "c").iterdir())) == entries
        widths.append(features["image"].shape[1])
    assert widths[0] == widths[1] < widths[2]
    mean, deviation = statistics(store, {"image": features["image"]}, np.arange(4))
    for column in range(widths[2]):
        values = [float(features["image"][row, column]) for row in (1, 2, 3)]
        assert mean[column] == pytest.approx(math.fsum(values) / 3, abs=1e-12)
        square = math.fsum((x - math.fsum(values) / 3) ** 2 for x in values) / 3
        assert deviation[column] == pytest.approx(math.sqrt(square), abs=1e-9)


def test_statistics_count_every_image_of_a_set_and_some_of_very_many(tmp_path, monkeypatch):
    side = {"image": Field(Modality.image, images=Images.all), "title": Field()}
    with ShardWriter(tmp_path / "store", "documents", side=side) as writer:
        for row, count in enumerate([2, 0, 1, 3]):
            writer.write(f"p{row}", {"image": tuple(map(png, range(count))), "title": "a"})
    store, features = RecordStore(tmp_path / "store", "documents", side), np.arange(6, dtype=np.float32)[:, None]
    mean, deviation = statistics(store, {"image": features}, np.array([0, 1, 3]))
    assert mean == pytest.approx(2.6) and deviation == pytest.approx(math.sqrt(3.44))  # of 0, 1, 3, 4, 5
    with pytest.raises(ValueError, match="No record of the training pairs has a value of image"):
        statistics(store, {"image": features}, np.array([1]))
    monkeypatch.setattr("gcl.model.features._MOST_DESCRIBED", 2)
    assert statistics(store, {"image": features}, np.arange(4))[0] == (0 + 1 + 2) / 3  # records 0 and 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_that_is_trained_is_refused_with_what_to_freeze(folders, schema, family):
    encoder = with_head(folders, family, schema, Head.stages)
    with pytest.raises(ConfigError, match="the text tower and the image tower are trained") as told:
        freeze_parts(encoder, OptimConfig())
    patterns = str(told.value).split("optim.freeze=[")[1].split("]")[0].split(", ")
    text = [pattern for pattern in patterns if not pattern.startswith("visual.")]
    with pytest.raises(ConfigError, match="the image tower is trained"):
        freeze_parts(copy.deepcopy(encoder), OptimConfig(freeze=text))
    freeze_parts(encoder, OptimConfig(freeze=patterns))
    trained = {name for name, p in encoder.model.named_parameters() if p.requires_grad}
    assert {name for name in trained if "visual" in name} == {
        f"visual.head.mlp.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight")
    }
    assert all("proj" in name for name in trained if "visual" not in name)  # the text tower's projection


def test_what_cannot_have_a_head_is_refused(folders, schema, bert_folder):
    with pytest.raises(ConfigError, match="model.head=mlp reads a frozen image tower, and model.lora.rank=4"):
        ModelConfig(label="a", name="gcl-tiny", head=Head.mlp, lora=LoraConfig(rank=4)).check()
    texts = Schema({"query": Field()}, {"title": Field()})
    with pytest.raises(ValueError, match="model.head=mlp: hf-text:.* has no image tower"):
        load_model(f"hf-text:{bert_folder}", schema=texts, options=LoadOptions(head=Head.mlp))
