"""A run's own image head leaves in the formats that have a place for it, and is refused by name in the others."""

import numpy as np
import pytest
import torch

from gcl.errors import ConfigError
from gcl.exports.formats.registry import FORMATS, choose, left_out
from gcl.model.load import load_model
from gcl.model.settings import Head, LoadOptions
from gcl.schema import Modality
from helpers.transformers_inputs import SCHEMA, TEXTS, embed, pictures

HEADED = [("siglip-B", Head.mlp), ("siglip-B", Head.stages), ("clip", Head.mlp), ("clip", Head.stages)]


def trained(small, family, kind):
    """A model of this family whose head is not what it began as."""
    torch.manual_seed(0)
    encoder = load_model(f"local-dir:{small(family).folder}", schema=SCHEMA, options=LoadOptions(head=kind)).eval()
    head = encoder.model.visual.head
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if kind is Head.stages:
        head.standardise(torch.randn_like(head.mean), torch.rand_like(head.mean))
    return encoder


def writes(encoder):
    return [format.name for format in choose(encoder, None)]


@pytest.mark.parametrize(("family", "kind"), HEADED)
def test_formats_without_a_place_for_it_are_refused_by_name(small, family, kind):
    encoder, timm = trained(small, family, kind), family == "siglip-B"
    assert writes(encoder) == (["open_clip", "onnx"] if timm and kind is Head.mlp else ["onnx"])
    told = {name: format.refuses(encoder) for name, format in FORMATS.items()}
    assert f"its image head is a model.head={kind}" in told["transformers"]
    unasked = [format for format in FORMATS.values() if not format.on_request]
    assert f"model.head={kind}" in told["sentence_transformers"]
    assert len(left_out(encoder)) == len(unasked) - len(writes(encoder))
    if "open_clip" not in writes(encoder):
        with pytest.raises(ConfigError, match=f"open_clip is not possible. The image head .model.head={kind}"):
            choose(encoder, ["open_clip"])


def test_open_clip_builds_two_layers_as_its_own(small, tmp_path):
    encoder, images = trained(small, "siglip-B", Head.mlp), [*pictures().values()]
    FORMATS["open_clip"].write(encoder, tmp_path)
    loaded = FORMATS["open_clip"].load(tmp_path)
    texts, vectors = embed(encoder, images=images)
    np.testing.assert_allclose(loaded.images(images), vectors, atol=1e-3)  # a pixel may differ by 1 of 255
    np.testing.assert_allclose(loaded.texts(TEXTS), texts, atol=1e-5)
    again = load_model(f"local-dir:{tmp_path}", schema=SCHEMA).eval()
    np.testing.assert_allclose(embed(again, images=images)[1], vectors, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), [HEADED[1], HEADED[2]])
def test_onnx_computes_what_the_run_does(small, family, kind, tmp_path):
    pytest.importorskip("onnxscript")
    encoder, images = trained(small, family, kind), [*pictures().values()]
    FORMATS["onnx"].write(encoder, tmp_path)
    loaded = FORMATS["onnx"].load(tmp_path)
    np.testing.assert_allclose(loaded.images(images), embed(encoder, images=images)[1], atol=1e-4)
    assert encoder.required_tower(Modality.image).stages or kind is Head.mlp
