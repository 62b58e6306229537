"""What makes a step fast is really used: fused attention, fused AdamW, channels_last where the model asks for it."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gcl.config.compose import Overrides, build
from gcl.data.batches.batch import SideBatch, rows_of
from gcl.model.load import load_model
from gcl.model.settings import LoadOptions
from gcl.run.build import choose_precision
from gcl.schema import Field, Modality, Schema


class Operators(TorchDispatchMode):
    """Names of all operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.__name__.split(".")[0])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("modality", list(Modality))
def test_attention_is_fused_in_both_towers(modality):
    """Both kinds of tower open_clip builds: its own and (for SigLIP) timm's; the loss needs a gradient through them."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    timm = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"}
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    for vision_cfg in (vision, timm):
        model = open_clip.CustomTextCLIP(embed_dim=16, vision_cfg=vision_cfg, text_cfg=text).train()
        with Operators() as seen:
            if modality is Modality.image:
                model.encode_image(torch.randn(2, 3, 32, 32)).sum().backward()
            else:
                model.encode_text(torch.randint(1, 50, (2, 8))).sum().backward()
        assert any("scaled_dot_product" in name for name in seen.names), sorted(seen.names)


def test_the_default_optimiser_is_fused():
    optimizer = build(Overrides([]).config().optim.optimizer)([torch.nn.Parameter(torch.zeros(2))])
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["fused"]


def test_convolutions_run_in_channels_last_where_the_model_asks_for_it():
    schema = Schema({"query": Field()}, {"image": Field(Modality.image)})
    encoder = load_model("gcl-tiny", schema=schema, options=LoadOptions(channels_last=True))
    kernels = [p for p in encoder.model.visual.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    pixels = encoder._pixels(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert Overrides(["model=tiny"]).config().model.channels_last


def test_cpus_compute_in_float32_unless_told_otherwise():
    assert choose_precision("auto", "cpu") == "32-true"
    assert choose_precision("bf16-mixed", "cpu") == "bf16-mixed"


@pytest.mark.parametrize("major, expected", [(7, "32-true"), (8, "bf16-mixed")])
def test_gpus_compute_in_bf16_where_they_have_it(monkeypatch, major, expected):
    """A card of 2018 only emulates bf16, slowly. What CUDA would say of the card is given here; the rest is PyTorch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert choose_precision("auto", "auto") == expected


def test_equal_images_and_texts_of_a_batch_are_encoded_once():
    schema = Schema({"query": Field()}, {"image": Field(Modality.image), "title": Field()})
    encoder = load_model("gcl-tiny", schema=schema).eval()
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=random)
    image[4] = image[1]
    image[5] = image[2]
    image[5, 0, 0, 1] ^= 1  # one bit of one byte, which no sample sees
    title = encoder.preprocess.text(["a mug", "a lamp", "a mug", "a mug", "a shoe", "a lamp"])
    seen = {}
    for name, part in (("image", encoder.model.visual.trunk), ("title", encoder.model.text.ln_final)):
        part.register_forward_hook(lambda _, given, __, name=name: seen.update({name: len(given[0])}))
    batch = SideBatch({"image": image, "title": title}, torch.ones(6, 2, dtype=torch.bool))
    found = encoder.embed_fields(batch, "document")
    assert seen == {"image": 5, "title": 3}
    alone = torch.cat([encoder.embed_fields(rows_of(batch, row, row + 1), "document") for row in range(6)])
    assert torch.allclose(found, alone, atol=1e-6)
    assert not torch.equal(found[2, 0], found[5, 0]) and torch.equal(found[1, 0], found[4, 0])
    encoder.train()
    encoder.embed_fields(batch, "document").sum().backward()  # the gradient goes through the rows that are shared
