"""conf/model/*.yaml: every file is a ModelConfig whose model open_clip can build."""

from dataclasses import fields
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import yaml

from gcl.model.load import load_model
from gcl.model.settings import LoadOptions, ModelConfig, Recipe
from gcl.schema import Field, Modality, Schema

FILES = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
ARCHITECTURES = {  # of the repositories that only a hub has
    "hf-hub:Marqo/marqo-ecommerce-embeddings-B": "ViT-B-16-SigLIP",
    "hf-hub:Marqo/marqo-ecommerce-embeddings-L": "ViT-L-16-SigLIP-256",
    "hf-hub:Marqo/marqo-fashionSigLIP": "ViT-B-16-SigLIP",
}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_usual_models_are_there():
    usual = "ecommerce-B ecommerce-L fashion-siglip siglip-B siglip-L siglip-SO400M siglip2-B siglip2-L siglip2-SO400M"
    more = "clip-B-32 clip-B-16 clip-L-14 e5-base lite tiny pe-core-B pe-core-L metaclip2-H mobileclip2-S0"
    larger = {f"siglip2-{size}-{pixels}" for size in ("B", "L", "SO400M") for pixels in (384, 512)}
    assert {*usual.split(), *more.split(), *larger} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_is_and_nothing_unknown(path):
    settings, text = read(path), path.read_text(encoding="utf-8")
    assert text.startswith("# ") and f"`model={path.stem}" in text
    assert settings["label"] == path.stem
    assert settings.keys() == {field.name for field in fields(ModelConfig)}
    Recipe(**settings["recipe"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_architecture_and_its_weights_are_known(path):
    settings = read(path)
    name = ARCHITECTURES.get(settings["name"], settings["name"])
    if name.startswith("hf-text:"):
        return
    config = open_clip.get_model_config(name)
    assert config is not None
    if settings["pretrained"]:
        assert settings["pretrained"] in open_clip.list_pretrained_tags_by_model(name)
    if timm_name := config["vision_cfg"].get("timm_model_name"):
        assert timm_name in timm.list_models()


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_architecture_has_two_towers_we_can_read(path):
    """Built without memory for weights: the shape of every model, the largest too."""
    from gcl.model.towers import embedding_width, tower

    name = ARCHITECTURES.get(read(path)["name"], read(path)["name"])
    if name.startswith("hf-text:") or name == "gcl-lite":
        return
    config = open_clip.get_model_config(name)
    custom = config.pop("custom_text", False)
    with torch.device("meta"):
        model = (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**config)
    text = tower(model, Modality.text)
    assert embedding_width(model) == config["embed_dim"]
    assert text.ignores_padding == ("SigLIP" not in name and "MobileCLIP2" not in name)
    known = {id(p) for modality in Modality for p in tower(model, modality).parameters()}
    assert {name for name, p in model.named_parameters() if id(p) not in known} <= {"logit_scale", "logit_bias"}


def test_tiny_loads_as_configured():
    settings = {key: value for key, value in read(FILES[-1]).items() if key not in ("label", "recipe", "lora")}
    assert settings.pop("name") == "gcl-tiny"
    schema = Schema(query={"query": Field()}, document={"image": Field(Modality.image)})
    assert load_model("gcl-tiny", schema=schema, options=LoadOptions(**settings)).preprocess.resize == "squash"
