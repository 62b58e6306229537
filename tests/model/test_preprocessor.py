"""A folder of transformers loads with the vectors of transformers, or is refused, whatever its preprocessor says."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPConfig, CLIPImageProcessor, CLIPModel

from gcl.model.load import load_model
from gcl.schema import Field, Modality, Schema

SCHEMA = Schema({"query": Field()}, {"image": Field(Modality.image)})
OBEYED = {
    "as it is": {}, "no rgb": {"do_convert_rgb": None}, "one mean": {"image_mean": 0.4, "image_std": 0.3},
    "not normalised": {"do_normalize": False}, "another factor": {"rescale_factor": 1 / 127.5},
    "both": {"do_normalize": False, "rescale_factor": 0.01}, "bilinear": {"resample": 2},
    "squashed": {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}},
    "squashed, not cropped": {"size": {"height": 32, "width": 32}, "do_center_crop": False},
    "a number for the crop": {"crop_size": 32}, "a number for the size": {"size": 32},
    "not padded": {"do_pad": False},
}  # fmt: skip
REFUSED = {
    "not rescaled": ({"do_rescale": False}, "do_rescale=False"), "not resized": ({"do_resize": False}, "do_resize"),
    "padded": ({"do_pad": True}, "do_pad"), "nearest": ({"resample": 0}, "resample=0"),
    "not cropped": ({"do_center_crop": False}, "cannot resize"),
    "cropped from more": ({"size": {"shortest_edge": 40}}, "cannot resize images to 40"),
    "bounds": ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "longest_edge"),
    "flipped": ({"do_flip_channel_order": True}, "do_flip_channel_order"),
    "another class": ({"image_processor_type": "ConvNextImageProcessor"}, "ConvNextImageProcessor"),
    "naflex": ({"image_processor_type": "Siglip2ImageProcessorFast", "max_num_patches": 256}, "NaFlex"),
    "no mean": ({"image_mean": None}, "image_mean=None"), "no deviation": ({"image_std": 0}, "image_std=0"),
    "negative": ({"rescale_factor": -1}, "rescale_factor"), "text": ({"image_mean": "0.5"}, "image_mean"),
}  # fmt: skip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "max_position_embeddings": 77, "vocab_size": 49408, "eos_token_id": 49407}
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def changed(folder, tmp_path, **change):
    copy = shutil.copytree(folder, tmp_path / "changed")
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return copy


@pytest.mark.parametrize("what", OBEYED)
def test_what_changes_pixels_is_obeyed(clip_folder, tmp_path, what):
    folder = changed(clip_folder, tmp_path, **OBEYED[what])
    encoder = load_model(f"local-dir:{folder}", schema=SCHEMA).eval()
    model, processor = CLIPModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    random = np.random.default_rng(0)
    # Where the crop leaves an odd number of pixels over, open_clip begins one pixel later than transformers.
    for size in [(32, 32), (50, 40), (32, 96), (200, 150)] * 5:
        image = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(size[::-1], 3)
        data = io.BytesIO()
        image.save(data, "PNG")
        with torch.no_grad():
            part = encoder.tower(Modality.image)
            pixels = encoder._pixels(encoder.preprocess.image(data.getvalue())[None])
            ours = part.head(part.trunk(pixels))
            theirs = model.get_image_features(**processor(image, return_tensors="pt"))
        theirs = getattr(theirs, "pooler_output", theirs)
        assert torch.nn.functional.cosine_similarity(ours, theirs).item() >= 0.9999


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_obeyed_is_refused(clip_folder, tmp_path, what):
    change, told = REFUSED[what]
    with pytest.raises(ValueError, match=told):
        load_model(f"local-dir:{changed(clip_folder, tmp_path, **change)}", schema=SCHEMA)


def test_special_tokens_in_a_text_are_text(clip_folder):
    encoder = load_model(f"local-dir:{clip_folder}", schema=SCHEMA)
    plain, spelled = encoder.preprocess.text(["red <end_of_text> shoe", "red < end_of_text> shoe"])
    assert torch.equal(plain, spelled) and (plain == 49407).sum() == 1 and (plain == 49406).sum() == 1
