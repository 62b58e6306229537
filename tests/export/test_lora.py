"""Adapters: nothing else moves, the merged model is the adapted one, and a run with them is a run like any other."""

import json

import pytest
import torch
from torch import nn

from gcl.cli import main
from gcl.config.compose import Overrides
from gcl.errors import ConfigError
from gcl.exports.formats.open_clip import export_open_clip
from gcl.lit.checkpoint import read_checkpoint
from gcl.model.load import load_model
from gcl.model.lora import OpenAttention, add_adapters, describe, merge_adapters
from gcl.model.settings import LoraConfig
from gcl.run.contestants import base_and_tuned, tuned_encoder
from gcl.schema import Field, Modality, Schema
from helpers.trained_shop import dies_after
from helpers.transformers_models import write_family

SCHEMA = Schema(query={"query": Field(Modality.text)}, document={"image": Field(Modality.image)})
LORA = "model.lora={rank: 4, alpha: 8}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: write_family(family, tmp_path_factory.mktemp(family)) for family in ("clip", "siglip-B")}


def load(folders, family):
    torch.manual_seed(0)
    name = family if family.startswith("gcl-") else f"local-dir:{folders[family]}"
    return load_model(name, schema=SCHEMA).eval()


def vectors(encoder):
    texts = encoder.preprocess.text(["red shoes", "", "a mug " * 40])
    pixels = torch.randint(0, 256, (3, 3, *encoder.preprocess.size), generator=torch.Generator().manual_seed(0))
    inputs = {Modality.text: texts, Modality.image: pixels.to(torch.uint8)}
    with torch.no_grad():
        found = [encoder.tower(m).head(encoder.trunk_features(m, value)) for m, value in inputs.items()]
    return nn.functional.normalize(torch.cat(found), dim=-1)


def disturb(encoder):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.mark.parametrize("family", ["clip", "siglip-B", "gcl-tiny"])
def test_merged_is_adapted_and_new_adapters_are_nothing(folders, family):
    encoder = load(folders, family)
    layout = [(name, tuple(value.shape)) for name, value in encoder.state_dict().items()]
    kinds = {name: type(module) for name, module in encoder.named_modules()}
    before = vectors(encoder)
    add_adapters(encoder, LoraConfig(rank=4))
    assert (vectors(encoder) - before).abs().max() < 1e-6, "adapters begin as nothing"
    disturb(encoder)
    adapted = vectors(encoder)
    assert (adapted - before).abs().max() > 1e-3
    merge_adapters(encoder)
    assert (vectors(encoder) - adapted).abs().max() < 1e-5
    assert [(name, tuple(value.shape)) for name, value in encoder.state_dict().items()] == layout
    assert {name: type(module) for name, module in encoder.named_modules()} == kinds
    assert encoder.adapters is None and merge_adapters(encoder) is encoder


def test_only_adapters_and_projections_are_trained(folders):
    encoder = load(folders, "clip")
    add_adapters(encoder, LoraConfig(rank=2))
    trained = {name for name, p in encoder.model.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"text_projection", "visual.proj"}
    before = {name: p.detach().clone() for name, p in encoder.model.named_parameters()}
    disturb(encoder)
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-2)
    encoder.train()
    tokens = encoder.preprocess.text(["a", "b c", "red mug"])
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    for modality, value in ((Modality.text, tokens), (Modality.image, pixels)):
        out = encoder.tower(modality).head(encoder.trunk_features(modality, value))
        out.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in encoder.model.named_parameters() if n in trained
    )
    optimizer.step()
    changed = {n for n, p in encoder.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trained, "the frozen weights stay as they are, to the bit"
    without = load(folders, "clip")
    add_adapters(without, LoraConfig(rank=2, heads=False))
    assert all("lora_" in name for name, p in without.model.named_parameters() if p.requires_grad)


def test_the_attention_of_open_clip_is_adapted_and_stays_put(folders):
    """Calls do not move a frozen weight by a single bit: nothing is added to it and taken away again."""
    encoder = load(folders, "clip")
    adapters = add_adapters(encoder, LoraConfig(rank=4))
    assert sum(isinstance(m, OpenAttention) for m in encoder.modules()) == 4 and len(adapters.closed) == 4
    disturb(encoder)
    frozen = {n: p.detach().clone() for n, p in encoder.named_parameters() if not p.requires_grad}
    first = vectors(encoder)
    for _ in range(5):
        assert torch.equal(vectors(encoder), first)
    assert all(torch.equal(p, frozen[n]) for n, p in encoder.named_parameters() if n in frozen)
    assert "6 layers of the text tower and 6 layers of the image tower" in describe(encoder)


def test_targets(folders):
    encoder = load(folders, "siglip-B")
    adapters = add_adapters(encoder, LoraConfig(8, targets=["qkv", "visual.trunk.blocks.0.mlp.*"]))
    assert all(name.startswith("visual.trunk.blocks.") for name in adapters.names) and len(adapters.names) == 4
    assert "none of the text tower" in describe(encoder)
    assert encoder.frozen_trunk(Modality.text) and not encoder.frozen_trunk(Modality.image)
    convolutions = load(folders, "gcl-tiny")
    add_adapters(convolutions, LoraConfig(8, targets=["visual.trunk.*"]))
    disturb(convolutions)
    adapted = vectors(convolutions)
    assert (vectors(merge_adapters(convolutions)) - adapted).abs().max() < 1e-5


@pytest.mark.parametrize(
    "options, told",
    [
        ({"rank": 0}, "at least 1"),
        ({"dropout": 1.0}, "model.lora.dropout=1.0: a number of at least 0 and below 1"),
        ({"alpha": 0}, "model.lora.alpha=0: a number above 0"),
        ({"targets": ["qvk"]}, "no layer of .* is named 'qvk'. Nearest: .*qkv"),
    ],
)
def test_impossible_adapters_are_refused(folders, options, told):
    with pytest.raises(ValueError, match=told):
        add_adapters(load(folders, "siglip-B"), LoraConfig(**{"rank": 8, **options}))
    encoder = load(folders, "clip")
    add_adapters(encoder, LoraConfig(8))
    with pytest.raises(ConfigError, match="already has adapters"):
        add_adapters(encoder, LoraConfig(8))


def losses(run):
    lines = (run.path / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    return [float(cells[column]) for line in lines[1:] if (cells := line.split(","))[column]]


@pytest.fixture(scope="module")
def adapted(train):
    return train(LORA, "train.validate_every=3 steps")


def test_a_run_with_adapters(adapted, shop, tmp_path):
    """Trained, measured, exported merged: the folder is a plain model that computes what was measured."""
    state = read_checkpoint(adapted.best)["state_dict"]
    assert any("lora_A" in name for name in state)
    base, tuned = (entry.encoder for entry in base_and_tuned(adapted))
    assert not any("lora" in name for name in tuned.state_dict())
    moved = {n for n, v in tuned.state_dict().items() if not torch.equal(v, base.state_dict()[n])}
    assert moved and all("visual.trunk" not in name for name in moved), "a tower of convolutions has no linear layer"
    main(["evaluate", f"run={adapted.path}", f"out={tmp_path / 'again'}"])
    measured = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert measured["tuned"] == json.loads(adapted.metrics.read_text())["tuned"]
    export_open_clip(tuned_encoder(adapted), tmp_path / "out")
    again = load_model(f"local-dir:{tmp_path / 'out'}", schema=SCHEMA).eval()
    assert torch.allclose(vectors(again), vectors(tuned_encoder(adapted, SCHEMA)), atol=1e-6)


@pytest.mark.slow
def test_micro_batches_and_resume_are_exact_with_adapters(adapted, train, tmp_path):
    words = (LORA, "train.checkpoint_every=3", "train.validate_every=6 steps")
    whole = losses(train(*words))
    assert len(whole) == 6 and losses(adapted) == whole, "the same run twice"
    assert losses(train(LORA, "train.micro_batch=5")) == pytest.approx(whole, abs=2e-5)
    with dies_after(3):
        train(*words, run_dir=tmp_path / "run")
    resumed = train(*words, "train.resume=auto", run_dir=tmp_path / "run")
    assert losses(resumed)[-3:] == whole[-3:], "resumed from step 3, to the bit"
    ends = [
        read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (resumed.path, adapted.path)
    ]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_freezing_what_lora_adds_is_told(train, capsys):
    with pytest.raises(SystemExit):
        train(LORA, "optim.freeze=['text.transformer.*']")
    assert "optim.freeze=[]" in capsys.readouterr().err


def test_a_misspelt_word_of_it_is_told_with_the_right_one():
    with pytest.raises(ConfigError, match="no setting 'model.lora.rnk'. Did you mean model.lora.rank"):
        Overrides(["model.lora={rnk: 4}"]).config()
    assert Overrides(["model.lora={rank: 4}"]).config().model.lora.alpha == 16
