"""A folder of transformers loads with the vectors of transformers, or is refused, whatever its configs say."""

import io
import json
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from gcl.model.load import load_model
from gcl.model.settings import LoadOptions
from gcl.model.transformers.read import to_open_clip
from gcl.schema import Field, Modality, Schema
from helpers import transformers_models
from helpers.transformers_models import HEADS, LAYERS, MLP, PATCH, WIDTH

SCHEMA = Schema({"query": Field()}, {"image": Field(Modality.image)})
SQUARE, OBLONG = {"height": 32, "width": 32}, {"height": 32, "width": 40}
SWITCH = [None, True, False, 0]
# Every key that changes pixels, with what files say there, rightly or not; absent, or as it is saved, besides.
VALUES = {
    "do_resize": SWITCH, "do_center_crop": SWITCH, "do_rescale": SWITCH, "do_normalize": SWITCH,
    "do_convert_rgb": SWITCH, "do_pad": SWITCH, "default_to_square": SWITCH,
    "rescale_factor": [None, 1 / 127.5, 1, 0.01, -1, "1/255"],
    "size": [32, SQUARE, {"shortest_edge": 32}, [32, 32], OBLONG, {"shortest_edge": 40}, {"longest_edge": 32},
             {"shortest_edge": 32, "longest_edge": 64}, 40, None],
    "crop_size": [32, SQUARE, [32, 32], 40, OBLONG, {"shortest_edge": 32}, None],
    "resample": [None, 0, 1, 2, 3, 4, 5, "bicubic", [3]],
    "image_mean": [0.4, 0, [0.1, 0.2, 0.3], [0.5, 0.5], None, "0.5"], "image_std": [0.3, 1, [0.5, 0.6, 0.7], 0, None],
    "image_processor_type": [
        "CLIPImageProcessor", "CLIPImageProcessorFast", "SiglipImageProcessor", "SiglipImageProcessorFast",
        "Siglip2ImageProcessor", "ConvNextImageProcessor", None,
    ],
    "feature_extractor_type": ["CLIPFeatureExtractor"], "do_flip_channel_order": [True, False],
}  # fmt: skip
OBEYED = {
    "as it is": {}, "no rgb": {"do_convert_rgb": None}, "one mean": {"image_mean": 0.4, "image_std": 0.3},
    "not normalised": {"do_normalize": False}, "another factor": {"rescale_factor": 1 / 127.5},
    "both": {"do_normalize": False, "rescale_factor": 0.01}, "not rescaled": {"do_rescale": False},
    "bilinear": {"resample": 2}, "squashed": {"size": SQUARE, "crop_size": SQUARE},
    "squashed, not cropped": {"size": SQUARE, "do_center_crop": False}, "not padded": {"do_pad": False},
    "numbers for sizes": {"size": 32, "crop_size": 32, "do_center_crop": True},
}  # fmt: skip
REFUSED = {
    "not resized": ({"do_resize": False}, "do_resize"), "padded": ({"do_pad": True}, "do_pad"),
    "nearest": ({"resample": 0}, "resample=0"), "not a switch": ({"do_normalize": "no"}, "do_normalize='no'"),
    "not cropped": ({"size": {"shortest_edge": 32}, "do_center_crop": False}, "do_center_crop"),
    "cropped from more": ({"size": {"shortest_edge": 40}}, "cannot resize images to 40"),
    "bounds": ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "longest_edge"),
    "flipped": ({"do_flip_channel_order": True}, "do_flip_channel_order"),
    "another class": ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
    "naflex": ({"image_processor_type": "Siglip2ImageProcessorFast", "max_num_patches": 256}, "NaFlex"),
    "no mean": ({"image_mean": None}, "image_mean=None"), "no deviation": ({"image_std": 0}, "image_std=0"),
    "negative": ({"rescale_factor": -1}, "rescale_factor"), "text": ({"image_mean": "0.5"}, "image_mean"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def towers():
    with transformers_models.known_towers():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small models as transformers saves them: CLIP, and SigLIP as version 1 and 2 (other tokenizers) are published."""
    tower = {"hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    vision, made = {**tower, "image_size": 32, "patch_size": PATCH}, {}
    for kind in ("clip", "siglip", "siglip2"):
        folder = made[kind] = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        if kind == "clip":
            text = {**tower, "max_position_embeddings": 77, "vocab_size": 49408, "eos_token_id": 49407}
            config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
            model, processor = CLIPModel(config), CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
        else:
            text, act = {**tower, "vocab_size": 400, "projection_size": WIDTH}, {"hidden_act": "gelu"}
            config = SiglipConfig(text_config={**text, **act}, vision_config={**vision, **act})
            model, processor = SiglipModel(config), SiglipImageProcessor(size=SQUARE)
            (transformers_models.write_t5 if kind == "siglip" else transformers_models.write_gemma)(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def images():
    """Twenty files of odd sizes; noise, so that one pixel more or less at an edge would show."""
    generator, made = np.random.default_rng(0), []
    for height, width in (2 * generator.integers(1, 60, (20, 2)) - 1).tolist():
        data = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(data, "PNG")
        made.append(data.getvalue())
    return made


def changed(folder, tmp_path, file="preprocessor_config.json", **change):
    copy = shutil.copytree(folder, tmp_path / "changed", dirs_exist_ok=True)
    path = copy / file
    path.write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    return copy


@torch.no_grad()
def ours(folder, images):
    encoder = load_model(f"local-dir:{folder}", schema=SCHEMA).eval()
    part = encoder.tower(Modality.image)
    pixels = encoder._pixels(torch.stack([encoder.preprocess.image(data) for data in images]))
    return part.head(part.trunk(pixels))


@torch.no_grad()
def theirs(model, folder, images):
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)  # Pillow's pixels, as ours
    opened = [Image.open(io.BytesIO(data)) for data in images]
    vectors = model.get_image_features(**processor(opened, return_tensors="pt"))
    return getattr(vectors, "pooler_output", vectors)


def assert_same(one, other, about=None):
    assert torch.nn.functional.cosine_similarity(one, other).min() >= 0.9999, about


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
@pytest.mark.parametrize("tries", [12, pytest.param(150, marks=pytest.mark.slow)])
def test_any_folder_gives_the_vectors_of_transformers_or_is_refused(folders, images, tmp_path, kind, tries):
    draw, model, loaded = random.Random(tries), AutoModel.from_pretrained(folders[kind]).eval(), 0
    saved = json.loads((folders[kind] / "preprocessor_config.json").read_text())
    for _ in range(tries):
        config = saved | draw.choice([*OBEYED.values()]) | draw.choice([*OBEYED.values()])
        for key in draw.sample([*VALUES], draw.choice([0, 1, 1, 2, 4])):
            config[key] = draw.choice(VALUES[key])
        for key in draw.sample([*config], draw.choice([0, 0, 0, 1, 2])):
            del config[key]
        folder = changed(folders[kind], tmp_path)
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
        try:
            vectors = ours(folder, images)
        except ValueError as refusal:
            missing = saved.keys() - config.keys()
            assert any(key in str(refusal) for key in (*config, *missing)), json.dumps(config)
            continue
        assert_same(vectors, theirs(model, folder, images), json.dumps(config))
        loaded += 1
    assert loaded >= tries / 6, "nearly everything was refused"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("what", OBEYED)
def test_what_changes_pixels_is_obeyed(folders, images, tmp_path, kind, what):
    folder = changed(folders[kind], tmp_path, **OBEYED[what])
    assert_same(ours(folder, images), theirs(AutoModel.from_pretrained(folder).eval(), folder, images))


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_obeyed_is_refused(folders, tmp_path, what):
    change, told = REFUSED[what]
    with pytest.raises(ValueError, match=told):
        load_model(f"local-dir:{changed(folders['clip'], tmp_path, **change)}", schema=SCHEMA)


def test_the_crop_is_that_of_the_first_library_unless_one_is_asked_for(folders, images, tmp_path):
    """A folder of transformers crops as transformers does to the pixel; open_clip's crop is a setting away."""
    model = AutoModel.from_pretrained(folders["clip"]).eval()
    ours_, theirs_ = ours(folders["clip"], images), theirs(model, folders["clip"], images)
    options = LoadOptions(resize="shortest")
    encoder = load_model(f"local-dir:{folders['clip']}", schema=SCHEMA, options=options).eval()
    other = torch.stack([encoder.preprocess.image(data) for data in images])
    own = load_model(f"local-dir:{folders['clip']}", schema=SCHEMA).preprocess
    assert own.resize == "shortest_transformers" and encoder.preprocess.resize == "shortest"
    moved = [not torch.equal(own.image(data), pixels) for data, pixels in zip(images, other, strict=True)]
    assert any(moved) and not all(moved)
    assert_same(ours_, theirs_)


def test_processor_config_comes_first(folders, images, tmp_path):
    folder = changed(folders["clip"], tmp_path, image_mean=0.1)
    saved = json.loads((folders["clip"] / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": saved}))
    model = AutoModel.from_pretrained(folder).eval()
    assert_same(ours(folder, images), theirs(model, folder, images))
    assert torch.equal(ours(folder, images), ours(folders["clip"], images))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert_same(ours(folder, images), theirs(model, folder, images))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_config_dicts_are_read_as_transformers_reads_them(folders, images, tmp_path, kind, tower):
    """In CLIP they override *_config, with their defaults for what they leave out; in SigLIP nothing reads them."""
    config, key = json.loads((folders[kind] / "config.json").read_text()), f"{tower}_config"
    right = config[key]
    wrong = {**right, "num_attention_heads": 2 * HEADS}
    given = {key: wrong, f"{key}_dict": right} if kind == "clip" else {key: right, f"{key}_dict": wrong}
    folder = changed(folders[kind], tmp_path, "config.json", **given)
    model, encoder = AutoModel.from_pretrained(folder).eval(), load_model(f"local-dir:{folder}", schema=SCHEMA).eval()
    assert getattr(model.config, key).num_attention_heads == HEADS
    assert_same(ours(folder, images), theirs(model, folder, images))
    with torch.no_grad():
        tokens, part = encoder.preprocess.text(["red shoe", "a mug"]), encoder.tower(Modality.text)
        features = model.get_text_features(input_ids=tokens)
        assert_same(part.head(part.trunk(tokens)), getattr(features, "pooler_output", features))
    if kind == "clip":
        given[f"{key}_dict"] = {name: value for name, value in right.items() if name != "num_hidden_layers"}
        default = getattr(CLIPConfig.from_dict(config | given), key).num_hidden_layers
        assert to_open_clip(config | given)[f"{tower}_cfg"]["layers"] == default != right["num_hidden_layers"]


def test_special_tokens_in_a_text_are_text(folders):
    encoder = load_model(f"local-dir:{folders['clip']}", schema=SCHEMA)
    plain, spelled = encoder.preprocess.text(["red <end_of_text> shoe", "red < end_of_text> shoe"])
    assert torch.equal(plain, spelled) and (plain == 49407).sum() == 1 and (plain == 49406).sum() == 1
